// SPDX-License-Identifier: GPL-2.0-or-later
#include "ofi_one_sided.h"

#include <rdma/fi_atomic.h>
#include <rdma/fi_rma.h>

namespace krg {

class OfiOneSided::Region final : public MemoryRegion {
 public:
  Region(OfiOneSided& owner, Fid<fid_mr> registration, RemoteRegion remote,
         std::span<std::byte> bytes)
      : owner_(owner),
        alive_(owner.alive_),
        registration_(std::move(registration)),
        remote_(remote),
        bytes_(bytes) {}
  ~Region() override {
    check(!alive_.expired(), "a region goes before its transport");
    owner_.by_messages_.withdraw(remote_.key);
  }
  RemoteRegion remote() const override { return remote_; }
  std::span<std::byte> bytes() const override { return bytes_; }

 private:
  OfiOneSided& owner_;
  std::weak_ptr<bool> alive_;
  Fid<fid_mr> registration_;
  RemoteRegion remote_;
  std::span<std::byte> bytes_;
};

OfiOneSided::OfiOneSided(OfiEndpoint::Impl& endpoint, MessageStreams& streams)
    : e_(endpoint), streams_(streams), by_messages_(endpoint.loop, streams) {}

Result<std::unique_ptr<MemoryRegion>> OfiOneSided::register_memory(std::span<std::byte> bytes) {
  if (bytes.empty()) return errno_error("an empty region", EINVAL);
  const uint64_t access = FI_REMOTE_READ | FI_REMOTE_WRITE | FI_READ | FI_WRITE;
  const uint64_t mr_mode = static_cast<uint64_t>(e_.info->domain_attr->mr_mode);
  fid_mr* opened = nullptr;
  int returned = fi_mr_reg(e_.domain.get(), bytes.data(), bytes.size(), access, 0, next_key_++, 0,
                           &opened, nullptr);
  if (returned != 0) return ofi_error("fi_mr_reg", returned);
  Fid<fid_mr> registration(opened);
  if (mr_mode & FI_MR_ENDPOINT) {
    returned = fi_mr_bind(registration.get(), &e_.endpoint->fid, 0);
    if (returned == 0) returned = fi_mr_enable(registration.get());
    if (returned != 0) return ofi_error("fi_mr_enable", returned);
  }
  RemoteRegion remote{
      .base = mr_mode & FI_MR_VIRT_ADDR ? reinterpret_cast<uint64_t>(bytes.data()) : 0,
      .key = fi_mr_key(registration.get()),
      .length = bytes.size()};
  by_messages_.expose(remote.key, bytes);
  return std::unique_ptr<MemoryRegion>(
      std::make_unique<Region>(*this, std::move(registration), remote, bytes));
}

void OfiOneSided::get(NodeId from, const RemoteRegion& remote, uint64_t offset,
                      std::span<std::byte> local, Completion done) {
  auto& op = new_operation(OneSidedOperation::Verb::kGet, from, remote, offset,
                           [done = std::move(done)](Result<uint64_t> result) {
                             done(result ? Status() : Status(result.error()));
                           });
  op.local = local;
  start(op, remote, offset);
}

void OfiOneSided::put(NodeId to, const RemoteRegion& remote, uint64_t offset,
                      std::span<const std::byte> local, Completion done) {
  auto& op = new_operation(OneSidedOperation::Verb::kPut, to, remote, offset,
                           [done = std::move(done)](Result<uint64_t> result) {
                             done(result ? Status() : Status(result.error()));
                           });
  op.local = {const_cast<std::byte*>(local.data()), local.size()};  // a put only reads it
  start(op, remote, offset);
}

void OfiOneSided::fetch_add(NodeId at, const RemoteRegion& remote, uint64_t offset, uint64_t add,
                            AtomicCompletion done) {
  if (!e_.has_atomics) return by_messages_.fetch_add(at, remote.key, offset, add, std::move(done));
  auto& op = new_operation(OneSidedOperation::Verb::kFetchAdd, at, remote, offset, std::move(done));
  op.operand = add;
  start(op, remote, offset);
}

void OfiOneSided::compare_swap(NodeId at, const RemoteRegion& remote, uint64_t offset,
                               uint64_t expected, uint64_t desired, AtomicCompletion done) {
  if (!e_.has_atomics)
    return by_messages_.compare_swap(at, remote.key, offset, expected, desired, std::move(done));
  auto& op =
      new_operation(OneSidedOperation::Verb::kCompareSwap, at, remote, offset, std::move(done));
  op.operand = desired;
  op.expected = expected;
  start(op, remote, offset);
}

OneSidedOperation& OfiOneSided::new_operation(OneSidedOperation::Verb verb, NodeId peer,
                                              const RemoteRegion& remote, uint64_t offset,
                                              AtomicCompletion done) {
  if (free_operations_.empty()) free_operations_.push_back(&operations_.emplace_back());
  OneSidedOperation& op = *free_operations_.back();
  free_operations_.pop_back();
  op.verb = verb;
  op.peer = peer.value;
  op.address = remote.base + offset;
  op.key = remote.key;
  op.local = {reinterpret_cast<std::byte*>(&op.previous), sizeof op.previous};
  op.done = std::move(done);
  return op;
}

// Starts the operation, or completes it from the loop when it cannot be.
void OfiOneSided::start(OneSidedOperation& op, const RemoteRegion& remote, uint64_t offset) {
  const size_t length = op.local.size();
  if (offset > remote.length || length > remote.length - offset)
    finish_later(op, errno_error("outside of the region", ERANGE));
  else if (streams_.failed(NodeId{op.peer}))
    finish_later(op, errno_error("one-sided operation on a failed node", EHOSTDOWN));
  else if (length > e_.info->ep_attr->max_msg_size)
    finish_later(op, errno_error("one-sided operation", EMSGSIZE));
  else if (length == 0)
    finish_later(op, {});
  else if (!unstarted_.empty() || !try_start(op))
    unstarted_.push_back(&op);
}

void OfiOneSided::finish_later(OneSidedOperation& op, Status outcome) {
  e_.loop.post([this, &op, outcome = std::move(outcome), alive = std::weak_ptr(alive_)] {
    if (alive.lock()) finish(op, outcome);
  });
}

// False when the provider has no room now.
bool OfiOneSided::try_start(OneSidedOperation& op) {
  const ssize_t returned = hand_over(op);
  if (returned == -FI_EAGAIN) return false;
  if (returned != 0) finish_later(op, ofi_error("one-sided operation", returned));
  return true;
}

// Returns what the provider said.
ssize_t OfiOneSided::hand_over(OneSidedOperation& op) {
  fid_ep* ep = e_.endpoint.get();
  const fi_addr_t at = peers_[op.peer];
  switch (op.verb) {
    case OneSidedOperation::Verb::kGet:
      return fi_read(ep, op.local.data(), op.local.size(), nullptr, at, op.address, op.key,
                     &op.context);
    case OneSidedOperation::Verb::kPut:
      return fi_write(ep, op.local.data(), op.local.size(), nullptr, at, op.address, op.key,
                      &op.context);
    case OneSidedOperation::Verb::kFetchAdd:
      return fi_fetch_atomic(ep, &op.operand, 1, nullptr, &op.previous, nullptr, at, op.address,
                             op.key, FI_UINT64, FI_SUM, &op.context);
    case OneSidedOperation::Verb::kCompareSwap:
      return fi_compare_atomic(ep, &op.operand, 1, nullptr, &op.expected, nullptr, &op.previous,
                               nullptr, at, op.address, op.key, FI_UINT64, FI_CSWAP, &op.context);
  }
  return -FI_ENOSYS;
}

void OfiOneSided::retry() {
  while (!unstarted_.empty()) {
    OneSidedOperation& op = *unstarted_.front();
    if (streams_.failed(NodeId{op.peer})) {
      finish(op, errno_error("the node failed", EHOSTDOWN));
    } else if (!try_start(op)) {
      break;
    }
    unstarted_.pop_front();
  }
}

void OfiOneSided::finish(OneSidedOperation& op, Status outcome) {
  auto done = std::exchange(op.done, {});
  const uint64_t previous = op.previous;
  free_operations_.push_back(&op);
  if (done) done(outcome ? Result<uint64_t>(previous) : Result<uint64_t>(outcome.error()));
}

void OfiOneSided::fail_operations(uint16_t number) {
  auto alive = std::weak_ptr(alive_);
  for (size_t i = 0; i < operations_.size(); ++i) {
    if (operations_[i].peer != number || !operations_[i].done) continue;
    std::exchange(operations_[i].done, {})(errno_error("the node failed", EHOSTDOWN));
    if (alive.expired()) return;
  }
}

}  // namespace krg
