// SPDX-License-Identifier: GPL-2.0-or-later
#include "memory_ledger.h"

#include <algorithm>

#include "krg/shmem/page_set.h"
#include "remote_memory_messages.h"

namespace krg {

constexpr NodeId kKeeper{0};

bool MemoryBook::promise(NodeId node, uint64_t pages) {
  if (pages > left()) return false;
  promised_ += pages;
  by_node_[node] += pages;
  return true;
}

void MemoryBook::give_back(NodeId node, uint64_t pages) {
  uint64_t& promised = by_node_[node];
  const uint64_t given = std::min(pages, promised);
  promised -= given;
  promised_ -= given;
}

void MemoryBook::node_failed(NodeId node) {
  total_ -= std::min(total_, pages_per_node_);
  give_back(node, by_node_[node]);
}

MemoryLedger::MemoryLedger(NodeContext& node)
    : node_(node), book_(node.node_count, node.memory_per_node / kPageBytes) {
  if (node.self != kKeeper) return;
  node.messenger.on_request<ReserveMemory>(
      [this](NodeId from, const ReserveMemory& message, std::string_view, Messenger::Reply reply) {
        if (!book_.promise(from, message.pages)) return reply.fail(ENOMEM);
        reply.ok();
      });
  node.messenger.on<ReturnMemory>(
      [this](NodeId from, const ReturnMemory& message, std::string_view) {
        book_.give_back(from, message.pages);
      });
  node.messenger.on_peer_failure([this](NodeId failed) { book_.node_failed(failed); });
}

void MemoryLedger::reserve(uint64_t pages, std::function<void(Status)> done) {
  node_.messenger.request(kKeeper, ReserveMemory{.pages = pages}, {},
                          [done = std::move(done)](const Result<std::string>& reply) {
                            done(reply ? Status() : Status(reply.error()));
                          });
}

void MemoryLedger::give_back(uint64_t pages) {
  if (pages == 0) return;
  // Without node 0 the cluster ends.
  static_cast<void>(node_.messenger.send(kKeeper, ReturnMemory{.pages = pages}));
}

}  // namespace krg
