// OfiOneSided: the gets, puts and atomics of an ofi transport. Those that the provider has no room
// for wait for the next retry(), in order.
// Owner: the transport, which tells it what completes. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <deque>
#include <vector>

#include "message_one_sided.h"
#include "message_streams.h"
#include "ofi_handles.h"
#include "ofi_operations.h"

namespace krg {

class OfiOneSided {
 public:
  // REQUIRES: the endpoint is closed before this is destroyed: the provider holds pointers into it.
  OfiOneSided(OfiEndpoint::Impl& endpoint, MessageStreams& streams);

  // The provider's address of the next node, in the order of their ids.
  void add_peer(fi_addr_t address) { peers_.push_back(address); }

  Result<std::unique_ptr<MemoryRegion>> register_memory(std::span<std::byte> bytes);
  // As Transport's.
  void get(NodeId from, const RemoteRegion& remote, uint64_t offset, std::span<std::byte> local,
           Completion done);
  void put(NodeId to, const RemoteRegion& remote, uint64_t offset, std::span<const std::byte> local,
           Completion done);
  void fetch_add(NodeId at, const RemoteRegion& remote, uint64_t offset, uint64_t add,
                 AtomicCompletion done);
  void compare_swap(NodeId at, const RemoteRegion& remote, uint64_t offset, uint64_t expected,
                    uint64_t desired, AtomicCompletion done);

  // The provider is done with the operation: completes it, unless its peer's failure did before.
  void finish(OneSidedOperation& op, Status outcome);
  // Starts what the provider had no room for.
  void retry();
  bool has_unstarted() const { return !unstarted_.empty(); }
  // The peer has failed: fails what goes by messages.
  void fail_messages(NodeId peer) { by_messages_.fail(peer); }
  // Fails the operations of a failed peer that the provider has not given back; it may still hold
  // them.
  void fail_operations(uint16_t peer);

 private:
  class Region;

  OneSidedOperation& new_operation(OneSidedOperation::Verb verb, NodeId peer,
                                   const RemoteRegion& remote, uint64_t offset,
                                   AtomicCompletion done);
  void start(OneSidedOperation& op, const RemoteRegion& remote, uint64_t offset);
  bool try_start(OneSidedOperation& op);
  ssize_t hand_over(OneSidedOperation& op);
  void finish_later(OneSidedOperation& op, Status outcome);

  OfiEndpoint::Impl& e_;
  MessageStreams& streams_;
  MessageOneSided by_messages_;
  std::vector<fi_addr_t> peers_;
  std::deque<OneSidedOperation> operations_;  // all there are; addresses stay
  std::vector<OneSidedOperation*> free_operations_;
  std::deque<OneSidedOperation*> unstarted_;
  uint64_t next_key_ = 1;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
};

}  // namespace krg
