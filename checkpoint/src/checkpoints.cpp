// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/checkpoints.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "application_data.h"
#include "applications.h"
#include "callbacks.h"
#include "checkpoint_messages.h"
#include "krg/checkpoint/consolidate.h"
#include "krg/checkpoint/write_version.h"
#include "krg/runtime/log.h"
#include "krg/runtime/run_after.h"
#include "left_out_memory.h"
#include "part_writes.h"
#include "payloads.h"
#include "progress_desk.h"
#include "restarts.h"

namespace krg {

using nlohmann::json;
using namespace checkpoint_messages;

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kLongChain = 8;      // older versions that one needs: time to consolidate
constexpr size_t kLongestChain = 24;  // then the next one has all pages
constexpr std::chrono::seconds kConsolidationEnds{30};
constexpr std::chrono::milliseconds kTryAgain{20};
constexpr int kMostTries = 100;  // while something is on its way
// Who asks while an application is still being restarted waits for it, so long at the most.
constexpr std::chrono::seconds kRestartEnds{60};
// Whoever else writes into the folder, as a cluster does that is about to end.
constexpr std::chrono::seconds kWriterEnds{10};

}  // namespace

struct Checkpoints::Impl : std::enable_shared_from_this<Impl> {
  using Request = ControlServer::Request;
  using Reply = std::function<void(Result<json>)>;

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
    uint32_t job = 0;  // whose orphans are members, too; 0: none's
    Audience audience;
    uint64_t base = 0;  // the capture that it goes on from; 0: it has all pages
    // What large members have is written under this watch while they run; 0: there is none.
    uint64_t watch = 0;
    std::vector<uint32_t> watched;                      // nodes that have such
    bool is_live = false;                               // that is under way
    std::chrono::microseconds stood_before{0}, ran{0};  // for that
    int signal = 0;
    int tries_left = kMostTries;
    EventLoop::Timer timer;
    bool saves_files = false;
    bool is_called = false;  // its members have been told that it is under way
    std::optional<Result<FamilyCaptures::Captured>> outcome_of_capture;
    FamilyCaptures::Captured captured;
    // Opened while the family is captured.
    enum class Opening { kNotBegun, kUnderWay, kDone } opening = Opening::kNotBegun;
    Result<std::unique_ptr<NewVersion>> version = std::unique_ptr<NewVersion>();
    std::optional<Error> failure;
    std::vector<WrittenPart> written;
    std::optional<Result<WrittenVersion>> outcome;
    Clock::time_point began;
  };
  using Work = std::shared_ptr<Write>;

  Parts parts;
  FamilyTracking tracking;
  FamilyCaptures captures;
  std::shared_ptr<Applications> applications;
  std::shared_ptr<ApplicationData> data;
  std::shared_ptr<LeftOutMemory> left_out;
  std::shared_ptr<Callbacks> callbacks;
  ProgressDesk progress;
  std::set<pid_t> busy;  // roots that are being checkpointed
  std::function<bool(pid_t)> is_restarting;
  std::map<pid_t, Base> bases;       // by root
  std::map<pid_t, uint64_t> frozen;  // roots of those that stand until they are told to go on
  // Chains that are being made shorter, by folder; true: stop.
  std::map<std::string, std::shared_ptr<std::atomic<bool>>> consolidations;

  explicit Impl(Parts p)
      : parts(std::move(p)),
        captures(capture_parts()),
        applications(std::make_shared<Applications>(parts.capture.node, parts.capture.table,
                                                    parts.capture.capabilities, parts.tasks_of)),
        data(std::make_shared<ApplicationData>(parts.capture.node, parts.control,
                                               parts.capture.table, applications)),
        left_out(std::make_shared<LeftOutMemory>(parts.capture.node, parts.capture.table)),
        callbacks(
            std::make_shared<Callbacks>(parts.capture.node, parts.control, applications, left_out)),
        progress(parts.capture.node, parts.control) {}
  FamilyCaptureParts capture_parts() {
    parts.capture.tracking = &tracking;
    parts.capture.left_out = [this](pid_t pid) { return left_out->of(pid); };
    return parts.capture;
  }

  void add_commands();
  void find_application(const json& arguments, Applications::Done done);
  void find_when_restarted(pid_t pid, Clock::time_point until, Applications::Done done);
  void forward(const Request& request, const Applications::Application& to, const Reply& reply);
  void checkpoint(const AskCheckpoint& ask, const Audience& audience, const json& arguments,
                  const Reply& reply);
  void freeze(const AskCheckpoint& ask, const Reply& reply);
  void unfreeze(pid_t root, int signal, const Reply& reply);
  void choose_base(Write& work);
  void capture(const Work& work);
  void open_version(const Work& work);
  void captured_and_open(const Work& work);
  void not_captured(const Work& work, const Error& why);
  void write_parts(const Work& work);
  void commit(const Work& work);
  void written(const Work& work);
  void fail(const Work& work, const Error& why);
  void begin_live(const Work& work);
  void write_live(const Work& work);
  void end_live(const Work& work, const Status& written);
  void forget_live(Write& work);
  void give_up(const Work& work, const Error& why);
  void call_and_capture(const Work& work);
  void read_data_and_capture(const Work& work);
  void call_after(const Work& work);
  void call_after(pid_t root);
  void shorten_chain(const WriteOptions& options);
};

