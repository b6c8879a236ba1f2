// NodeContext: what every part of a node's krgd is given: the loop, the workers, the messenger, who
// we are. Owned by krgd's main; outlives every part. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "krg/procmgr/pid_range.h"
#include "krg/runtime/event_loop.h"
#include "krg/runtime/messenger.h"
#include "krg/runtime/worker_pool.h"

namespace krg {

class ChildReaper;
class UserfaultfdGroup;
class JobNamespaces;

// Where things are, as krgd's own mount namespace sees them.
struct SessionPaths {
  std::string state_dir;     // STATE/<cluster>/n<id>, 0700
  std::string session_root;  // the tmpfs that both mount namespaces share: proc/, fs/, ctl.sock
  std::string libexec_dir;   // krg_shadow, krgd_boot, krg_host
};

struct NodeContext {
  EventLoop& loop;
  WorkerPool& workers;
  Messenger& messenger;
  NodeId self;
  unsigned node_count;
  PidRange pids;
  SessionPaths paths;
  int session_mount_ns = -1;  // descriptor of the session's mount namespace; -1 until it exists
  // Where krgd waits for its children, and which process belongs to which job (child_reaper.h,
  // job_namespaces.h); never null in krgd.
  ChildReaper* children = nullptr;
  JobNamespaces* jobs = nullptr;
  // What KDDM objects may take on each node (--mem-per-node), bytes; 0: no limit, and no processes
  // that use memory of other nodes.
  uint64_t memory_per_node = 0;
  // The folder whose files' shared mappings are coherent over nodes (--share-files); empty: none.
  std::string shared_files = {};
  // Of all page sets that a process may map (krg/shmem/page_set.h).
  std::shared_ptr<UserfaultfdGroup> page_sets = nullptr;
};

// Message ids (Messenger's M::kId), one block per part.
namespace message_ids {
inline constexpr uint16_t kMembership = 0;    // runtime
inline constexpr uint16_t kExec = 16;         // ExecPlacer, BodySpawner, ShadowHost
inline constexpr uint16_t kSignals = 48;      // Signals, identity
inline constexpr uint16_t kDescriptors = 80;  // streams
inline constexpr uint16_t kTty = 112;
inline constexpr uint16_t kProcView = 128;
inline constexpr uint16_t kCapabilities = 144;
inline constexpr uint16_t kPlacement = 160;
inline constexpr uint16_t kSession = 176;       // launcher: jobs, shutdown
inline constexpr uint16_t kSharedMemory = 224;  // /dev/shm, System V segments
// 192 to 205: KDDM (shmem/src/kddm_wire.h)
inline constexpr uint16_t kKddmReport = 206;
inline constexpr uint16_t kIpc = 240;  // System V semaphores and messages, futexes
inline constexpr uint16_t kRemoteMemory = 256;
inline constexpr uint16_t kPageMoves = 288;
inline constexpr uint16_t kSpread = 304;
}  // namespace message_ids

}  // namespace krg
