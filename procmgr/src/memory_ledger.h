// MemoryLedger: who has been promised how much of all nodes' memory. Node 0 keeps it; every node
// asks it before it lets a program have more. No promise is made twice: what has been promised can
// be had, as long as the nodes live and /dev/shm does not take it.
//
// Threads: the loop's thread. Owned by RemoteMemory, on every node.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>

#include "krg/procmgr/node_context.h"

namespace krg {

// Pure: node 0's book.
class MemoryBook {
 public:
  MemoryBook(unsigned nodes, uint64_t pages_per_node)
      : pages_per_node_(pages_per_node), total_(nodes * pages_per_node) {}
  // Whether `pages` more can be promised to a program of that node; then they are.
  bool promise(NodeId node, uint64_t pages);
  void give_back(NodeId node, uint64_t pages);
  // Its memory has gone, and so have its programs.
  void node_failed(NodeId node);
  uint64_t left() const { return total_ > promised_ ? total_ - promised_ : 0; }

 private:
  const uint64_t pages_per_node_;
  uint64_t total_, promised_ = 0;
  std::map<NodeId, uint64_t> by_node_;
};

class MemoryLedger {
 public:
  explicit MemoryLedger(NodeContext& node);
  MemoryLedger(const MemoryLedger&) = delete;
  MemoryLedger& operator=(const MemoryLedger&) = delete;

  // Errors: ENOMEM.
  void reserve(uint64_t pages, std::function<void(Status)> done);
  void give_back(uint64_t pages);

 private:
  NodeContext& node_;
  MemoryBook book_;  // node 0's counts
};

}  // namespace krg