void Checkpoints::Impl::add_commands() {
  applications->listen();
  data->listen();
  left_out->listen();
  callbacks->listen();
  std::weak_ptr<Impl> weak = weak_from_this();
  parts.control.add_command("checkpoint", [weak](Request request, ControlServer::Reply reply) {
    auto shared = std::make_shared<ControlServer::Reply>(std::move(reply));
    const Reply answer = [shared](Result<json> result) {
      result ? shared->ok(std::move(*result)) : shared->fail(result.error());
    };
    auto self = weak.lock();
    if (!self) return;
    auto asked = std::make_shared<Request>(std::move(request));
    self->find_application(asked->arguments,
                           [self, asked, answer](Result<Applications::Application> found) {
                             if (!found) return answer(found.error());
                             self->forward(*asked, *found, answer);
                           });
  });
  parts.control.add_command(
      "checkpoint.applications", [weak](const Request&, ControlServer::Reply reply) {
        auto self = weak.lock();
        if (!self) return;
        auto shared = std::make_shared<ControlServer::Reply>(std::move(reply));
        self->applications->find_all([shared](std::vector<pid_t> roots) {
          shared->ok({{"pids", std::move(roots)}});
        });
      });
  parts.capture.node.messenger.on_request<AskCheckpoint>(
      [weak](NodeId from, const AskCheckpoint& ask, std::string_view payload,
             Messenger::Reply reply) {
        auto self = weak.lock();
        if (!self) return;
        auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
        self->checkpoint(ask, {from, ask.connection}, json::parse(payload, nullptr, false),
                         [shared](Result<json> result) {
                           if (result) return shared->ok(result->dump());
                           shared->fail(result.error());
                         });
      });
  add_part_writes(parts.capture.node, captures);
}

void Checkpoints::Impl::find_application(const json& arguments, Applications::Done done) {
  pid_t pid = arguments.value("pid", 0);
  if (arguments.contains("job")) {
    const auto tasks = parts.tasks_of(arguments.value("job", 0u));
    if (tasks.size() != 1)
      return done(errno_error(tasks.empty() ? "the job has no process yet"
                                            : "a job of several copies (-n) cannot be kept as one",
                              ENOTSUP));
    pid = tasks.front();
  }
  find_when_restarted(pid, Clock::now() + kRestartEnds, std::move(done));
}

void Checkpoints::Impl::find_when_restarted(pid_t pid, Clock::time_point until,
                                            Applications::Done done) {
  if (!is_restarting(pid)) return applications->find(pid, std::move(done));
  if (Clock::now() >= until)
    return done(errno_error(fmt::format("application {} is still being restarted", pid), EBUSY));
  run_after(parts.capture.node.loop, kTryAgain,
            [weak = weak_from_this(), pid, until, done = std::move(done)] {
              if (auto self = weak.lock()) self->find_when_restarted(pid, until, done);
            });
}

// The node of the root has what is known of it.
void Checkpoints::Impl::forward(const Request& request, const Applications::Application& to,
                                const Reply& reply) {
  AskCheckpoint ask;
  ask.root = to.root;
  ask.job = to.job;
  const bool is_member = request.arguments.value("member", false);
  ask.asker = is_member || request.peer.pid == to.root ? 0 : request.peer.pid;
  if (request.arguments.value("progress", false)) ask.connection = request.connection;
  parts.capture.node.messenger.request(to.node, ask, request.arguments.dump(),
                                       [reply](Result<std::string> result) {
                                         if (!result) return reply(result.error());
                                         reply(json::parse(*result, nullptr, false));
                                       });
}

