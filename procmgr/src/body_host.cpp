// SPDX-License-Identifier: GPL-2.0-or-later
#include "body_host.h"

#include <sys/wait.h>

#include <csignal>
#include <map>

#include "body_request.h"
#include "body_spawner.h"
#include "image/image_bodies.h"
#include "krg/procmgr/child_reaper.h"
#include "krg/procmgr/job_namespaces.h"
#include "krg/runtime/log.h"
#include "krg/runtime/run_after.h"
#include "process_status.h"
#include "stop_state.h"
#include "wait_status.h"

namespace krg {
namespace {

using namespace exec_messages;

// How often, and how many times, a body is looked at that is to stop as soon as it runs.
constexpr std::chrono::milliseconds kStopPeriod{2};
constexpr int kStopTries = 500;

void tell_failure(pid_t pid, const Status& taken) {
  if (!taken) log_warn("exec", "body {}: capabilities: {}", pid, taken.error().message());
}

}  // namespace

struct BodyHost::Impl : std::enable_shared_from_this<Impl> {
  // A body whose start has not been answered yet may end already. Nobody else may stop one before
  // its exec: where it was forked its parent waits in vfork(2) for that.
  struct Starting {
    NodeId origin;
    Messenger::Reply reply;
    std::optional<ChildEvent> ended;
    std::optional<ProcessTable::Claim> claim;
  };

  NodeContext& node;
  ProcessTable& table;
  ShadowHost& shadows;
  CapabilityTable& capabilities;
  BodyDescriptors& descriptors;
  std::function<void(pid_t, rusage&)> add_usage;
  std::function<bool()> takes_bodies;
  BodySpawner spawner;
  ImageBodies images;
  std::map<pid_t, Starting> starting;
  std::map<std::pair<NodeId, pid_t>, std::string> parts;  // of requests that are to come

  Impl(NodeContext& n, const ExecPlacer::Parts& parts)
      : node(n),
        table(parts.table),
        shadows(parts.shadows),
        capabilities(parts.capabilities),
        descriptors(parts.descriptors),
        add_usage(parts.add_usage),
        takes_bodies(parts.takes_bodies),
        spawner(n, parts.broker),
        images(n, spawner, parts.pages, parts.shared, parts.sleeps) {}

