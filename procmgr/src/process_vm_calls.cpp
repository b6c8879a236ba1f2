// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/process_vm_calls.h"

#include <limits.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "alive.h"
#include "in_worker.h"
#include "stand_in.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;

constexpr size_t kPieceBytes = 1u << 20;

// Request to where the process executes: to read or write its memory, in the sender's name.
// Payload: `ranges` iovecs of its memory, then what is to be written. Reply: what the kernel
// returned (int64_t, -errno for an error), then what was read.
struct ProcessVmPiece {
  static constexpr uint16_t kId = message_ids::kSignals + 5;
  uint8_t version = 1;
  uint8_t writes = 0;
  uint8_t unused[2] = {};
  int32_t pid = 0;
  uint32_t ranges = 0;
  uint32_t bytes = 0;  // of all ranges
  Sender sender;
};

// Where a transfer stands in a list of ranges.
class Cursor {
 public:
  explicit Cursor(std::vector<iovec> ranges) : ranges_(std::move(ranges)) {}

  size_t bytes() const {
    size_t sum = 0;
    for (const iovec& range : ranges_) sum += range.iov_len;
    return sum;
  }
  // The next `bytes`, at most, which are gone then.
  std::vector<iovec> take(size_t bytes) {
    std::vector<iovec> taken;
    for (; bytes > 0 && at_ < ranges_.size();) {
      iovec& range = ranges_[at_];
      const size_t length = std::min(bytes, range.iov_len);
      if (length > 0) taken.push_back({range.iov_base, length});
      range.iov_base = static_cast<char*>(range.iov_base) + length;
      range.iov_len -= length;
      bytes -= length;
      if (range.iov_len == 0) ++at_;
    }
    return taken;
  }

 private:
  std::vector<iovec> ranges_;
  size_t at_ = 0;
};

RemoteAddr address_of(const iovec& range) {
  return RemoteAddr{reinterpret_cast<uint64_t>(range.iov_base)};
}

// Errors: EINVAL, EFAULT.
Result<std::vector<iovec>> read_ranges(const Call& call, unsigned argument) {
  const uint64_t count = call.arg(argument + 1);
  if (count > IOV_MAX) return errno_error("too many ranges", EINVAL);
  auto bytes = call.read_memory(RemoteAddr{call.arg(argument)}, count * sizeof(iovec));
  if (!bytes) return errno_error("ranges", EFAULT);
  std::vector<iovec> ranges(count);
  std::memcpy(ranges.data(), bytes->data(), bytes->size());
  size_t sum = 0;
  for (const iovec& range : ranges)
    if (range.iov_len > SSIZE_MAX - sum)
      return errno_error("too long ranges", EINVAL);
    else
      sum += range.iov_len;
  return ranges;
}

// One call, until all of it is done.
class Transfer : public std::enable_shared_from_this<Transfer> {
 public:
  Transfer(NodeContext& node, Call call, NodeId to, const Sender& sender, std::vector<iovec> local,
           std::vector<iovec> remote)
      : node_(node),
        call_(std::move(call)),
        to_(to),
        sender_(sender),
        local_(std::move(local)),
        remote_(std::move(remote)),
        left_(std::min(local_.bytes(), remote_.bytes())) {}

  void go_on() {
    if (left_ == 0) return end(0);
    ProcessVmPiece piece;
    piece.sender = sender_;
    piece.pid = static_cast<int32_t>(call_.arg(0));
    piece.writes = call_.number() == SYS_process_vm_writev;
    piece.bytes = static_cast<uint32_t>(std::min(left_, kPieceBytes));
    const std::vector<iovec> there = remote_.take(piece.bytes);
    piece.ranges = static_cast<uint32_t>(there.size());
    std::string payload(reinterpret_cast<const char*>(there.data()), there.size() * sizeof(iovec));
    here_ = local_.take(piece.bytes);
    if (piece.writes)
      for (const iovec& range : here_) {
        auto read = call_.read_memory(address_of(range), range.iov_len);
        if (!read) return end(EFAULT);
        payload += *read;
      }
    node_.messenger.request(to_, piece, payload,
                            [self = shared_from_this(), piece](const Result<std::string>& reply) {
                              self->on_reply(piece, reply);
                            });
  }