void Checkpoints::Impl::checkpoint(const AskCheckpoint& ask, const Audience& audience,
                                   const json& arguments, const Reply& reply) {
  const pid_t root = ask.root;
  if (arguments.is_discarded()) return reply(errno_error("checkpoint", EPROTO));
  const std::string action = arguments.value("action", std::string());
  if (action == "freeze") return freeze(ask, reply);
  if (action == "unfreeze") return unfreeze(root, arguments.value("signal", 0), reply);
  auto work = std::make_shared<Write>();
  work->reply = reply;
  work->options.folder = arguments.value("folder", std::string());
  work->options.description = arguments.value("description", std::string());
  work->options.compress = arguments.value("compress", false);
  work->options.keep = arguments.value("keep", 0u);
  work->signal = arguments.value("signal", 0);
  work->saves_files = arguments.value("files", false);
  if (!work->options.folder.starts_with('/'))
    return reply(errno_error("the folder must be an absolute path", EINVAL));
  if (!busy.insert(root).second)
    return reply(errno_error(fmt::format("application {} is busy", root), EBUSY));
  work->root = root;
  work->asker = ask.asker;
  work->job = ask.job;
  work->audience = audience;
  if (!arguments.value("full", false)) choose_base(*work);
  work->base == 0 && !frozen.contains(root) ? begin_live(work) : call_and_capture(work);
}

void Checkpoints::Impl::freeze(const AskCheckpoint& ask, const Reply& reply) {
  const pid_t root = ask.root;
  if (frozen.contains(root))
    return reply(errno_error(fmt::format("application {} stands already", root), EBUSY));
  if (!busy.insert(root).second)
    return reply(errno_error(fmt::format("application {} is busy", root), EBUSY));
  const auto refuse = [self = shared_from_this(), root, reply](const Error& why) {
    self->busy.erase(root);
    self->call_after(root);
    reply(why);
  };
  callbacks->call(root, false, [self = shared_from_this(), ask, refuse, reply](const Status& told) {
    if (!told) return refuse(told.error());
    self->captures.capture(
        {.root = ask.root, .asker = ask.asker, .job = ask.job, .only_freezes = true},
        [self, ask, refuse, reply](Result<FamilyCaptures::Captured> captured) {
          if (!captured) return refuse(captured.error());
          self->busy.erase(ask.root);
          self->frozen[ask.root] = captured->number;
          reply(json::object());
        });
  });
}

void Checkpoints::Impl::unfreeze(pid_t root, int signal, const Reply& reply) {
  const auto stands = frozen.find(root);
  if (busy.contains(root))
    return reply(errno_error(fmt::format("application {} is busy", root), EBUSY));
  if (stands == frozen.end())
    return reply(errno_error(fmt::format("application {} does not stand", root), EINVAL));
  captures.drop(stands->second);
  frozen.erase(stands);
  call_after(root);
  if (signal != 0)
    parts.shadows.send_signal(GlobalPid{root}, {.signal = signal, .code = SI_USER}, nullptr);
  reply(json::object());
}

// ---- large members, while they run ----

// Whatever does not work there is for the capture, which tells why.
void Checkpoints::Impl::begin_live(const Work& work) {
  work->began = Clock::now();
  captures.capture(
      {.root = work->root, .asker = work->asker, .job = work->job, .only_watches = true},
      [self = shared_from_this(), work](Result<FamilyCaptures::Captured> watching) {
        if (!watching) return self->call_and_capture(work);
        work->watch = watching->number;
        work->watched = std::move(watching->nodes);
        work->stood_before = watching->pause;
        if (work->watched.empty()) {
          self->forget_live(*work);
          return self->call_and_capture(work);
        }
        work->is_live = true;
        self->open_version(work);
      });
}

void Checkpoints::Impl::write_live(const Work& work) {
  auto left = std::make_shared<size_t>(work->watched.size());
  auto all = std::make_shared<Status>();
  for (uint32_t node : work->watched)
    request_live(parts.capture.node, (*work->version)->order_for(node), work->watch, work->audience,
                 [self = shared_from_this(), work, left, all](const Status& done) {
                   if (*all) *all = done;
                   if (--*left == 0) self->end_live(work, *all);
                 });
}

