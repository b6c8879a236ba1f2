// Shadow: one shadow of this node, seen from krgd: the process that keeps the place of a body on
// another node, and the control socket to it.
//
// become_shadow() turns a process that waits in a stopped execve into krg_shadow, by ptrace: the
// call is answered, the process stops on its way back, its registers are pointed at the same
// system call instruction again, now with execveat(kShadowProgramFd). Nothing is written into its
// memory, which a vfork parent may share. (Tested: fork, vfork, posix_spawn; kernel 6.18.)
//
// Threads: the loop's thread, which is the tracer meanwhile. Owned by ShadowHost.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "krg/procmgr/syscall_broker.h"
#include "krg/runtime/event_loop.h"
#include "shadow_protocol.h"

namespace krg {

class FrozenProcess;
class FrozenShadow;

// SIGCONT that a shadow does not pass on.
void resume_shadow(pid_t pid);

class Shadow {
 public:
  struct Events {
    std::function<void(const ShadowReport&)> on_report;
    std::function<void()> on_end;  // the shadow died; may destroy the Shadow
  };

  // Turns the caller of `exec`, an execve or execveat that was stopped, into a shadow. `program` is
  // krg_shadow opened for reading. REQUIRES: the process has one thread, a descriptor table of its
  // own, and may have two descriptors. Errors: EPERM of ptrace(2): the call goes on natively;
  // others: it has died or been killed.
  static Result<std::unique_ptr<Shadow>> become_shadow(EventLoop& loop, SyscallBroker::Call exec,
                                                       int program, Events events);
  // Turns a frozen process, wherever it stands, with all its threads. It needs room for two more
  // descriptors. Its interval timers are disarmed. One that is stopped is a stopped shadow as soon
  // as it has execed, of which its parent is told nothing. It keeps the descriptors `kept`, which
  // are above kShadowProgramFd and ascend, and with them the process's locks by fcntl(2). Nothing
  // is written into memory that it had, which a page source may share. Errors: when it still
  // is_alive() it is as before; else it has died or been killed.
  static Result<std::unique_ptr<Shadow>> become_shadow(EventLoop& loop, FrozenProcess& process,
                                                       int program, Events events,
                                                       std::span<const int> kept = {});
  Shadow(const Shadow&) = delete;
  Shadow& operator=(const Shadow&) = delete;

  pid_t pid() const { return pid_; }
  int control() const { return control_.get(); }
  // Errors: EPIPE when it died.
  Status command(ShadowVerb verb, int32_t argument = 0) {
    return command(ShadowCommand{verb, argument, 0, 0});
  }
  // `file`: goes along with kLock.
  Status command(const ShadowCommand& command, int file = -1);
  void resume() { resume_shadow(pid_); }
  // It has been told to stop, and has not come back from that: it is stopped or will be.
  bool is_to_stop() const { return stops_ordered_ > 0; }

 private:
  friend class FrozenShadow;
  Shadow(pid_t pid, UniqueFd control, Events events)
      : pid_(pid), control_(std::move(control)), events_(std::move(events)) {}
  static Result<std::unique_ptr<Shadow>> create(EventLoop& loop, pid_t pid, UniqueFd control,
                                                Events events);
  void on_readable();

  const pid_t pid_;
  unsigned stops_ordered_ = 0;
  UniqueFd control_;
  Events events_;
  EventLoop::Watch watch_;
};

}  // namespace krg
