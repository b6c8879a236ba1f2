// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/checkpoints.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "krg/checkpoint/consolidate.h"
#include "krg/checkpoint/write_version.h"
#include "krg/runtime/log.h"
#include "restarts.h"

namespace krg {

using nlohmann::json;

namespace {

using Clock = std::chrono::steady_clock;

class SnapshotPages : public PageSnapshot {
 public:
  explicit SnapshotPages(const FamilySnapshot& snapshot) : snapshot_(snapshot) {}
  const ProcessFamily& family() const override { return snapshot_.family; }
  Result<std::vector<FamilySnapshot::Pages>> pages() const override { return snapshot_.pages(); }
  Status read(uint32_t member, std::span<const PageRange> ranges,
              std::span<std::byte> into) const override {
    return snapshot_.read(member, ranges, into);
  }

 private:
  const FamilySnapshot& snapshot_;
};

constexpr size_t kLongChain = 8;      // older versions that one needs: time to consolidate
constexpr size_t kLongestChain = 24;  // then the next one has all pages
constexpr std::chrono::seconds kConsolidationEnds{30};

struct IpcKind {
  const char* name;
  const char* what;
};
constexpr IpcKind kIpcKinds[] = {{"sem", "System V semaphores"},
                                 {"msg", "System V message queues"},
                                 {"shm", "System V shared memory"}};

Result<std::string> text_of_file(const std::string& path) {
  std::ifstream file(path);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  if (text.empty()) return errno_error(path, ENOENT);
  return text;
}

// 0: it is outside of the session, or gone.
pid_t parent_of(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("PPid:")) return std::atoi(line.c_str() + 5);
  return 0;
}

}  // namespace

struct Checkpoints::Impl : std::enable_shared_from_this<Impl> {
  using Request = ControlServer::Request;
  using Reply = std::shared_ptr<ControlServer::Reply>;

  // What a further checkpoint of an application can go on from.
  struct Base {
    uint64_t capture = 0;
    std::string folder;
    WriteOptions::Base version;
    size_t chain = 0;  // versions that it needs
  };
  // One checkpoint, from its command on.
  struct Write {
    Reply reply;
    WriteOptions options;
    pid_t root = 0, asker = 0;
    uint64_t base = 0;  // the capture that it goes on from; 0: it has all pages
    int signal = 0;
    std::unique_ptr<FamilySnapshot> snapshot;
    std::optional<Result<WrittenVersion>> outcome;
    Clock::time_point began;
  };

  Parts parts;
  FamilyTracking tracking;
  std::set<pid_t> busy;         // roots that are being checkpointed
  std::map<pid_t, Base> bases;  // by root
  // Chains that are being made shorter, by folder; true: stop.
  std::map<std::string, std::shared_ptr<std::atomic<bool>>> consolidations;

  explicit Impl(Parts p) : parts(std::move(p)) { parts.capture.tracking = &tracking; }

  void add_commands();
  void checkpoint(const Request& request, const Reply& reply);
  void refuse_ipc_objects(size_t kind, std::function<void(Status)> done);
  void choose_base(Write& work);
  void capture(const std::shared_ptr<Write>& work);
  void write(const std::shared_ptr<Write>& work);
  void written(const std::shared_ptr<Write>& work);
  void shorten_chain(const WriteOptions& options);
  bool is_checkpointable(pid_t pid) const;
  Result<pid_t> application_of(pid_t pid) const;
  Result<pid_t> root_of(const json& arguments) const;
  json applications() const;
};

void Checkpoints::Impl::add_commands() {
  std::weak_ptr<Impl> weak = weak_from_this();
  parts.control.add_command("checkpoint", [weak](Request request, ControlServer::Reply reply) {
    if (auto self = weak.lock())
      self->checkpoint(request, std::make_shared<ControlServer::Reply>(std::move(reply)));
  });
  parts.control.add_command("checkpoint.applications",
                            [weak](const Request&, ControlServer::Reply reply) {
                              if (auto self = weak.lock()) reply.ok(self->applications());
                            });
}