 private:
  void on_reply(const ProcessVmPiece& piece, const Result<std::string>& reply) {
    int64_t moved = 0;
    if (!reply || reply->size() < sizeof moved) return end(ESRCH);
    std::memcpy(&moved, reply->data(), sizeof moved);
    if (moved < 0) return end(static_cast<int>(-moved));
    std::string_view came = std::string_view(*reply).substr(sizeof moved);
    for (const iovec& range : here_) {
      const std::string_view part = came.substr(0, range.iov_len);
      if (part.empty()) break;
      if (!call_.write_memory(address_of(range), part)) return end(EFAULT);
      came.remove_prefix(part.size());
    }
    done_ += moved;
    left_ -= piece.bytes;
    moved < static_cast<int64_t>(piece.bytes) ? end(EFAULT) : go_on();
  }

  // `error` counts where nothing has been done, as in the kernel.
  void end(int error) { done_ > 0 || error == 0 ? call_.succeed(done_) : call_.fail(error); }

  NodeContext& node_;
  Call call_;
  const NodeId to_;
  const Sender sender_;
  Cursor local_, remote_;
  size_t left_;
  int64_t done_ = 0;
  std::vector<iovec> here_;  // of the piece that is under way
};

struct Carried {
  int64_t moved = -EIO;
  std::string bytes;
};

// May wait for memory that the loop brings.
Carried carry_out(const ProcessVmPiece& piece, std::vector<iovec> ranges, std::string bytes) {
  bytes.resize(piece.bytes);
  const iovec here{bytes.data(), bytes.size()};
  Sender sender = piece.sender;
  sender.pid = 0;  // not needed to be allowed, and may be taken
  const auto number = piece.writes ? SYS_process_vm_writev : SYS_process_vm_readv;
  const RawCall call{static_cast<int>(number),
                     {static_cast<uint64_t>(piece.pid), reinterpret_cast<uint64_t>(&here), 1,
                      reinterpret_cast<uint64_t>(ranges.data()), ranges.size(), 0}};
  auto moved = call_as(sender, call);
  if (!moved) return {};
  const bool has_read = !piece.writes && *moved > 0;
  bytes.resize(has_read ? static_cast<size_t>(*moved) : 0);
  return {*moved, std::move(bytes)};
}

void answer(NodeContext& node, const ProcessVmPiece& piece, std::string_view payload,
            Messenger::Reply reply) {
  const size_t list = size_t{piece.ranges} * sizeof(iovec);
  const size_t written = piece.writes ? piece.bytes : 0;
  if (piece.ranges > IOV_MAX || piece.bytes > kPieceBytes || payload.size() != list + written)
    return reply.fail(EINVAL, "a malformed transfer");
  std::vector<iovec> ranges(piece.ranges);
  std::memcpy(ranges.data(), payload.data(), list);
  auto later = shared(std::move(reply));
  in_worker(
      node.workers,
      [piece, ranges = std::move(ranges), bytes = std::string(payload.substr(list))] {
        return carry_out(piece, ranges, bytes);
      },
      [later](const Carried& carried) {
        std::string answer(reinterpret_cast<const char*>(&carried.moved), sizeof carried.moved);
        later->ok(answer + carried.bytes);
      });
}

void begin(NodeContext& node, Call call, NodeId to) {
  if (call.arg(5) != 0) return call.fail(EINVAL);  // flags: none is known
  auto local = read_ranges(call, 1), remote = local ? read_ranges(call, 3) : local;
  if (!remote) return call.fail(remote.error().errno_or(EFAULT));
  auto sender = read_sender(call.tid());
  if (!sender) return;  // the caller has died
  std::make_shared<Transfer>(node, std::move(call), to, *sender, std::move(*local),
                             std::move(*remote))
      ->go_on();
}

}  // namespace

ProcessVmCalls::ProcessVmCalls(NodeContext& node, SyscallBroker& broker, PidCalls& pid_calls) {
  node.messenger.on_request<ProcessVmPiece>(
      [&node](NodeId, const ProcessVmPiece& piece, std::string_view payload,
              Messenger::Reply reply) { answer(node, piece, payload, std::move(reply)); });
  for (int number : {SYS_process_vm_readv, SYS_process_vm_writev})
    broker.set_handler(number, [&node, &pid_calls](Call call) {
      const auto pid = static_cast<pid_t>(call.arg(0));
      pid_calls.route(std::move(call), pid, [&node](Call elsewhere, NodeId to) {
        begin(node, std::move(elsewhere), to);
      });
    });
}

}  // namespace krg
