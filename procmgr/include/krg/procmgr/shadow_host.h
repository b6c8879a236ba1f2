// ShadowHost: the shadows of this node, and what is asked of a shadow or a body from anywhere.
//
// A shadow (procmgr/shadow/krg_shadow.cpp) keeps the place of a process whose body executes on
// another node. It passes each signal on to its body; it ends, stops and continues as the body
// does; it carries out the body's setpgid and setsid, since group truth is at the origin
// (docs/ARCHITECTURE.md).
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/resource.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "krg/procmgr/lock_holders.h"
#include "krg/procmgr/node_context.h"
#include "krg/procmgr/process_identity.h"
#include "krg/procmgr/process_table.h"
#include "krg/procmgr/syscall_broker.h"

namespace krg {

// A signal as it travels. `code` is si_code: SI_KERNEL, or SI_USER from pid 1 (krgd), mean that it
// was sent to a group: the body's whole kernel group gets it.
struct SignalInfo {
  int32_t signal = 0;
  int32_t code = 0;
  pid_t sender = 0;
  uid_t sender_uid = 0;
  uint64_t value = 0;  // si_value
  bool is_for_group() const;
};

// How a body ended or changed, as wait(2) tells it.
struct BodyEnd {
  int wait_status = 0;
  rusage usage{};
};

class FrozenProcess;
class FrozenShadow;

// A shadow that is about to be the process itself again, and krgd's end of its control socket.
struct LentShadow {
  std::shared_ptr<FrozenProcess> process;
  int control = -1;
};

class ShadowHost : public LockHolders {
 public:
  ShadowHost(NodeContext& node, ProcessTable& table);
  ~ShadowHost() override;
  ShadowHost(const ShadowHost&) = delete;
  ShadowHost& operator=(const ShadowHost&) = delete;

  // Opens krg_shadow. Errors: when it is missing.
  Status start();

  // Makes the caller of a stopped exec the shadow of the body with its pid on `body_node`, and
  // enters it in the table. Errors: EPERM of ptrace(2): the call goes on natively then; others: the
  // process is dead.
  Status become_shadow(SyscallBroker::Call exec, ProcessTable::Shadow shadow);
  // The same of a process that is frozen, which may become a guardian. It keeps its locks by
  // fcntl(2) on the files of its descriptors `kept`, in their order. Errors: it is dead.
  Status become_shadow(FrozenProcess& process, ProcessTable::Shadow shadow,
                       const std::vector<int>& kept = {});
  // The same in two steps. The first one can be undone (frozen_shadow.h). Errors: the process is as
  // it was.
  Result<std::unique_ptr<FrozenShadow>> prepare_shadow(FrozenProcess& process);
  Status become_shadow(FrozenProcess& process, FrozenShadow& prepared, ProcessTable::Shadow shadow,
                       const std::vector<int>& kept);

  // LockHolders: shadow_locks.cpp.
  bool holds_for(pid_t pid) const override;
  void lock(pid_t pid, int file, int command, const RecordLock& lock, Done done) override;
  void let_go(pid_t pid, int file) override;
  bool executes_here(pid_t pid) const override;
  NodeId home_of(pid_t pid) const override;

  // Freezes a shadow whose body comes home, for who makes that process of it; what is asked of the
  // shadow meanwhile fails with ESRCH. It is the process itself when BodyMoves says that it
  // executes here; else take_back() makes it, or what has been made of it, a shadow again, or has
  // its body killed when it has died. Errors: ESRCH, EBUSY, those of FrozenProcess::freeze().
  void lend(pid_t pid, std::function<void(Result<LentShadow>)> done);
  void take_back(FrozenProcess& process);

  // The process of a guardian has ended: so does it. Of another pid nothing happens.
  void end_guardian(pid_t pid);

  // Signals one process wherever it executes; `done` may be empty. Errors: ESRCH, EHOSTDOWN.
  void send_signal(GlobalPid to, const SignalInfo& info, std::function<void(Status)> done);
  // The body's setpgid(0, group) or setsid(), carried out by its shadow. Errors: those of the
  // calls.
  void set_group(GlobalPid body, pid_t group, std::function<void(Status)> done);
  void set_session(GlobalPid body, std::function<void(Status)> done);
  // tcsetpgrp of the shadow's controlling terminal.
  void set_foreground(GlobalPid body, pid_t group, std::function<void(Status)> done);
  // Parent, group and session of a process at its origin. Errors: ESRCH, EHOSTDOWN.
  void identity(GlobalPid of, std::function<void(Result<ProcessIdentity>)> done);

  // How a signal reaches a body that executes here (Signals has a better way than krgd's own kill,
  // which is what there is until this is set).
  void set_delivery(std::function<Status(pid_t body, const SignalInfo&)> deliver);

  // Called on the origin when a body has ended, before its shadow does: `shadow` is still the child
  // of its parent.
  void on_body_end(std::function<void(pid_t shadow, const BodyEnd&)> listener);
  // Called when a shadow is gone, however it ended.
  void on_shadow_end(std::function<void(pid_t shadow)> listener);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
