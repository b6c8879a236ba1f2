// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster_texts.h"

#include <unistd.h>

#include <algorithm>

#include "gather.h"
#include "proc_sums.h"

namespace krg {
namespace {

// Anybody may read these; each node reads them as its krgd.
FileUser any_user() {
  return {geteuid(), getegid()};
}

std::string sum(MachineText what, const std::vector<NodeText>& nodes) {
  switch (what) {
    case MachineText::kCpuinfo:
      return sum_cpuinfo(nodes);
    case MachineText::kMeminfo:
      return sum_meminfo(nodes);
    case MachineText::kStat:
      return sum_stat(nodes);
    case MachineText::kLoadavg:
      return sum_loadavg(nodes);
    case MachineText::kUptime:
      return sum_uptime(nodes);
    case MachineText::kVmstat:
      return sum_vmstat(nodes);
  }
  return {};
}

std::string own(MachineText what, const NodeText& node) {
  if (what == MachineText::kCpuinfo) return own_cpuinfo(node);
  if (what == MachineText::kStat) return own_stat(node);
  return node.text;
}

// Programs read these two again and again (pgrep: uptime, for each process). Another node's part in
// their sums, idle time and a load that is computed every 5 s, may be this old.
constexpr auto kMaxKept = std::chrono::seconds(1);
bool may_be_kept(MachineText what) {
  return what == MachineText::kUptime || what == MachineText::kLoadavg;
}

std::string path_of(MachineText what) {
  return std::string(kMachineTextNames[static_cast<unsigned>(what)]);
}

}  // namespace

std::optional<MachineText> machine_text(std::string_view name) {
  auto found = std::find(kMachineTextNames.begin(), kMachineTextNames.end(), name);
  if (found == kMachineTextNames.end()) return std::nullopt;
  return static_cast<MachineText>(found - kMachineTextNames.begin());
}

void ClusterTexts::of_cluster(MachineText what, Done done) {
  facts_.when_known(alive_.guard([this, what, done = std::move(done)] {
    gather<std::string>(
        living_nodes(node_.messenger),
        [&](NodeId node, auto answered) { files_.read(node, any_user(), path_of(what), answered); },
        alive_.guard([this, what, done](NodeAnswers<std::string> answers) {
          std::vector<NodeText> texts;
          for (auto& [node, text] : answers)
            texts.push_back({std::move(text), facts_.places(node), node == node_.self});
          done(sum(what, texts));
        }));
  }));
}

// This node's part is never kept.
void ClusterTexts::fetch(MachineText what, NodeId node, Done done) {
  if (node == node_.self || !may_be_kept(what))
    return files_.read(node, any_user(), path_of(what), std::move(done));
  const auto now = Clock::now();
  auto kept = kept_.find({node, what});
  if (kept != kept_.end() && now - kept->second.asked <= kMaxKept) return done(kept->second.text);
  files_.read(
      node, any_user(), path_of(what),
      alive_.guard([this, what, node, now, done = std::move(done)](Result<std::string> text) {
        if (text) kept_[{node, what}] = {now, *text};
        done(std::move(text));
      }));
}

void ClusterTexts::of_node(MachineText what, NodeId node, Done done) {
  facts_.when_known(alive_.guard([this, what, node, done = std::move(done)] {
    files_.read(node, any_user(), path_of(what),
                alive_.guard([this, what, node, done](Result<std::string> text) {
                  if (!text) return done(text.error());
                  done(own(what, {std::move(*text), facts_.places(node), true}));
                }));
  }));
}

}  // namespace krg
