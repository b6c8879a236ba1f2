// Processor masks between a node's own numbers and the cluster's, which count node after node.
// Pure. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace krg {

// A node's processors (kernel numbers, ascending) and where they stand in the cluster.
struct ProcessorNumbers {
  std::vector<unsigned> own;
  unsigned first = 0;  // the cluster's number of own[0]
  unsigned total = 0;  // of the whole cluster
};

using ProcessorSet = std::set<unsigned>;

// The bits of a mask as sched_setaffinity(2) takes it, and back into `bytes` bytes.
// REQUIRES for the second: every number fits.
ProcessorSet set_of_mask(std::string_view mask);
std::string mask_of_set(const ProcessorSet& processors, size_t bytes);

// What a thread that may run on `allowed` (kernel numbers) is told.
ProcessorSet to_cluster(const ProcessorSet& allowed, const ProcessorNumbers& numbers);
// Where a thread may run that asked for `wanted` (cluster's numbers): those of this node; all of
// the node's when it asked for the whole cluster. None: it asked for other nodes' only.
std::optional<ProcessorSet> to_node(const ProcessorSet& wanted, const ProcessorNumbers& numbers);

// Which of a node's own processors a thread may run on, by their places among them (from 0, in
// order): what binds it likewise on another node. None: it may use all of them, or none.
std::vector<uint32_t> places_among(const ProcessorSet& own, const ProcessorSet& allowed);
// What a thread of such places may run on; a node that has fewer counts on from its first.
ProcessorSet at_places(const std::vector<uint32_t>& places, const ProcessorSet& own);

// The processors (kernel numbers) that a thread of this node may run on; none: it has ended.
ProcessorSet processors_of_thread(pid_t tid);
// Has a thread of this node run on these processors (kernel numbers) only; what fails is passed
// over.
void bind_thread(pid_t tid, const ProcessorSet& processors);

}  // namespace krg
