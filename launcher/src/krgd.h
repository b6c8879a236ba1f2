// Krgd: the composition root: one node's parts, in the order in which they are made (and taken down
// in reverse). It reads as the architecture (docs/ARCHITECTURE.md). To add a part: one member here,
// after all that it uses; its wiring, if it has any, in Krgd::wire(); a tree that is bound
// somewhere, in kViews (krgd.cpp).
//
// Threads: the loop's thread. Owned by main().
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cluster_control.h"
#include "job_table.h"
#include "krg/checkpoint/checkpoints.h"
#include "krg/procmgr/balancer.h"
#include "krg/procmgr/capability_service.h"
#include "krg/procmgr/capability_table.h"
#include "krg/procmgr/child_reaper.h"
#include "krg/procmgr/cluster_view.h"
#include "krg/procmgr/controlling_terminals.h"
#include "krg/procmgr/descriptors.h"
#include "krg/procmgr/exec_placer.h"
#include "krg/procmgr/identity.h"
#include "krg/procmgr/ipc.h"
#include "krg/procmgr/job_namespaces.h"
#include "krg/procmgr/kddm_report.h"
#include "krg/procmgr/migration.h"
#include "krg/procmgr/node_resources.h"
#include "krg/procmgr/page_moves.h"
#include "krg/procmgr/placement.h"
#include "krg/procmgr/proc_view.h"
#include "krg/procmgr/process_finder.h"
#include "krg/procmgr/process_table.h"
#include "krg/procmgr/process_vm_calls.h"
#include "krg/procmgr/remote_children.h"
#include "krg/procmgr/remote_fork.h"
#include "krg/procmgr/remote_memory.h"
#include "krg/procmgr/remote_usage.h"
#include "krg/procmgr/session_fs.h"
#include "krg/procmgr/shared_memory.h"
#include "krg/procmgr/signals.h"
#include "krg/procmgr/sleep_book.h"
#include "krg/procmgr/spreading.h"
#include "krg/procmgr/syscall_broker.h"
#include "krg/runtime/control_server.h"
#include "krg/runtime/membership.h"
#include "krg/runtime/messenger.h"
#include "krg/runtime/patience.h"
#include "krg/runtime/worker_pool.h"
#include "krg/shmem/kddm.h"
#include "krg/shmem/kddm_service.h"
#include "node_administration.h"
#include "node_inventory.h"
#include "pid_keeper.h"
#include "session.h"

namespace krg {

struct KrgdOptions {
  std::string cluster_dir;  // STATE/<cluster>
  std::string libexec_dir;
  uint64_t memory_per_node = 0;   // bytes; 0: no limit
  std::string shared_files = {};  // the folder whose files' mappings are coherent; empty: none
  bool balance = false;           // processes are moved to less loaded nodes
};

struct Krgd {
  Krgd(const KrgdOptions& options, EventLoop& event_loop, ChildReaper& reaper,
       const Session& node_session, Transport& transport, Patience& transport_patience);
  Krgd(const Krgd&) = delete;
  Krgd& operator=(const Krgd&) = delete;

  // Opens the control sockets, serves the file system, keeps pids in their range, and reports this
  // node ready.
  Status start();

  const KrgdOptions& options;
  const Session& session;
  Patience& patience;  // of the transport

  // runtime: messages, who is there, and workers
  Messenger messenger;
  Membership membership{messenger};
  WorkerPool workers;
  JobNamespaces job_namespaces;
  NodeContext node;

  // shmem: coherent objects
  Kddm kddm{messenger};
  KddmReport kddm_report{node, kddm};

  // procmgr: the session's processes
  SessionFs files{node};
  SyscallBroker syscalls{node, SyscallBroker::Precedence::kFirst};
  Descriptors descriptors{node, files, syscalls};
  NodeResources resources{node};
  ProcessTable processes{node, &kddm};
  CapabilityTable capabilities{node};
  KnownForkers forkers{capabilities};
  std::unique_ptr<ProcView> view;
  std::unique_ptr<RemoteMemory> remote_memory;  // none without a limit of memory per node
  std::unique_ptr<SharedMemory> shared_memory;  // none where /dev/shm stays the node's own
  std::unique_ptr<Placement> placement;
  ShadowHost shadows{node, processes};
  std::unique_ptr<BodyDescriptors> body_descriptors;
  PageMoves page_moves{node, syscalls};
  SleepBook sleeps;
  std::unique_ptr<ProcessMover> mover;
  std::unique_ptr<RemoteFork> remote_fork;
  std::unique_ptr<Migration> migration;
  std::unique_ptr<Balancer> balancer;  // with --balance
  std::unique_ptr<ExecPlacer> placer;
  std::unique_ptr<Spreading> spreading;  // none where page faults cannot be served

