// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/balancer.h"

#include <algorithm>
#include <sstream>

#include "krg/runtime/log.h"
#include "process_status.h"

namespace krg {
namespace {

// So many are tried in one look, when the first ones cannot move.
constexpr size_t kMostTries = 3;

struct Computing {
  bool is_running = false;
  uint64_t ticks = 0;  // of processor time so far
};

// Source: proc_pid_stat(5), fields 3, 14 and 15.
Computing computing_of(pid_t pid) {
  auto text = read_proc_text(pid, "stat");
  const size_t end_of_name = text ? text->rfind(')') : std::string::npos;
  if (end_of_name == std::string::npos) return {};
  std::istringstream fields(text->substr(end_of_name + 1));
  std::string state, skipped;
  uint64_t user = 0, system = 0;
  fields >> state;
  for (int field = 4; field < 14; ++field) fields >> skipped;
  fields >> user >> system;
  return {state == "R", user + system};
}

}  // namespace

Balancer::Balancer(NodeContext& node, const ExecPlacer::Parts& parts, ProcessMover& mover,
                   Options options)
    : node_(node), parts_(parts), mover_(mover), options_(options) {
  timer_ = node_.loop.every(options_.poll, [this] { look(); });
}

void Balancer::look() {
  const auto target = parts_.placement.relief(options_.gap);
  const auto now = Clock::now();
  if (!target || now - last_move_ < options_.min_interval) return;
  std::erase_if(refused_, [&](const auto& entry) { return now - entry.second > kRefusedFor; });
  auto pids = std::make_shared<std::vector<pid_t>>(candidates());
  move_first(std::move(pids), *target);
}

// Those that have computed longest come last.
std::vector<pid_t> Balancer::candidates() {
  std::vector<std::pair<uint64_t, pid_t>> found;
  for (pid_t pid : parts_.table.local_processes()) {
    const Computing computing = computing_of(pid);
    if (!computing.is_running || refused_.contains(pid)) continue;
    const auto sets = parts_.capabilities.of(pid);
    if (sets && sets->effective.has(Capability::kCanMigrate))
      found.emplace_back(computing.ticks, pid);
  }
  std::sort(found.begin(), found.end());
  std::vector<pid_t> pids;
  for (const auto& [ticks, pid] : found) pids.push_back(pid);
  if (pids.size() > kMostTries) pids.erase(pids.begin(), pids.end() - kMostTries);
  return pids;
}

void Balancer::move_first(std::shared_ptr<std::vector<pid_t>> pids, NodeId target) {
  if (pids->empty()) return;
  const pid_t pid = pids->back();
  pids->pop_back();
  last_move_ = Clock::now();
  mover_.freeze_and_move(pid, target, [this, pid, pids, target](Status moved) {
    if (moved) return log_info("balance", "process {} goes to node {}", pid, target.value);
    log_debug("balance", "process {} stays: {}", pid, moved.error().message());
    refused_[pid] = Clock::now();
    move_first(pids, target);
  });
}

}  // namespace krg
