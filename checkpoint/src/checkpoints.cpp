// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/checkpoints.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

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

  // One checkpoint, from its command on.
  struct Write {
    Reply reply;
    WriteOptions options;
    int signal = 0;
    std::unique_ptr<FamilySnapshot> snapshot;
    std::optional<Result<WrittenVersion>> outcome;
    Clock::time_point began;
  };

  Parts parts;
  std::set<pid_t> busy;  // roots that are being checkpointed

  explicit Impl(Parts p) : parts(std::move(p)) {}

  void add_commands();
  void checkpoint(const Request& request, const Reply& reply);
  void refuse_ipc_objects(size_t kind, std::function<void(Status)> done);
  void capture(const std::shared_ptr<Write>& work, pid_t root, pid_t asker);
  void write(const std::shared_ptr<Write>& work, pid_t root);
  void written(Write& work);
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
  const pid_t asker = request.peer.pid == *root ? 0 : request.peer.pid;
  refuse_ipc_objects(0, [self = shared_from_this(), work, root = *root, asker](const Status& none) {
    if (none) return self->capture(work, root, asker);
    self->busy.erase(root);
    work->reply->fail(none.error());
  });
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

void Checkpoints::Impl::capture(const std::shared_ptr<Write>& work, pid_t root, pid_t asker) {
  capture_family(
      parts.capture, root, asker,
      [self = shared_from_this(), work, root](Result<std::unique_ptr<FamilySnapshot>> snapshot) {
        if (!snapshot) {
          self->busy.erase(root);
          return work->reply->fail(snapshot.error());
        }
        work->snapshot = std::move(*snapshot);
        self->write(work, root);
      });
}

void Checkpoints::Impl::write(const std::shared_ptr<Write>& work, pid_t root) {
  work->began = Clock::now();
  parts.capture.node.workers.submit(
      [work] {
        work->outcome.emplace(write_version(SnapshotPages(*work->snapshot), work->options));
      },
      [self = shared_from_this(), work, root] {
        self->busy.erase(root);
        self->written(*work);
      });
}

void Checkpoints::Impl::written(Write& work) {
  using std::chrono::duration_cast, std::chrono::microseconds;
  const auto write_time = duration_cast<microseconds>(Clock::now() - work.began);
  const auto& outcome = *work.outcome;
  if (!outcome) {
    work.snapshot.reset();
    return work.reply->fail(outcome.error());
  }
  if (work.signal != 0)
    for (const FamilyMember& member : work.snapshot->family.members)
      if (!member.has_ended()) kill(member.pid, work.signal);
  const VersionInfo& info = outcome->info;
  log_info("checkpoint", "{} version {}: {} processes, {} bytes, paused {} us, written in {} us",
           work.options.folder, info.version, info.processes, info.page_bytes,
           work.snapshot->pause.count(), write_time.count());
  work.reply->ok({{"version", info.version},
                  {"processes", info.processes},
                  {"page_bytes", info.page_bytes},
                  {"stored_bytes", outcome->stored_bytes},
                  {"pause_us", work.snapshot->pause.count()},
                  {"write_us", write_time.count()}});
  work.snapshot.reset();
}

Checkpoints::Checkpoints(Parts parts) : impl_(std::make_shared<Impl>(std::move(parts))) {
  impl_->add_commands();
  add_restart_commands(impl_->parts);
}
Checkpoints::~Checkpoints() = default;

}  // namespace krg