  // procmgr: answers about and to other processes (procmgr/SIGNALS.md)
  PidCalls pid_calls{node, syscalls, processes};
  ProcessVmCalls process_vm_calls{node, syscalls, pid_calls};
  Signals signals{node, syscalls, processes, job_namespaces, pid_calls};
  Identity identity{node, syscalls, processes, shadows};
  ControllingTerminals terminals{node, files, syscalls, processes, descriptors, shadows};
  RemoteUsage remote_usage{syscalls, *node.children};
  RemoteChildren remote_children{node, syscalls, processes, [this](pid_t tid, int number) {
                                   return descriptors.process_of_pidfd(tid, number);
                                 }};
  ClusterView cluster_view{node,      syscalls,  processes,
                           pid_calls, resources, [this](pid_t pid) { return sees_node_only(pid); }};

  // procmgr: semaphores, message queues, futexes
  Ipc ipc{
      node,
      syscalls,
      files,
      {.exist = [this] { return shared_memory && shared_memory->file_count() > 0; },
       .locate = [this](pid_t pid,
                        RemoteAddr address) { return shared_memory->locate(pid, address); },
       .memory = [this](SetId set) { return shared_memory ? shared_memory->memory_of(set) : -1; },
       .let_go =
           [this](const SharedPlace& place) {
             if (shared_memory) shared_memory->let_go(place);
           }}};

  // launcher: tools and jobs
  ControlServer control;
  JobTable jobs{node, control, session};
  ClusterControl cluster{node, control, jobs, options.cluster_dir};
  CapabilityService capability_service{
      node, capabilities, [this](GlobalPid pid, auto done) { processes.locate(pid, done); }};
  ProcessFinder process_finder{node, [this] { return processes.local_processes(); },
                               [this](pid_t pid) { return threads_of(pid); }};
  NodeInventory inventory{node,
                          control,
                          {.state = [this](NodeId peer) { return membership.state(peer); },
                           .processes = [this] { return processes.local_processes().size(); }}};
  NodeAdministration administration{node, membership, control};
  KddmService kddm_service{messenger, kddm};
  std::unique_ptr<PidKeeper> pids;

  // checkpoint: families of processes as files
  Checkpoints checkpoints{
      {.capture = {node, processes, capabilities, &page_moves,
                   [this](dev_t device) { return files.is_serving() && device == files.device(); },
                   &descriptors, nullptr, spread_members(), &ipc,
                   [this] { return shared_memory.get(); },
                   [this](dev_t device, ino_t inode, bool is_written) {
                     return jobs.stream_of(device, inode, is_written);
                   }},
       .control = control,
       .tasks_of = [this](uint32_t job) { return jobs.tasks_of(JobId{job}); },
       .start_pids_after = [this](pid_t pid) { pids->skip_to(pid); },
       .shadows = shadows,
       .is_online = [this](NodeId n) { return membership.is_online(n); },
       .body_descriptors = [this]() -> BodyDescriptors& { return *body_descriptors; }}};

 private:
  void wire();
  void wire_signals();
  // SEE_LOCAL_PROC_STAT: the process wants its node's figures, not the cluster's.
  bool sees_node_only(pid_t pid) const;
  // The text of /proc/sysvipc/NAME; false where it is this node's own.
  bool read_ipc_text(std::string_view name, std::function<void(Result<std::string>)> done);
  // Of a spread process that was started here.
  std::map<pid_t, NodeId> threads_of(pid_t pid) const;
  Migration::Threads threads_to_move();
  SpreadMembers spread_members();
  void share_between_nodes(std::vector<Session::View>& views);
  void start_remote_memory();
  Status start_placing();
  void start_spreading();
  Status open_control_sockets();
};

}  // namespace krg