void Checkpoints::Impl::end_live(const Work& work, const Status& written) {
  work->is_live = false;
  work->ran = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - work->began);
  work->base = work->watch;
  if (!written) {
    log_warn("checkpoint", "{}: {}", work->options.folder, written.error().message());
    forget_live(*work);
  }
  call_and_capture(work);
}

void Checkpoints::Impl::forget_live(Write& work) {
  if (work.watch == 0) return;
  captures.drop(work.watch);
  if (work.base == work.watch) work.base = 0;
  work.watch = 0;
}

// Those of an application that stands already have been called then.
void Checkpoints::Impl::call_and_capture(const Work& work) {
  if (frozen.contains(work->root)) return read_data_and_capture(work);
  callbacks->call(work->root, false, [self = shared_from_this(), work](const Status& called) {
    work->is_called = true;
    called ? self->read_data_and_capture(work) : self->give_up(work, called.error());
  });
}

void Checkpoints::Impl::read_data_and_capture(const Work& work) {
  data->get(work->root, [self = shared_from_this(), work](const Result<uint64_t>& known) {
    if (!known) return self->give_up(work, known.error());
    work->options.user_data = *known;
    self->capture(work);
  });
}

// Those who were called before it go on.
void Checkpoints::Impl::call_after(const Work& work) {
  if (std::exchange(work->is_called, false)) call_after(work->root);
}
void Checkpoints::Impl::call_after(pid_t root) {
  callbacks->call(root, true, [](const Status&) {});
}

void Checkpoints::Impl::fail(const Work& work, const Error& why) {
  call_after(work);
  forget_live(*work);
  busy.erase(work->root);
  work->reply(why);
}

void Checkpoints::Impl::choose_base(Write& work) {
  const auto known = bases.find(work.root);
  if (known == bases.end() || known->second.folder != work.options.folder ||
      known->second.chain >= kLongestChain)
    return;
  work.base = known->second.capture;
  work.options.base = known->second.version;
}

void Checkpoints::Impl::capture(const Work& work) {
  bases.erase(work->root);  // what is written is noted anew from now on
  const auto stands = frozen.find(work->root);
  captures.capture({.root = work->root,
                    .asker = work->asker,
                    .job = work->job,
                    .base = work->base,
                    .saves_files = work->saves_files,
                    .frozen = stands == frozen.end() ? 0 : stands->second},
                   [self = shared_from_this(), work](Result<FamilyCaptures::Captured> captured) {
                     work->began = Clock::now();
                     if (captured) self->call_after(work);
                     work->outcome_of_capture.emplace(std::move(captured));
                     self->captured_and_open(work);
                   });
  open_version(work);
}

void Checkpoints::Impl::open_version(const Work& work) {
  if (work->opening != Write::Opening::kNotBegun) return;
  work->opening = Write::Opening::kUnderWay;
  work->options.patience = kWriterEnds;
  if (auto other = consolidations.find(work->options.folder); other != consolidations.end()) {
    *other->second = true;
    work->options.patience = kConsolidationEnds;
  }
  parts.capture.node.workers.submit([work] { work->version = NewVersion::open(work->options); },
                                    [self = shared_from_this(), work] {
                                      work->opening = Write::Opening::kDone;
                                      self->captured_and_open(work);
                                    });
}

void Checkpoints::Impl::captured_and_open(const Work& work) {
  if (work->opening != Write::Opening::kDone) return;
  if (work->is_live) {
    if (work->version) return write_live(work);
    work->outcome.emplace(work->version.error());
    return written(work);
  }
  if (!work->outcome_of_capture) return;
  auto captured = std::move(*work->outcome_of_capture);
  work->outcome_of_capture.reset();
  if (!captured) return not_captured(work, captured.error());
  work->captured = std::move(*captured);
  if (work->version) return write_parts(work);
  work->outcome.emplace(work->version.error());
  written(work);
}

// What is on its way between sockets has arrived a moment later.
void Checkpoints::Impl::not_captured(const Work& work, const Error& why) {
  if (why.errno_or(0) == EAGAIN && work->tries_left-- > 0) {
    work->timer = parts.capture.node.loop.after(
        kTryAgain, [self = shared_from_this(), work] { self->capture(work); });
    return;
  }
  give_up(work, why);
}

// Others may write into the folder before this is answered.
void Checkpoints::Impl::give_up(const Work& work, const Error& why) {
  parts.capture.node.workers.submit(
      [work] { work->version = std::unique_ptr<NewVersion>(); },
      [self = shared_from_this(), work, why] { self->fail(work, why); });
}