bool Checkpoints::Impl::is_checkpointable(pid_t pid) const {
  auto sets = parts.capture.capabilities.of(pid);
  return sets && sets->effective.has(Capability::kCheckpointable);
}

Result<pid_t> Checkpoints::Impl::application_of(pid_t pid) const {
  if (parent_of(pid) == 0 && !parts.capture.capabilities.of(pid))
    return errno_error(fmt::format("there is no process {} here", pid), ESRCH);
  if (!is_checkpointable(pid))
    return errno_error(fmt::format("process {}: CHECKPOINTABLE is not effective "
                                   "(krg_capset -e +CHECKPOINTABLE {})",
                                   pid, pid),
                       EPERM);
  pid_t root = pid;
  for (pid_t parent = parent_of(root); parent > 1 && is_checkpointable(parent);
       parent = parent_of(root))
    root = parent;
  return root;
}

Result<pid_t> Checkpoints::Impl::root_of(const json& arguments) const {
  if (!arguments.contains("job")) return application_of(arguments.value("pid", 0));
  const auto tasks = parts.tasks_of(arguments.value("job", 0u));
  if (tasks.size() != 1)
    return errno_error(tasks.empty() ? "the job has no process yet"
                                     : "a job of several copies (-n) cannot be kept as one",
                       ENOTSUP);
  return application_of(tasks.front());
}

json Checkpoints::Impl::applications() const {
  std::set<pid_t> roots;
  for (pid_t pid : parts.capture.table.local_processes())
    if (is_checkpointable(pid))
      if (auto root = application_of(pid)) roots.insert(*root);
  return {{"pids", roots}};
}

void Checkpoints::Impl::checkpoint(const Request& request, const Reply& reply) {
  const json& arguments = request.arguments;
  auto root = root_of(arguments);
  if (!root) return reply->fail(root.error());
  auto work = std::make_shared<Write>();
  work->reply = reply;
  work->options.folder = arguments.value("folder", std::string());
  work->options.description = arguments.value("description", std::string());
  work->options.compress = arguments.value("compress", false);
  work->options.keep = arguments.value("keep", 0u);
  work->signal = arguments.value("signal", 0);
  if (!work->options.folder.starts_with('/'))
    return reply->fail(errno_error("the folder must be an absolute path", EINVAL));
  if (!busy.insert(*root).second)
    return reply->fail(errno_error(fmt::format("application {} is busy", *root), EBUSY));
  work->root = *root;
  work->asker = request.peer.pid == *root ? 0 : request.peer.pid;
  if (!arguments.value("full", false)) choose_base(*work);
  refuse_ipc_objects(0, [self = shared_from_this(), work](const Status& none) {
    if (none) return self->capture(work);
    self->busy.erase(work->root);
    work->reply->fail(none.error());
  });
}

void Checkpoints::Impl::choose_base(Write& work) {
  const auto known = bases.find(work.root);
  if (known == bases.end() || known->second.folder != work.options.folder ||
      known->second.chain >= kLongestChain)
    return;
  work.base = known->second.capture;
  work.options.base = known->second.version;
}

// They outlive processes, and nothing tells whose they are.
void Checkpoints::Impl::refuse_ipc_objects(size_t kind, std::function<void(Status)> done) {
  if (kind == std::size(kIpcKinds)) return done({});
  const auto& [name, what] = kIpcKinds[kind];
  auto heard = [self = shared_from_this(), kind, what = what,
                done = std::move(done)](Result<std::string> text) {
    if (!text) return done(text.error());
    if (std::count(text->begin(), text->end(), '\n') <= 1)  // the heading
      return self->refuse_ipc_objects(kind + 1, done);
    done(errno_error(fmt::format("this system has {}, which a checkpoint does not keep "
                                 "(ipcs shows them, ipcrm removes those that nobody needs)",
                                 what),
                     ENOTSUP));
  };
  if (!parts.read_ipc_text(name, heard)) heard(text_of_file(fmt::format("/proc/sysvipc/{}", name)));
}

