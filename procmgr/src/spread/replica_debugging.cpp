// Replica: what a debugger does with its threads and its text (krg_gdb).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/replica.h"

namespace krg {

// What is not mapped here yet gets them when it is.
void Replica::set_breakpoint(const SetBreakpoint& ask) {
  const RemoteAddr at{ask.address};
  if (!ask.is_set) return breakpoints_.clear(pid(), at);
  static_cast<void>(breakpoints_.set(pid(), at));
}

void Replica::step(const StepThread& ask) {
  auto found = threads_.find(ask.tid);
  if (found == threads_.end() || !found->second->traced) return;
  TracedThread& traced = *found->second->traced;
  traced.step([this, weak = std::weak_ptr(found->second)] {
    auto thread = weak.lock();
    if (thread) thread->is_recalled ? send_home(thread, false) : tell_trap(thread, false);
  });
  if (ask.alone) traced.release();
}

// Whether the SIGTRAP that a thread has met is the debugger's.
bool Replica::takes_trap(const ThreadPtr& thread) {
  const Breakpoints::Trap trap = breakpoints_.meet(*thread->traced);
  if (trap == Breakpoints::Trap::kProgramsOwn) return false;
  if (thread->is_recalled) {  // it meets the breakpoint at home
    send_home(thread, false);
    return true;
  }
  if (trap == Breakpoints::Trap::kBreakpoint) {
    thread->traced->hold([] {});
    tell_trap(thread, true);
  }
  thread->traced->resume(kSystemCallsAreOurs);  // one that is held, when it is released
  return true;
}

void Replica::tell_trap(const ThreadPtr& thread, bool at_breakpoint) {
  ThreadTrapped tell;
  tell.set = parts_.set.value;
  tell.tid = thread->tid;
  tell.at_breakpoint = at_breakpoint;
  static_cast<void>(parts_.node.messenger.send(parts_.home, tell));
}

}  // namespace krg
