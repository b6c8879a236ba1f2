// SPDX-License-Identifier: GPL-2.0-or-later
#include "pid_sweeps.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace krg {
namespace {

// A program that opened nothing for so long is no longer on its way through the processes.
constexpr auto kMaxPause = std::chrono::milliseconds(500);
// Nothing that is told without asking is older than this.
constexpr auto kMaxAge = std::chrono::milliseconds(50);
constexpr size_t kMaxSweeps = 64;
// Processes of a node below which a batch costs more than it saves.
constexpr size_t kMinProcesses = 3;

bool is_worth_a_batch(std::string_view name) {
  constexpr std::array kNames{"stat", "status", "statm", "cmdline",
                              "comm", "cgroup", "io",    "wchan"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

}  // namespace

// One file of all processes of a node.
struct PidSweeps::Batch {
  using Waiter = std::function<void(std::optional<std::string>)>;

  bool is_fresh() const { return Clock::now() - asked <= kMaxAge; }
  bool has(pid_t pid) const { return texts.contains(pid); }
  // Each text is given once.
  std::optional<std::string> take(pid_t pid) {
    auto found = texts.find(pid);
    if (found == texts.end()) return std::nullopt;
    return std::exchange(found->second, std::nullopt);
  }

  Clock::time_point asked = Clock::now();
  bool arrived = false;
  std::map<pid_t, std::optional<std::string>> texts;
  std::vector<std::pair<pid_t, Waiter>> waiters;  // until it has arrived
};

void PidSweeps::begin(pid_t tid, const std::vector<ListedProcess>& processes) {
  forget_old();
  sweeps_.erase(tid);
  if (processes.size() < kMinProcesses || sweeps_.size() >= kMaxSweeps) return;
  Sweep& sweep = sweeps_[tid];
  sweep.begun = sweep.last_used = Clock::now();
  for (const ListedProcess& process : processes) {
    sweep.processes[process.pid] = process;
    ++sweep.counts[process.runs_on];
  }
  cleaning_ = loop_.after(kMaxPause * 2, [this] { forget_old(); });
}

void PidSweeps::forget_old() {
  std::erase_if(
      sweeps_, [](const auto& entry) { return Clock::now() - entry.second.last_used > kMaxPause; });
  if (!sweeps_.empty()) cleaning_ = loop_.after(kMaxPause * 2, [this] { forget_old(); });
}

PidSweeps::Sweep* PidSweeps::recent(pid_t tid) {
  auto found = sweeps_.find(tid);
  if (found == sweeps_.end() || Clock::now() - found->second.last_used > kMaxPause) return nullptr;
  return &found->second;
}

const ListedProcess* PidSweeps::find(pid_t tid, pid_t pid) {
  Sweep* sweep = recent(tid);
  if (sweep == nullptr) return nullptr;
  auto found = sweep->processes.find(pid);
  if (found == sweep->processes.end()) return nullptr;
  bool is_known = Clock::now() - sweep->begun <= kMaxAge;
  for (const auto& [of, batch] : sweep->batches)
    is_known |= of.first == found->second.runs_on && batch->is_fresh() && batch->has(pid);
  return is_known ? &found->second : nullptr;
}

void PidSweeps::read(pid_t tid, FileUser user, NodeId node, pid_t pid, const std::string& name,
                     std::function<void(std::optional<std::string>)> done) {
  Sweep* sweep = recent(tid);
  if (sweep == nullptr || !is_worth_a_batch(name)) return done(std::nullopt);
  auto process = sweep->processes.find(pid);
  if (process == sweep->processes.end() || process->second.runs_on != node)
    return done(std::nullopt);
  if (sweep->counts[node] < kMinProcesses) return done(std::nullopt);
  sweep->last_used = Clock::now();
  std::shared_ptr<Batch>& batch = sweep->batches[{node, name}];
  if (!batch || (batch->arrived && !batch->is_fresh())) batch = fetch(node, user, name);
  if (batch->arrived) return done(batch->take(pid));
  batch->waiters.emplace_back(pid, std::move(done));
}

std::shared_ptr<PidSweeps::Batch> PidSweeps::fetch(NodeId node, FileUser user,
                                                   const std::string& name) {
  auto batch = std::make_shared<Batch>();
  files_.read_of_every_process(node, user, name, [batch](Result<NodeFiles::TextByPid> texts) {
    batch->arrived = true;
    if (texts)
      for (auto& [pid, text] : *texts) batch->texts.emplace(pid, std::move(text));
    for (auto& [pid, done] : std::exchange(batch->waiters, {})) done(batch->take(pid));
  });
  return batch;
}

}  // namespace krg