// All nodes at once. A part that fails leaves nothing of the version, when all have ended.
void Checkpoints::Impl::write_parts(const Work& work) {
  const auto& nodes = work->captured.nodes;
  auto left = std::make_shared<size_t>(nodes.size());
  for (uint32_t node : nodes)
    request_part(parts.capture.node, (*work->version)->order_for(node), work->captured, work->watch,
                 work->audience, [self = shared_from_this(), work, left](Result<WrittenPart> part) {
                   if (part)
                     work->written.push_back(std::move(*part));
                   else if (!work->failure)
                     work->failure = part.error();
                   if (--*left == 0) self->commit(work);
                 });
}

void Checkpoints::Impl::commit(const Work& work) {
  std::sort(work->written.begin(), work->written.end(),
            [](const WrittenPart& a, const WrittenPart& b) { return a.node < b.node; });
  auto long_chain = std::make_shared<bool>(false);
  parts.capture.node.workers.submit(
      [work, long_chain, weak = weak_from_this(), &loop = parts.capture.node.loop] {
        work->outcome.emplace(work->failure
                                  ? Result<WrittenVersion>(*work->failure)
                                  : (*work->version)->commit(work->captured.family, work->written));
        std::unique_ptr<NewVersion> version = std::move(*work->version);
        if (!*work->outcome) version.reset();
        *long_chain = *work->outcome && (*work->outcome)->info.needs.size() >= kLongChain;
        loop.post([weak, work] {
          if (auto self = weak.lock()) self->written(work);
        });
        // Who asked need not wait for this.
        if (!version) return;
        if (auto tidied = version->tidy(); !tidied)
          log_warn("checkpoint", "{}: {}", work->options.folder, tidied.error().message());
      },
      [self = shared_from_this(), options = work->options, long_chain] {
        if (*long_chain) self->shorten_chain(options);
      });
}

void Checkpoints::Impl::written(const Work& finished) {
  using std::chrono::duration_cast, std::chrono::microseconds;
  Write& work = *finished;
  work.opening = Write::Opening::kNotBegun;
  work.version = std::unique_ptr<NewVersion>();
  const auto write_time = work.ran + duration_cast<microseconds>(Clock::now() - work.began);
  const auto& outcome = *work.outcome;
  const bool has_base = work.base != 0;
  forget_live(work);
  if (const auto stands = frozen.find(work.root);
      stands == frozen.end() || stands->second != work.captured.number)
    captures.drop(work.captured.number);
  if (!outcome && has_base && outcome.error().errno_or(0) == ESTALE) {
    // Somebody has removed or exchanged the version that it would need.
    work.base = 0;
    work.options.base = {};
    work.failure.reset();
    work.written.clear();
    return call_and_capture(finished);
  }
  if (!outcome) return fail(finished, outcome.error());
  busy.erase(work.root);
  const VersionInfo& info = outcome->info;
  if (tracking.works())
    bases[work.root] = {
        work.captured.number, work.options.folder, {info.version, info.id}, info.needs.size()};
  if (work.signal != 0)
    for (const FamilyMember& member : work.captured.family.members)
      if (!member.has_ended())
        parts.shadows.send_signal(GlobalPid{member.pid},
                                  {.signal = work.signal, .code = SI_USER, .sender = work.asker},
                                  nullptr);
  const auto pause = std::max(work.captured.pause, work.stood_before).count();
  log_info(
      "checkpoint",
      "{} version {}: {} processes on {} nodes, {} bytes, paused {} us (and before that for {} "
      "us at the most), written in {} us ({} of them before that)",
      work.options.folder, info.version, info.processes, info.nodes.size(), info.page_bytes,
      work.captured.pause.count(), work.stood_before.count(), write_time.count(), work.ran.count());
  work.reply(json{{"version", info.version},
                  {"processes", info.processes},
                  {"nodes", info.nodes.size()},
                  {"memory_bytes", info.memory_bytes},
                  {"page_bytes", info.page_bytes},
                  {"stored_bytes", outcome->stored_bytes},
                  {"pause_us", pause},
                  {"write_us", write_time.count()}});
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
  impl_->is_restarting =
      add_restart_commands(impl_->parts, [data = impl_->data](pid_t root, uint64_t value) {
        if (value != 0) data->set(root, value, [](const Result<uint64_t>&) {});
      });
}
Checkpoints::~Checkpoints() = default;

}  // namespace krg
