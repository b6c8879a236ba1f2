// KddmReport: what KDDM sets have done and hold, on every node: for `kradm kddm` (control command
// kddm.status) and as the folder /proc/kddm (procmgr/PROC.md says which file shows what).
//
// Threads: the loop's thread. Owned by krgd's main; Kddm outlives it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/proc_folder.h"
#include "krg/runtime/control_server.h"
#include "krg/shmem/kddm.h"

namespace krg {

class KddmReport : public ProcFolder {
 public:
  KddmReport(NodeContext& node, Kddm& kddm);
  ~KddmReport() override;
  KddmReport(const KddmReport&) = delete;
  KddmReport& operator=(const KddmReport&) = delete;

  // kddm.status: {"nodes": [{"node", "memory_used", "memory_limit", "protocol_messages", "sent",
  // "sets": [{"set", "object_bytes", the members of KddmStatistics}]}]}, of the nodes that
  // answered.
  void add_commands(ControlServer& control);

  std::string name() const override { return "kddm"; }
  std::optional<mode_t> type(const std::string& path) const override;
  std::vector<FsDirEntry> list(const std::string& path) const override;
  void text(const std::string& path, std::function<void(Result<std::string>)> done) override;

  struct SetReport {
    KddmSetInfo info;
    KddmStatistics statistics;
  };
  struct NodeReport {
    uint64_t memory_used = 0, memory_limit = 0;
    KddmTraffic traffic;
    std::vector<SetReport> sets;
  };
  using NodeReports = std::map<NodeId, NodeReport>;
  using StateCounts = std::map<std::string, uint64_t>;  // by the state's name
  void collect(std::function<void(NodeReports)> done);

 private:
  struct Query;
  std::string answer(const Query& query) const;
  void collect_states(SetId set, std::function<void(std::map<NodeId, StateCounts>)> done);
  void text_of_set(SetId set, const std::string& file,
                   std::function<void(Result<std::string>)> done);

  NodeContext& node_;
  Kddm& kddm_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // answers that come late ask it
};

}  // namespace krg
