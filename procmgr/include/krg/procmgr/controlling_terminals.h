// ControllingTerminals: the controlling terminal of bodies and of what they fork. Their terminal is
// a pseudo-terminal that mirrors the one at home, and which no process here has for its controlling
// terminal; so its job control (TIOCGPGRP, TIOCSPGRP, TIOCGSID) is answered here: as the terminal
// at home has it for the body's shadow, and below a body that is a shell, by the groups of its own
// node. And /dev/tty, which the session's mount namespace has as a link of krgfs, leads to it.
//
// Threads: the loop's thread. Owned by krgd's main. Source: ioctl_tty(2), credentials(7).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <optional>

#include "krg/procmgr/descriptors.h"
#include "krg/procmgr/shadow_host.h"

namespace krg {

class ControllingTerminals {
 public:
  // The krgfs tree whose file "tty" is bound over /dev/tty.
  static constexpr const char* kTree = "tty";

  ControllingTerminals(NodeContext& node, SessionFs& fs, SyscallBroker& broker, ProcessTable& table,
                       Descriptors& descriptors, ShadowHost& shadows);
  ~ControllingTerminals();
  ControllingTerminals(const ControllingTerminals&) = delete;
  ControllingTerminals& operator=(const ControllingTerminals&) = delete;

  // Who gets a signal that the terminal at home sent to a body's group: the group below it that
  // has the terminal, else the body itself. Nobody: of a new window size the body's own terminal
  // tells, once it has that size.
  std::optional<pid_t> receiver(pid_t body, const SignalInfo& signal) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with calls under way
};

}  // namespace krg
