// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/shadow_host.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <cstring>

#include "image/frozen_shadow.h"
#include "krg/runtime/log.h"
#include "krg/runtime/run_after.h"
#include "process_fds.h"
#include "process_status.h"
#include "shadow_host_impl.h"
#include "stop_state.h"

namespace krg {
namespace {

using namespace exec_messages;

constexpr pid_t kInit = 1;  // krgd itself
// How long a shadow that should run is watched for a stop that it was told before.
constexpr std::chrono::milliseconds kSettlePeriod{2};
constexpr int kSettleTries = 50;
// How long the signal of a child follows a process that moves.
constexpr std::chrono::milliseconds kFollowPeriod{20};
constexpr int kFollowTries = 100;
// One that is about to stop.
constexpr std::chrono::milliseconds kStopPeriod{2};
constexpr int kStopLooks = 500;

// Signals a process, or all of its kernel group, with krgd as the sender.
Status signal_natively(pid_t body, int signal, bool whole_group) {
  if (kill(whole_group ? -body : body, signal) != 0) return errno_error("kill");
  return {};
}

}  // namespace

bool SignalInfo::is_for_group() const {
  return code == SI_KERNEL || (code == SI_USER && sender == kInit);
}

// ---- what other nodes ask and tell ----

void ShadowHost::Impl::listen() {
  Messenger& m = node.messenger;
  // What a node says of a body that does not execute there is about a copy that was given up.
  m.on<BodyEnded>([this](NodeId from, const BodyEnded& ended, std::string_view) {
    if (executes_on(ended.pid, from)) on_body_ended(ended);
  });
  m.on<BodyStopped>([this](NodeId from, const BodyStopped& stopped, std::string_view) {
    if (executes_on(stopped.pid, from)) on_body_stopped(stopped);
  });
  m.on<GroupChanged>(
      [this](NodeId, const GroupChanged& c, std::string_view) { on_group_changed(c); });
  m.on_request<SignalProcess>(
      [this](NodeId, const SignalProcess& s, std::string_view, Messenger::Reply reply) {
        take_signal(s.pid, {s.signal, s.code, s.sender, s.sender_uid, s.value},
                    std::make_shared<Messenger::Reply>(std::move(reply)), kStopLooks);
      });
  m.on_request<SetGroup>(
      [this](NodeId, const SetGroup& change, std::string_view, Messenger::Reply reply) {
        auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
        change_group(change, [shared](Status changed) {
          changed ? shared->ok() : shared->fail(changed.error().errno_or(EPERM));
        });
      });
  m.on_request<WaitForChild>(
      [this](NodeId, const WaitForChild& wait, std::string_view, Messenger::Reply reply) {
        wait_for_child(wait, std::move(reply));
      });
  m.on_request<ReleaseGuardian>(
      [this](NodeId, const ReleaseGuardian& release, std::string_view, Messenger::Reply reply) {
        release_guardian(release.pid, std::move(reply));
      });
  m.on_request<BodyMoves>(
      [this](NodeId from, const BodyMoves& moves, std::string_view, Messenger::Reply reply) {
        Hosted* shadow = find(moves.pid);
        if (!shadow || shadow->is_ending) return reply.fail(ESRCH);
        if (moves.leaves_guardian) shadow->guardians.push_back(from);
        if (moves.body_node != node.self)
          on_body_moved(moves);
        else if (auto home = came_home(moves.pid); !home)
          return reply.fail(ESRCH);
        // It leaves nothing behind before nobody looks for it there any more.
        auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
        table.when_known(moves.pid, [shared] { shared->ok(); });
      });
  m.on<GuardianFollows>([this](NodeId, const GuardianFollows& follows, std::string_view) {
    on_guardian_follows(follows);
  });
  m.on_request<Identify>(
      [this](NodeId, const Identify& ask, std::string_view, Messenger::Reply reply) {
        auto found = process_identity(table, ask.pid);
        if (!found) return reply.fail(found.error().errno_or(ESRCH));
        reply.ok({reinterpret_cast<const char*>(&*found), sizeof *found});
      });
  m.on_peer_failure([this](NodeId peer) { on_peer_failure(peer); });
}

// The thaw is told from here, so that it runs also when the node that it leaves fails now.
void ShadowHost::Impl::on_body_moved(const BodyMoves& moves) {
  Hosted& shadow = hosted.at(moves.pid);
  shadow.body_node = moves.body_node;
  table.add_shadow(moves.pid, {moves.body_node, table.find_shadow(moves.pid)->job});
  ThawBody thaw;
  thaw.pid = moves.pid;
  if (!node.messenger.send(moves.body_node, thaw))
    log_debug("exec", "node {} has failed", moves.body_node.value);
  GuardianFollows follows;
  follows.pid = moves.pid;
  follows.body_node = moves.body_node;
  for (NodeId guardian : shadow.guardians)
    if (!node.messenger.send(guardian, follows))
      log_debug("exec", "node {} has failed", guardian.value);
}

void ShadowHost::Impl::on_guardian_follows(const GuardianFollows& follows) {
  Hosted* guardian = find(follows.pid);
  if (!guardian || !guardian->is_guardian()) return;
  guardian->body_node = follows.body_node;
  auto entry = *table.find_shadow(follows.pid);
  entry.body_node = follows.body_node;
  table.add_shadow(follows.pid, entry);
}

void ShadowHost::Impl::on_body_ended(const BodyEnded& ended) {
  Hosted* shadow = find(ended.pid);
  if (!shadow) return;
  for (auto& listener : body_end_listeners) listener(ended.pid, {ended.wait_status, ended.usage});
  end_like(*shadow, ended.wait_status);
}

void ShadowHost::Impl::end_like(Hosted& shadow, int wait_status) {
  shadow.is_ending = true;
  // While it is about to be the process itself again it obeys nobody.
  if (shadow.is_returning || (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL)) {
    kill(shadow.shadow->pid(), SIGKILL);
    return;
  }
  const Status told = WIFSIGNALED(wait_status)
                          ? shadow.shadow->command(ShadowVerb::kDie, WTERMSIG(wait_status))
                          : shadow.shadow->command(ShadowVerb::kExit, WEXITSTATUS(wait_status));
  if (!told) log_debug("exec", "shadow {} has gone already", shadow.shadow->pid());
  settle_soon(shadow.shadow->pid(), kSettleTries);  // a stopped shadow does not listen
}

void ShadowHost::Impl::on_body_stopped(const BodyStopped& stopped) {
  Hosted* shadow = find(stopped.pid);
  if (!shadow || shadow->is_ending || shadow->is_returning) return;
  shadow->settling.reset();
  // One that moves while it is stopped tells so on each node: it would stop again when it goes on.
  const bool knows = std::exchange(shadow->is_told_to_stop, stopped.signal != 0);
  if (knows && stopped.signal != 0) return;
  if (stopped.signal == 0) return settle(stopped.pid, kSettleTries);
  if (!shadow->shadow->command(ShadowVerb::kStop, stopped.signal))
    log_debug("exec", "shadow {} has gone already", stopped.pid);
}

// The body goes on or has ended, but the shadow may be stopped, or about to stop: it has still to
// read the order to do so, and a SIGCONT before that would be lost. So it is looked at until it is
// back from there; where no order is known of, until it has slept for a while: one that is stopped
// since it became a shadow may still be on its way there.
void ShadowHost::Impl::settle(pid_t pid, int tries) {
  Hosted* shadow = find(pid);
  if (!shadow) return;
  const auto stat = read_process_stat(pid);
  const bool is_stopped = stat && stat->state == 'T';
  if (is_stopped) shadow->shadow->resume();
  if (shadow->shadow->is_to_stop()) return settle_soon(pid, tries);
  if (tries == 0 || (is_stopped && !shadow->is_ending)) return shadow->settling.reset();
  const bool sleeps = stat && stat->state == 'S';
  settle_soon(pid, sleeps || is_stopped ? tries - 1 : tries);
}

void ShadowHost::Impl::settle_soon(pid_t pid, int tries) {
  find(pid)->settling = node.loop.after(kSettlePeriod, [this, pid, tries] { settle(pid, tries); });
}

void ShadowHost::Impl::on_group_changed(const GroupChanged& changed) {
  if (ProcessTable::Body* body = table.find_body(changed.pid)) {
    body->virtual_group = changed.group;
    body->virtual_session = changed.session;
  }
}

// Bodies there are lost; bodies here whose shadow was there are nobody's.
void ShadowHost::Impl::on_peer_failure(NodeId peer) {
  unsigned lost = 0, orphaned = 0;
  for (auto& [pid, shadow] : hosted)
    if ((shadow.body_node == peer || shadow.origin == peer) && ++lost)
      kill(pid, SIGKILL);
    else
      std::erase(shadow.guardians, peer);
  for (pid_t body : table.bodies())
    if (table.find_body(body)->origin == peer && ++orphaned) kill(body, SIGKILL);
  if (lost + orphaned > 0)
    log_warn("exec", "node {} failed: {} processes that ran there and {} that came from there die",
             peer.value, lost, orphaned);
}

// ---- what shadows tell ----

Shadow::Events ShadowHost::Impl::events_of(pid_t pid) {
  return {[this, pid](const ShadowReport& report) { on_report(pid, report); },
          [this, pid] { on_shadow_end(pid); }};
}

Status ShadowHost::Impl::host(pid_t pid, ProcessTable::Shadow entry,
                              Result<std::unique_ptr<Shadow>> shadow) {
  if (!shadow) return shadow.error();
  table.add_shadow(pid, entry);
  Hosted made{std::move(*shadow), entry.body_node, false, false, {}, {}};
  made.origin = entry.origin;
  hosted.insert_or_assign(pid, std::move(made));
  return {};
}

void ShadowHost::Impl::on_report(pid_t pid, const ShadowReport& report) {
  Hosted* shadow = find(pid);
  if (!shadow) return;
  if (report.signal == SIGCONT) shadow->is_told_to_stop = false;
  if (report.kind == ShadowReport::kAnswer) {
    if (shadow->answers.empty()) return;
    auto answer = std::move(shadow->answers.front());
    shadow->answers.erase(shadow->answers.begin());
    return answer(report);
  }
  const SignalInfo info{report.signal, report.code, report.sender, report.sender_uid, report.value};
  // All other signals than SIGCHLD reach the process by its shadow.
  if (!shadow->is_guardian() || info.signal == SIGCHLD) pass_signal_on(pid, info, kFollowTries);
}

// The process may just be on its way to where the guardian, or this signal, has still to follow.
void ShadowHost::Impl::pass_signal_on(pid_t pid, const SignalInfo& info, int tries) {
  const Hosted* shadow = find(pid);
  if (!shadow || shadow->is_ending || tries == 0) return;
  forward(shadow->body_node, pid, info, [this, pid, info, tries](Status passed) {
    if (!passed)
      run_after(node.loop, kFollowPeriod,
                [this, pid, info, tries] { pass_signal_on(pid, info, tries - 1); });
  });
}

// SIGCONT comes after a stop that is about to be: it would take the news of both away (signal(7)).
void ShadowHost::Impl::take_signal(pid_t pid, const SignalInfo& info,
                                   std::shared_ptr<Messenger::Reply> reply, int looks) {
  if (!table.executes_here(pid)) return reply->fail(ESRCH);
  if (info.signal == SIGCONT && looks > 0 &&
      (is_about_to_stop(pid) || stands_to_be_moved(table, pid)))
    return run_after(node.loop, kStopPeriod,
                     [this, pid, info, reply, looks] { take_signal(pid, info, reply, looks - 1); });
  auto sent = deliver(pid, info);
  sent ? reply->ok() : reply->fail(sent.error().errno_or(ESRCH));
}

void ShadowHost::Impl::on_group_answer(pid_t pid, NodeId body_node, int32_t result) {
  auto now = process_identity(table, pid);
  if (result < 0 || !now) return;
  GroupChanged changed;
  changed.pid = pid;
  changed.group = now->group;
  changed.session = now->session;
  // Sent before the answer: the body's table is right when its call returns.
  if (!node.messenger.send(body_node, changed))
    log_debug("exec", "node {} has failed", body_node.value);
}

void ShadowHost::Impl::on_shadow_end(pid_t pid) {
  const Hosted* shadow = find(pid);
  if (!shadow || shadow->is_returning) return;
  const bool is_ending = shadow->is_ending;
  const NodeId body_node = shadow->body_node;
  forget(pid);
  if (is_ending) return;
  ShadowDied died;
  died.pid = pid;
  if (!node.messenger.send(body_node, died))
    log_debug("exec", "node {} has failed", body_node.value);
}

void ShadowHost::Impl::forget(pid_t pid) {
  auto gone = hosted.extract(pid);
  table.remove_shadow(pid);
  ShadowDied ended;
  ended.pid = pid;
  for (NodeId guardian : gone.mapped().guardians)
    if (!node.messenger.send(guardian, ended))
      log_debug("exec", "node {} has failed", guardian.value);
  ShadowReport gone_already{};
  gone_already.result = -ESRCH;
  for (auto& answer : gone.mapped().answers) answer(gone_already);
  for (auto& listener : shadow_end_listeners) listener(pid);
}

// ---- the operations ----

void ShadowHost::Impl::send_signal(GlobalPid to, const SignalInfo& info, int tries,
                                   std::function<void(Status)> done) {
  table.locate(to, [this, to, info, tries, done = std::move(done)](Result<NodeId> where) {
    if (!where) return done ? done(where.error()) : void();
    forward(*where, to.value, info, [this, to, info, tries, done](Status sent) {
      const bool has_left = !sent && sent.error().errno_or(0) == ESRCH && tries > 0;
      if (!has_left) return done ? done(std::move(sent)) : void();
      run_after(node.loop, kFollowPeriod,
                [this, to, info, tries, done] { send_signal(to, info, tries - 1, done); });
    });
  });
}

void ShadowHost::Impl::forward(NodeId to, pid_t pid, const SignalInfo& info,
                               std::function<void(Status)> done) {
  SignalProcess message;
  message.pid = pid;
  message.signal = info.signal;
  message.code = info.code;
  message.sender = info.sender;
  message.sender_uid = info.sender_uid;
  message.value = info.value;
  node.messenger.request(to, message, {}, [done = std::move(done)](Result<std::string> reply) {
    if (!done) return;
    reply ? done({}) : done(reply.error());
  });
}

void ShadowHost::Impl::change_group(const SetGroup& change, std::function<void(Status)> done) {
  Hosted* shadow = find(change.pid);
  if (!shadow || shadow->is_ending || shadow->is_returning)
    return done(errno_error("shadow", ESRCH));
  shadow->answers.push_back([this, pid = change.pid, body_node = shadow->body_node,
                             done = std::move(done)](const ShadowReport& answer) {
    on_group_answer(pid, body_node, answer.result);
    answer.result < 0 ? done(errno_error("shadow", -answer.result)) : done({});
  });
  const ShadowVerb verb = change.new_session  ? ShadowVerb::kSetSession
                          : change.foreground ? ShadowVerb::kSetForeground
                                              : ShadowVerb::kSetGroup;
  const Status told = shadow->shadow->command(verb, change.group);
  // A shadow that has died answers all that waits when its end is seen.
  if (!told) log_debug("exec", "shadow {} has gone already", change.pid);
}

void ShadowHost::Impl::wait_for_child(const WaitForChild& wait, Messenger::Reply reply) {
  Hosted* shadow = find(wait.pid);
  if (!shadow || shadow->is_ending || shadow->is_returning) return reply.fail(ESRCH);
  const auto stat = read_process_stat(wait.pid);
  // It does not listen. Nothing has come so far: it is asked again.
  if (shadow->shadow->is_to_stop() || (stat && stat->state == 'T')) {
    const ChildChange none{};
    return reply.ok({reinterpret_cast<const char*>(&none), sizeof none});
  }
  auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
  shadow->answers.push_back([shared](const ShadowReport& answer) {
    if (answer.result < 0) return shared->fail(-answer.result);
    ChildChange change{answer.sender, answer.code, answer.signal, answer.sender_uid};
    static_assert(sizeof change.usage == sizeof answer.usage);
    memcpy(&change.usage, answer.usage, sizeof change.usage);
    shared->ok({reinterpret_cast<const char*>(&change), sizeof change});
  });
  const ShadowCommand command{ShadowVerb::kWait, wait.id_type, wait.id, wait.options};
  if (!shadow->shadow->command(command)) log_debug("exec", "shadow {} has gone already", wait.pid);
}

void ShadowHost::Impl::release_guardian(pid_t pid, Messenger::Reply reply) {
  auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
  Hosted* guardian = find(pid);
  if (!guardian || guardian->is_ending) return answer_when_gone(pid, shared);
  if (guardian->is_returning) return shared->fail(EBUSY);
  guardian->answers.push_back([this, pid, shared](const ShadowReport& answer) {
    const bool is_needed = answer.result != -ECHILD && answer.result != -ESRCH;
    Hosted* guardian = find(pid);
    // It may be about to have a lock that it has been told to take.
    if (is_needed || (guardian && !guardian->answers.empty()) || holds_record_locks(pid))
      return shared->fail(EBUSY);
    if (guardian && !guardian->is_guardian()) return shared->ok();
    if (guardian) {
      guardian->is_ending = true;
      kill(pid, SIGKILL);
    }
    answer_when_gone(pid, shared);
  });
  const ShadowCommand command{ShadowVerb::kWait, P_ALL, 0, WEXITED | WNOWAIT};
  if (!guardian->shadow->command(command)) log_debug("exec", "guardian {} has gone already", pid);
}

// Its pid is free then.
void ShadowHost::Impl::answer_when_gone(pid_t pid, std::shared_ptr<Messenger::Reply> reply) {
  if (kill(pid, 0) != 0) return reply->ok();
  run_after(node.loop, kSettlePeriod, [this, pid, reply] { answer_when_gone(pid, reply); });
}

void ShadowHost::Impl::request_change(GlobalPid body, const SetGroup& change,
                                      std::function<void(Status)> done) {
  node.messenger.request(table.home_of(body), change, {},
                         [done = std::move(done)](Result<std::string> reply) {
                           reply ? done({}) : done(reply.error());
                         });
}

ShadowHost::ShadowHost(NodeContext& node, ProcessTable& table)
    : impl_(std::make_unique<Impl>(node, table)) {
  impl_->deliver = [&table](pid_t pid, const SignalInfo& info) {
    return signal_natively(pid, info.signal, info.is_for_group() && table.find_body(pid));
  };
  impl_->listen();
}
ShadowHost::~ShadowHost() = default;

Status ShadowHost::start() {
  const std::string path = impl_->node.paths.libexec_dir + "/krg_shadow";
  impl_->program = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!impl_->program) return errno_error(path);
  return {};
}

