// ReplicaHost: the replicas of spread processes that this node has, and the page sets of all of
// them (a page may come to any node).
//
// Threads: the loop's thread. Owned by Spreading.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>

#include "body_spawner.h"
#include "krg/procmgr/node_resources.h"
#include "krg/procmgr/process_table.h"
#include "krg/shmem/kddm.h"
#include "spread/fault_counts.h"
#include "spread/replica.h"
#include "userfault_source.h"

namespace krg {

class ReplicaHost {
 public:
  ReplicaHost(NodeContext& node, Kddm& kddm, SyscallBroker& broker, ProcessTable& table,
              const UserfaultSource& source, const NodeResources& resources, Patience& patience);
  ReplicaHost(const ReplicaHost&) = delete;
  ReplicaHost& operator=(const ReplicaHost&) = delete;

 private:
  struct Hosted {
    NodeId home;
    std::unique_ptr<PageSet> pages;
    std::unique_ptr<Replica> replica = nullptr;
    pid_t pid = 0;
    bool is_ending = false;
    std::vector<Messenger::Reply> ended = {};  // who waits for the end
    FaultSigns signs = {};
    std::optional<FaultCounts> counts = {};  // where they are wanted
    Patience::Kind patience = Patience::Kind::kUsual;
  };
  using HostedPtr = std::shared_ptr<Hosted>;

  void take_messages();
  HostedPtr find(uint64_t set) const;
  void allow_multiple_writers(const Hosted& hosted);
  static void watch_faults(const HostedPtr& hosted);
  Status open(NodeId home, const OpenSpreadSet& ask);
  void start(uint64_t set, std::string_view payload, Messenger::Reply reply);
  void on_installed(uint64_t set, const SpreadImage& image,
                    Result<std::unique_ptr<InstalledProcess>> installed, Messenger::Reply reply);
  void change(const ChangeMemory& change, Messenger::Reply reply);
  void end(uint64_t set);
  void drop_if_unused(uint64_t set);
  void replica_ended(uint64_t set);

  NodeContext& node_;
  Kddm& kddm_;
  ProcessTable& table_;
  const UserfaultSource& source_;
  const NodeResources& resources_;
  Patience& patience_;
  BodySpawner spawner_;
  ImageInstaller installer_;
  std::map<uint64_t, HostedPtr> hosted_;
};

}  // namespace krg