  void listen();
  void thaw(pid_t pid);
  void await_stop(pid_t pid, int tries);
  void tell_goes_on(pid_t pid);
  void settle_copies_of(NodeId sender);
  void on_part(NodeId sender, pid_t pid, std::string_view bytes);
  void on_start(NodeId sender, const StartBody& ask, std::string_view payload,
                Messenger::Reply reply);
  void make(NodeId sender, const StartBody& ask, BodyRequest request, std::vector<ImportedFd> fds);
  void spawn(const StartBody& ask, ExecSpec spec, std::vector<ImportedFd> fds, int uts_ns);
  void on_created(const StartBody& ask, const std::vector<NodeId>& children_on);
  void take_capabilities(const StartBody& ask);
  void on_started(pid_t pid, Result<int> exec_errno);
  void on_child(pid_t pid, const ChildEvent& event);
  void on_end(pid_t pid, const ChildEvent& event);
  Result<int> job_namespace(const StartBody& ask);
};

void BodyHost::Impl::listen() {
  std::weak_ptr<Impl> weak = weak_from_this();
  node.messenger.on_request<StartBody>(
      [weak](NodeId from, const StartBody& ask, std::string_view payload, Messenger::Reply reply) {
        if (auto self = weak.lock()) self->on_start(from, ask, payload, std::move(reply));
      });
  node.messenger.on<BodyPart>([weak](NodeId from, const BodyPart& part, std::string_view bytes) {
    if (auto self = weak.lock()) self->on_part(from, part.pid, bytes);
  });
  node.messenger.on<ThawBody>([weak](NodeId, const ThawBody& thaw, std::string_view) {
    if (auto self = weak.lock()) self->thaw(thaw.pid);
  });
  node.messenger.on_peer_failure([weak](NodeId peer) {
    auto self = weak.lock();
    if (!self) return;
    std::erase_if(self->parts, [&](const auto& part) { return part.first.first == peer; });
    self->settle_copies_of(peer);
  });
  node.messenger.on<ShadowDied>([weak](NodeId, const ShadowDied& died, std::string_view) {
    auto self = weak.lock();
    if (!self) return;
    self->table.find_body(died.pid) ? void(kill(died.pid, SIGKILL))
                                    : self->shadows.end_guardian(died.pid);
  });
}

void BodyHost::Impl::thaw(pid_t pid) {
  const auto then = images.thaw(pid);
  if (then == InstalledProcess::AfterThaw::kStops) await_stop(pid, kStopTries);
  if (then == InstalledProcess::AfterThaw::kGoesOn) tell_goes_on(pid);
}

// A SIGCONT that comes before a body has stopped anew takes the stop away: the kernel tells of
// neither, while the shadow is still stopped. One that is frozen already, to move on, tells
// nothing.
void BodyHost::Impl::await_stop(pid_t pid, int tries) {
  const auto stat = read_process_stat(pid);
  if (!table.find_body(pid) || !stat || stat->state == 'T') return;
  const bool may_yet_stop =  // it may have had no processor so far
      stat->state == 'R' || stat->state == 't' || is_about_to_stop(pid);
  if (may_yet_stop && tries > 0)
    return run_after(node.loop, kStopPeriod, [weak = weak_from_this(), pid, tries] {
      if (auto self = weak.lock()) self->await_stop(pid, tries - 1);
    });
  tell_goes_on(pid);
}

void BodyHost::Impl::tell_goes_on(pid_t pid) {
  const ProcessTable::Body* body = table.find_body(pid);
  if (!body) return;
  BodyStopped goes_on;
  goes_on.pid = pid;
  if (!node.messenger.send(body->origin, goes_on))
    log_debug("exec", "node {} has failed", body->origin.value);
}

// Nobody will say any more whether they are to run: their origin knows where the process executes.
void BodyHost::Impl::settle_copies_of(NodeId sender) {
  for (pid_t pid : images.sent_by(sender)) {
    const ProcessTable::Body* body = table.find_body(pid);
    if (!body) continue;
    Locate ask;
    ask.pid = pid;
    node.messenger.request(
        body->origin, ask, {}, [self = shared_from_this(), pid](Result<std::string> reply) {
          const NodeId here = self->node.self;
          if (reply &&
              *reply == std::string_view(reinterpret_cast<const char*>(&here), sizeof here))
            return self->thaw(pid);
          kill(pid, SIGKILL);
        });
  }
}

void BodyHost::Impl::on_part(NodeId sender, pid_t pid, std::string_view bytes) {
  std::string& all = parts[{sender, pid}];
  if (all.size() + bytes.size() <= BodyPart::kMostInAll) all.append(bytes);
}

void BodyHost::Impl::on_start(NodeId sender, const StartBody& ask, std::string_view payload,
                              Messenger::Reply reply) {
  std::string whole;
  if (auto before = parts.extract({sender, ask.pid}); !before.empty()) {
    whole = std::move(before.mapped());
    payload = whole.append(payload);
  }
  // Whoever chose this node did not know yet that it leaves.
  if (takes_bodies && !takes_bodies()) return reply.fail(kNotImported, "this node is not online");
  auto request = BodyRequest::parse(payload);
  if (!request) return reply.fail(kNotImported, request.error().message());
  if (starting.contains(ask.pid) || table.find_body(ask.pid))
    return reply.fail(kNotImported, "a body of this pid is here");
  if (const auto* shadow = table.find_shadow(ask.pid); shadow && shadow->is_guardian())
    return reply.fail(kNotImported, "it has left children on this node");
  log_trace("image", "body {}: asked for", ask.pid);
  starting.emplace(ask.pid, Starting{ask.origin, std::move(reply), std::nullopt, {}});
  auto wanted = std::make_shared<BodyRequest>(std::move(*request));
  descriptors.import_fds(
      ask.pid, std::move(wanted->fds),
      [self = shared_from_this(), sender, ask, wanted](Result<std::vector<ImportedFd>> fds) {
        log_trace("image", "body {}: descriptors imported", ask.pid);
        if (fds) return self->make(sender, ask, std::move(*wanted), std::move(*fds));
        auto failed = self->starting.extract(ask.pid);
        failed.mapped().reply.fail(kNotImported, fds.error().message());
      });
}

Result<int> BodyHost::Impl::job_namespace(const StartBody& ask) {
  if (!ask.has_job || !node.jobs) return -1;
  return node.jobs->descriptor(JobId{ask.job});
}

void BodyHost::Impl::make(NodeId sender, const StartBody& ask, BodyRequest wanted,
                          std::vector<ImportedFd> fds) {
  auto uts_ns = job_namespace(ask);
  if (!uts_ns) return on_started(ask.pid, uts_ns.error());
  if (auto* spec = std::get_if<ExecSpec>(&wanted.what))
    return spawn(ask, std::move(*spec), std::move(fds), *uts_ns);
  const bool comes_home = ask.origin == node.self;
  images.install({.sender = sender,
                  .moved = std::move(std::get<MovedProcess>(wanted.what)),
                  .fds = std::move(fds),
                  .uts_ns = *uts_ns,
                  .has_children = !wanted.children_on.empty(),
                  .home = comes_home ? &shadows : nullptr,
                  .on_created =
                      [this, ask, nodes = wanted.children_on] {
                        on_created(ask, nodes);
                        take_capabilities(ask);
                      }},
                 [self = shared_from_this(), pid = ask.pid, comes_home, ask](Status installed) {
                   if (installed && comes_home) self->take_capabilities(ask);
                   self->on_started(pid, installed ? Result<int>(0) : installed.error());
                 });
}

void BodyHost::Impl::spawn(const StartBody& ask, ExecSpec spec, std::vector<ImportedFd> fds,
                           int uts_ns) {
  BodySpawner::Request request;
  request.pid = ask.pid;
  request.spec = std::move(spec);
  request.fds = std::move(fds);
  request.uts_ns = uts_ns;
  const auto slack = capabilities.slack_for(ask.capabilities);
  if (slack)
    request.timer_slack_ns = *slack;
  else
    tell_failure(ask.pid, slack.error());
  request.on_created = [this, ask] {
    on_created(ask, {});
    if (auto claim = table.claim(ask.pid)) starting.at(ask.pid).claim.emplace(std::move(*claim));
    tell_failure(ask.pid, capabilities.adopt_marked(ask.pid, ask.capabilities));
  };
  spawner.spawn(std::move(request),
                [self = shared_from_this(), pid = ask.pid](Result<int> started) {
                  self->on_started(pid, std::move(started));
                });
}

void BodyHost::Impl::on_created(const StartBody& ask, const std::vector<NodeId>& children_on) {
  const NodeId origin = starting.at(ask.pid).origin;
  table.add_body(ask.pid, {origin, JobId{ask.job}, ask.group, ask.session, children_on});
  node.children->watch(ask.pid, [weak = weak_from_this(), pid = ask.pid](const ChildEvent& event) {
    if (auto self = weak.lock()) self->on_child(pid, event);
  });
}

void BodyHost::Impl::take_capabilities(const StartBody& ask) {
  tell_failure(ask.pid, capabilities.adopt(ask.pid, ask.capabilities));
}

void BodyHost::Impl::on_started(pid_t pid, Result<int> exec_errno) {
  auto entry = starting.extract(pid);
  Starting& body = entry.mapped();
  if (exec_errno && *exec_errno == 0) {
    body.reply.ok();
    if (body.ended) on_end(pid, *body.ended);
    return;
  }
  // Whoever the child was, it is no body of anybody's: the reaper takes it silently. A shadow that
  // the process did not come home to was none of krgd's children.
  if (!body.ended && body.origin != node.self) node.children->unwatch(pid);
  if (table.find_body(pid)) table.remove_body(pid);
  const Error error = exec_errno ? errno_error("exec", *exec_errno) : exec_errno.error();
  descriptors.body_ended(pid, [] {});
  body.reply.fail(error);
}

void BodyHost::Impl::on_child(pid_t pid, const ChildEvent& event) {
  ProcessTable::Body* body = table.find_body(pid);
  if (!body) return;
  if (event.is_end()) {
    if (auto found = starting.find(pid); found != starting.end())
      found->second.ended = event;
    else
      on_end(pid, event);
    return;
  }
  BodyStopped changed;
  changed.pid = pid;
  changed.signal = event.code == CLD_CONTINUED ? 0 : event.status;
  if (!node.messenger.send(body->origin, changed))
    log_debug("exec", "node {} has failed", body->origin.value);
}

void BodyHost::Impl::on_end(pid_t pid, const ChildEvent& event) {
  BodyEnded ended;
  ended.pid = pid;
  ended.wait_status = wait_status_of(event.code, event.status);
  ended.usage = event.usage;
  if (add_usage) add_usage(pid, ended.usage);
  const NodeId origin = table.find_body(pid)->origin;
  table.remove_body(pid);
  // File offsets are back at home before the parent knows.
  descriptors.body_ended(pid, [self = shared_from_this(), origin, ended] {
    if (!self->node.messenger.send(origin, ended))
      log_debug("exec", "node {} has failed", origin.value);
  });
}

BodyHost::BodyHost(NodeContext& node, const ExecPlacer::Parts& parts)
    : impl_(std::make_shared<Impl>(node, parts)) {
  impl_->listen();
}
BodyHost::~BodyHost() = default;

void BodyHost::execs(pid_t pid) {
  const ProcessTable::Body* body = impl_->table.find_body(pid);
  if (!body || !impl_->images.is_young(pid)) return;
  BodyExeced execed;
  execed.pid = pid;
  if (!impl_->node.messenger.send(body->origin, execed))
    log_debug("exec", "node {} has failed", body->origin.value);
}

}  // namespace krg