Status ShadowHost::become_shadow(SyscallBroker::Call exec, ProcessTable::Shadow entry) {
  const pid_t pid = exec.tid();
  return impl_->host(pid, entry,
                     Shadow::become_shadow(impl_->node.loop, std::move(exec), impl_->program.get(),
                                           impl_->events_of(pid)));
}

Status ShadowHost::become_shadow(FrozenProcess& process, ProcessTable::Shadow entry,
                                 const std::vector<int>& kept) {
  auto prepared = prepare_shadow(process);
  if (!prepared) return prepared.error();
  return become_shadow(process, **prepared, entry, kept);
}

Result<std::unique_ptr<FrozenShadow>> ShadowHost::prepare_shadow(FrozenProcess& process) {
  return FrozenShadow::prepare(process, impl_->program.get());
}

Status ShadowHost::become_shadow(FrozenProcess& process, FrozenShadow& prepared,
                                 ProcessTable::Shadow entry, const std::vector<int>& kept) {
  const pid_t pid = process.pid();
  const bool is_stopped = process.main().stop_signal() != 0;
  auto files = Impl::files_kept(pid, kept);
  Status hosted =
      impl_->host(pid, entry, prepared.become(impl_->node.loop, impl_->events_of(pid), kept));
  if (!hosted) return hosted;
  Impl::Hosted& made = *impl_->find(pid);
  made.files = std::move(files);
  made.is_told_to_stop = is_stopped;
  // It is asked for its children while its process is stopped elsewhere, and nobody waits for it.
  if (is_stopped && made.is_guardian()) made.shadow->resume();
  return {};
}

