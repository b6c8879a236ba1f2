// Spreading: processes whose threads run on several nodes (capability DISTANT_THREAD). A process is
// spread when it makes its first thread besides the main one; from then on each new thread runs on
// the node that has the fewest of the process's threads. procmgr/README.md has the parts.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/resource.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "krg/procmgr/capability_table.h"
#include "krg/procmgr/node_resources.h"
#include "krg/procmgr/proc_texts.h"
#include "krg/procmgr/process_table.h"
#include "krg/procmgr/syscall_broker.h"
#include "krg/procmgr/thread_lender.h"
#include "krg/runtime/control_server.h"
#include "krg/runtime/patience.h"
#include "krg/shmem/kddm.h"

namespace krg {

class FrozenProcess;
class StandingSpread;

class Spreading {
 public:
  struct Parts {
    NodeContext& node;
    Kddm& kddm;
    SyscallBroker& broker;
    const CapabilityTable& capabilities;
    ProcessTable& table;
    std::function<bool(NodeId)> is_online;
    NodeResources& resources;
    Patience& patience;
    // What a process of this node has used on others, before its end: its parent is to be charged.
    std::function<void(pid_t, const struct rusage&)> charge;
    // What a process's children used on other nodes: one that it has just waited for, or (0) all
    // that it has.
    std::function<std::optional<struct rusage>(pid_t pid, pid_t child)> of_children;
  };
  // Takes the broker's clone3. Errors: ENOTSUP with the reason, where page faults of programs
  // cannot be served.
  static Result<std::unique_ptr<Spreading>> create(Parts parts);
  ~Spreading();
  Spreading(const Spreading&) = delete;
  Spreading& operator=(const Spreading&) = delete;

  // Adds "spread.statistics" {"job"}: {"processes": [...]}, what processes with KRG_STATS=JOB in
  // their environment have waited for (SpreadStatistics::report), when all of them have ended;
  // once.
  //   "spread.gathered" {"job"}: {"processes": [{"pid", "command", "after_s"}]}, those with
  //   KRG_GATHER=JOB in their environment whose threads have come home; once.
  //   "spread.hold" {"pid"}: {"threads": [{"tid", "node", "registers", "extended"}]}: all threads
  //   of
  // a process that is spread and was started here stand still till the connection ends or has them
  // go on; registers (user_regs_struct) and extended ones (as XSAVE lays them out, 832 bytes at the
  // most) are empty where the thread is on its way. Errors: ESRCH, EBUSY, EAGAIN.
  //   "spread.go_on" {"step", "alone"}: they go on till "spread.hold" is asked for again; thread
  // "step", if it is not 0, for one instruction, and nobody else if "alone". The notice
  // "spread.trapped" {"tid", "breakpoint", "status"} tells once that one has made its step or has
  // met a breakpoint; with tid 0 that the process has ended, with that status of wait(2). Error:
  // ESRCH (it is not held).
  //   "spread.breakpoint" {"address", "set"}; errors: ENOTSUP, EIO. "spread.write" {"address",
  // "bytes"}: into memory that its threads have in common; error: EFAULT. Both of a held one.
  //   "spread.read" {"pid", "address", "bytes"}: {"bytes"}: its memory, 16 KiB at the most. Error:
  // EFAULT. Bytes are told as hexadecimal digits.
  void add_commands(ControlServer& server);

  // Completes what /proc says of such processes; used for as long as this is there.
  ProcTexts process_texts();

  // Lends the threads of processes that are spread and started here; for as long as this is there.
  ThreadLender lender();

  // The threads of a process that is spread and started here, and where they run; none: it is not.
  std::map<pid_t, NodeId> threads_of(pid_t pid) const;
  // The spread process of this node that the thread is one of; 0: of none.
  pid_t process_of(pid_t tid) const;
  // The processors that such a thread has been bound to since the process was spread, as far as the
  // node has them where it runs, by the cluster's numbers; nothing: to none.
  std::optional<std::set<unsigned>> affinity_of(pid_t tid) const;
  // Has such a thread run on `target` from now on. Errors: ESRCH; ENOTSUP with the reason, the
  // thread going on where it was.
  void move_thread(pid_t tid, NodeId target, std::function<void(Status)> done);

  // Has such a process stand still to be captured (spread/standing_spread.h). Errors: ESRCH: it is
  // none; EBUSY; ENOTSUP, ETIMEDOUT with the reason, all going on.
  void stand(pid_t pid, std::function<void(Result<std::shared_ptr<StandingSpread>>)> done);
  // Whether it is being spread just now.
  bool is_starting(pid_t pid) const;
  // A process of that image is spread again, and runs: on the nodes that there are, on this one
  // alone, too. `state`: StandingSpread::state(). Errors: those of its start; it is killed then.
  void restore(std::shared_ptr<FrozenProcess> process, const std::string& state,
               std::function<void(Status)> done);

 private:
  struct Impl;
  explicit Spreading(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
