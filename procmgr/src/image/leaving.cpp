// What a process leaves when its new body elsewhere has taken its place: a shadow, a guardian or
// nothing. SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/ptrace.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "exec_messages.h"
#include "image/capture_parts.h"
#include "image/install_parts.h"
#include "image/process_mover_impl.h"
#include "krg/procmgr/job_namespaces.h"
#include "krg/runtime/log.h"
#include "native_children.h"

namespace krg {
namespace {

// What has to stay open here for the sake of locks.
std::vector<int> files_that_hold_locks(const std::vector<ExportedFd>& fds) {
  std::vector<int> numbers;
  for (const ExportedFd& fd : fds)
    if (fd.holds_lock) numbers.push_back(fd.number);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// One that krgd has had to send again is krgd's.
auto is_same_as(const ImageSignal& captured) {
  return [&captured](const ImageSignal& signal) {
    return signal == captured || (signal.number() == SIGSTOP && captured.number() == SIGSTOP);
  };
}

// Of its interval timer, which runs on here until it has left, and there from where its image says.
bool is_of_own_timer(const siginfo_t& info) {
  return info.si_signo == SIGALRM && info.si_code == SI_KERNEL;
}

}  // namespace

using namespace exec_messages;

// The process was native here: its shadow takes its place. It stands and never goes on as what it
// was, whether or not it becomes one: so the body may run before.
void ProcessMover::Impl::leave_shadow(MovePtr move) {
  const pid_t pid = move->process->pid();
  ProcessTable::Shadow entry{move->target, JobId{}};
  if (node.jobs) entry.job = node.jobs->job_of(pid).value_or(JobId{});
  // The shadow would pass on what waits for it.
  auto signals = take_pending_signals(*move->process);
  if (!signals) {
    drop_body(*move);
    return end(*move, signals.error());
  }
  thaw_body(*move);
  Status converted = parts.shadows.become_shadow(*move->process, *move->shadow, entry,
                                                 files_that_hold_locks(move->fds));
  if (converted)
    pass_on(*move, std::move(*signals));
  else
    drop_body(*move);
  end(*move, std::move(converted));
}

// It was a body here: its shadow is told where it executes from now on.
void ProcessMover::Impl::leave_origin(MovePtr move) {
  BodyMoves moves;
  moves.pid = move->process->pid();
  moves.body_node = move->target;
  const NodeId origin = parts.table.find_body(moves.pid)->origin;
  // Before it runs again: its origin may be where it goes.
  parts.descriptors.body_ended(moves.pid, [] {});
  if (has_child(moves.pid) || holds_locks(*move)) {
    moves.leaves_guardian = 1;
    if (auto left = leave_guardian(*move); !left) {
      drop_body(*move);
      return end(*move, left.error());
    }
  }
  node.messenger.request(origin, moves, {},
                         [self = shared_from_this(), move](Result<std::string> reply) {
                           if (reply) {
                             self->end_here(*move);
                             return self->end(*move, {});
                           }
                           self->drop_body(*move);
                           self->parts.shadows.end_guardian(move->pid);
                           self->end(*move, reply.error());
                         });
}

// Its children stay with what it is here from now on.
Status ProcessMover::Impl::leave_guardian(Move& move) {
  const ProcessTable::Body body = *parts.table.find_body(move.pid);
  auto signals = take_pending_signals(*move.process);
  if (!signals) return signals.error();
  auto left = parts.shadows.become_shadow(*move.process, {move.target, body.job, body.origin},
                                          files_that_hold_locks(move.fds));
  if (!left) return left;
  parts.table.remove_body(move.pid);
  node.children->unwatch(move.pid);
  move.late_signals = std::move(*signals);
  return {};
}

bool ProcessMover::Impl::holds_locks(const Move& move) {
  return std::any_of(move.fds.begin(), move.fds.end(),
                     [](const ExportedFd& fd) { return fd.holds_lock; });
}

void ProcessMover::Impl::end_here(Move& move) {
  if (parts.table.find_shadow(move.pid)) return pass_on(move, std::move(move.late_signals));
  parts.table.remove_body(move.pid);
  parts.table.hide(move.pid);  // it takes a moment to die
  const Status settled = settle_all(*move.process);
  auto signals = settled ? read_pending_signals(move.pid, PTRACE_PEEKSIGINFO_SHARED)
                         : Result<std::vector<ImageSignal>>(settled.error());
  if (signals) pass_on(move, std::move(*signals));
  node.children->unwatch(move.pid);
  move.process->detach_from_memory();
  move.process->kill();
}

// Those that came here after the image was taken.
void ProcessMover::Impl::pass_on(const Move& move, std::vector<ImageSignal> signals) {
  for (const ImageSignal& captured : move.signals)
    if (auto found = std::find_if(signals.begin(), signals.end(), is_same_as(captured));
        found != signals.end())
      signals.erase(found);
  for (const ImageSignal& late : signals) {
    siginfo_t info;
    std::memcpy(&info, late.info.data(), sizeof info);
    if (is_of_own_timer(info)) continue;
    SignalInfo signal;
    signal.signal = info.si_signo;
    signal.code = info.si_code;
    signal.sender = info.si_pid;
    signal.sender_uid = info.si_uid;
    signal.value = reinterpret_cast<uint64_t>(info.si_value.sival_ptr);
    parts.shadows.send_signal(GlobalPid{move.pid}, signal, nullptr);
  }
}

void ProcessMover::Impl::thaw_body(Move& move) {
  move.may_run = true;
  ThawBody thaw;
  thaw.pid = move.pid;
  if (!node.messenger.send(move.target, thaw))
    log_debug("image", "node {} has failed", move.target.value);
}

void ProcessMover::Impl::drop_body(const Move& move) {
  ShadowDied died;
  died.pid = move.pid;
  if (!node.messenger.send(move.target, died))
    log_debug("image", "node {} has failed", move.target.value);
}

}  // namespace krg