void ShadowHost::set_delivery(std::function<Status(pid_t, const SignalInfo&)> deliver) {
  impl_->deliver = std::move(deliver);
}

void ShadowHost::send_signal(GlobalPid to, const SignalInfo& info,
                             std::function<void(Status)> done) {
  impl_->send_signal(to, info, kFollowTries, std::move(done));
}

void ShadowHost::set_group(GlobalPid body, pid_t group, std::function<void(Status)> done) {
  SetGroup change;
  change.pid = body.value;
  change.group = group;
  impl_->request_change(body, change, std::move(done));
}

void ShadowHost::set_session(GlobalPid body, std::function<void(Status)> done) {
  SetGroup change;
  change.pid = body.value;
  change.new_session = 1;
  impl_->request_change(body, change, std::move(done));
}

void ShadowHost::set_foreground(GlobalPid body, pid_t group, std::function<void(Status)> done) {
  SetGroup change;
  change.pid = body.value;
  change.group = group;
  change.foreground = 1;
  impl_->request_change(body, change, std::move(done));
}

void ShadowHost::identity(GlobalPid of, std::function<void(Result<ProcessIdentity>)> done) {
  Identify ask;
  ask.pid = of.value;
  impl_->node.messenger.request(impl_->table.home_of(of), ask, {},
                                [done = std::move(done)](Result<std::string> reply) {
                                  ProcessIdentity found;
                                  if (!reply) return done(reply.error());
                                  if (reply->size() != sizeof found)
                                    return done(errno_error("identity", EPROTO));
                                  memcpy(&found, reply->data(), sizeof found);
                                  done(found);
                                });
}

void ShadowHost::end_guardian(pid_t pid) {
  Impl::Hosted* guardian = impl_->find(pid);
  if (!guardian || !guardian->is_guardian()) return;
  guardian->is_ending = true;
  kill(pid, SIGKILL);
}

void ShadowHost::on_body_end(std::function<void(pid_t, const BodyEnd&)> listener) {
  impl_->body_end_listeners.push_back(std::move(listener));
}

void ShadowHost::on_shadow_end(std::function<void(pid_t)> listener) {
  impl_->shadow_end_listeners.push_back(std::move(listener));
}

}  // namespace krg