void Checkpoints::Impl::capture(const std::shared_ptr<Write>& work) {
  bases.erase(work->root);  // what is written is noted anew from now on
  capture_family(
      parts.capture, work->root, work->asker, work->base,
      [self = shared_from_this(), work](Result<std::unique_ptr<FamilySnapshot>> snapshot) {
        if (!snapshot) {
          self->busy.erase(work->root);
          return work->reply->fail(snapshot.error());
        }
        work->snapshot = std::move(*snapshot);
        self->write(work);
      });
}

void Checkpoints::Impl::write(const std::shared_ptr<Write>& work) {
  work->began = Clock::now();
  if (auto other = consolidations.find(work->options.folder); other != consolidations.end()) {
    *other->second = true;
    work->options.patience = kConsolidationEnds;
  }
  parts.capture.node.workers.submit(
      [work] {
        work->outcome.emplace(write_version(SnapshotPages(*work->snapshot), work->options));
      },
      [self = shared_from_this(), work] { self->written(work); });
}

void Checkpoints::Impl::written(const std::shared_ptr<Write>& finished) {
  using std::chrono::duration_cast, std::chrono::microseconds;
  Write& work = *finished;
  const auto write_time = duration_cast<microseconds>(Clock::now() - work.began);
  const auto& outcome = *work.outcome;
  if (!outcome && work.base != 0 && outcome.error().errno_or(0) == ESTALE) {
    // Somebody has removed or exchanged the version that it would need.
    work.base = 0;
    work.options.base = {};
    work.snapshot.reset();
    return capture(finished);
  }
  busy.erase(work.root);
  if (!outcome) {
    work.snapshot.reset();
    return work.reply->fail(outcome.error());
  }
  const VersionInfo& info = outcome->info;
  if (work.snapshot->number != 0)
    bases[work.root] = {
        work.snapshot->number, work.options.folder, {info.version, info.id}, info.needs.size()};
  if (info.needs.size() >= kLongChain) shorten_chain(work.options);
  if (work.signal != 0)
    for (const FamilyMember& member : work.snapshot->family.members)
      if (!member.has_ended()) kill(member.pid, work.signal);
  log_info("checkpoint", "{} version {}: {} processes, {} bytes, paused {} us, written in {} us",
           work.options.folder, info.version, info.processes, info.page_bytes,
           work.snapshot->pause.count(), write_time.count());
  work.reply->ok({{"version", info.version},
                  {"processes", info.processes},
                  {"memory_bytes", info.memory_bytes},
                  {"page_bytes", info.page_bytes},
                  {"stored_bytes", outcome->stored_bytes},
                  {"pause_us", work.snapshot->pause.count()},
                  {"write_us", write_time.count()}});
  work.snapshot.reset();
}

// In the background; a checkpoint into that folder ends it, and the next one begins it anew.
void Checkpoints::Impl::shorten_chain(const WriteOptions& options) {
  auto stop = std::make_shared<std::atomic<bool>>(false);
  if (!consolidations.emplace(options.folder, stop).second) return;
  auto outcome = std::make_shared<Status>();
  parts.capture.node.workers.submit(
      [stop, outcome, folder = options.folder, compress = options.compress] {
        *outcome = consolidate(
            folder, 0, {.compress = compress, .is_stopped = [stop] { return stop->load(); }});
      },
      [self = shared_from_this(), outcome, folder = options.folder] {
        self->consolidations.erase(folder);
        if (*outcome)
          for (auto& [root, base] : self->bases)
            if (base.folder == folder) base.chain = 0;
        if (!*outcome && outcome->error().errno_or(0) != ECANCELED)
          log_warn("checkpoint", "{}: {}", folder, outcome->error().message());
      });
}

Checkpoints::Checkpoints(Parts parts) : impl_(std::make_shared<Impl>(std::move(parts))) {
  impl_->add_commands();
  add_restart_commands(impl_->parts);
}
Checkpoints::~Checkpoints() = default;

}  // namespace krg
