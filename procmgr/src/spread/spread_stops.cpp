// SpreadProcess: stops by a signal (SIGSTOP, a terminal's Ctrl-Z) and SIGCONT. The kernel stops the
// threads that run here, and takes the process for stopped when all of its threads have been met by
// the stop: so what stands at its door is let through to it. Threads elsewhere are held.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_process.h"

namespace krg {

void SpreadProcess::begin_stop() {
  if (std::exchange(is_stopped_, true)) return;
  HoldThreads ask;
  ask.set = set().value;
  ask.why = HoldThreads::Why::kStop;
  for (NodeId node : parts_.nodes)
    parts_.node.messenger.request(node, ask, {}, [](const Result<std::string>&) {});
  for (const auto& [tid, thread] : std::map(threads_)) stop_standing(tid, thread);
}

void SpreadProcess::stop_standing(pid_t tid, const ThreadPtr& thread) {
  if (thread->stands == Stands::kInTeamCall) return teams_.interrupt(tid);
  if (thread->stands != Stands::kArmed) return;
  auto registers = thread->traced->registers();
  if (!registers) return;  // its end is told
  registers->orig_rax = ~0ULL;
  if (!thread->traced->set_registers(*registers)) return;
  thread->stands = Stands::kDisarming;
  thread->traced->resume(PTRACE_SYSCALL);
}

// Told by the stop of any thread that is none by a signal.
void SpreadProcess::end_stop() {
  if (!std::exchange(is_stopped_, false)) return;
  HoldThreads tell;
  tell.set = set().value;
  tell.why = HoldThreads::Why::kStop;
  for (NodeId node : parts_.nodes) static_cast<void>(parts_.node.messenger.send(node, tell));
}

}  // namespace krg
