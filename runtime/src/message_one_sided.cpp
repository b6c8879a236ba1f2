// SPDX-License-Identifier: GPL-2.0-or-later
#include "message_one_sided.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace krg {
namespace {

// Long transfers go in pieces, so that other messages get in between.
constexpr size_t kPieceBytes = 1u << 20;

template <class T>
std::span<const std::byte> object_bytes(const T& object) {
  return std::as_bytes(std::span(&object, 1));
}
template <class T>
bool read_object(std::span<const std::byte> bytes, T* object) {
  if (bytes.size() != sizeof *object) return false;
  std::memcpy(object, bytes.data(), sizeof *object);
  return true;
}

}  // namespace

struct MessageOneSided::Request {
  uint8_t version = 1;
  Kind kind = Kind::kGet;
  uint64_t call = 0, key = 0, offset = 0;
  uint64_t length = 0;                 // of a get
  uint64_t operand = 0, expected = 0;  // of atomics
};
struct MessageOneSided::Reply {
  uint8_t version = 1;
  int32_t number = 0;  // an errno value
  uint64_t call = 0;
  uint64_t previous = 0;  // of atomics
};

MessageOneSided::MessageOneSided(EventLoop& loop, MessageStreams& streams)
    : loop_(loop), streams_(streams) {
  streams_.set_handler(kOneSidedRequest, [this](NodeId from, std::span<const std::byte> header,
                                                std::span<const std::byte> payload) {
    if (Request request; read_object(header, &request)) serve(from, request, payload);
  });
  streams_.set_handler(kOneSidedReply, [this](NodeId from, std::span<const std::byte> header,
                                              std::span<const std::byte> payload) {
    if (Reply reply; read_object(header, &reply)) complete(from, reply, payload);
  });
}

void MessageOneSided::get(NodeId from, uint64_t key, uint64_t offset, std::span<std::byte> local,
                          Completion done) {
  transfer(Kind::kGet, from, key, offset, local, std::move(done));
}

void MessageOneSided::put(NodeId to, uint64_t key, uint64_t offset,
                          std::span<const std::byte> local, Completion done) {
  transfer(Kind::kPut, to, key, offset,
           {const_cast<std::byte*>(local.data()), local.size()},  // a put only reads it
           std::move(done));
}

void MessageOneSided::transfer(Kind kind, NodeId node, uint64_t key, uint64_t offset,
                               std::span<std::byte> local, Completion done) {
  struct Whole {
    size_t pieces;
    Status outcome;
    Completion done;
  };
  const size_t pieces = std::max<size_t>(1, (local.size() + kPieceBytes - 1) / kPieceBytes);
  auto whole = std::make_shared<Whole>(Whole{pieces, {}, std::move(done)});
  for (size_t i = 0; i < pieces; ++i) {
    auto piece = local.subspan(i * kPieceBytes);
    piece = piece.first(std::min(piece.size(), kPieceBytes));
    Request request{.kind = kind, .key = key, .offset = offset + i * kPieceBytes};
    request.length = piece.size();
    auto payload = kind == Kind::kPut ? piece : std::span<std::byte>();
    ask(node, request, payload, kind == Kind::kGet ? piece : std::span<std::byte>(),
        [whole](Result<uint64_t> result) {
          if (!result) whole->outcome = result.error();
          if (--whole->pieces == 0) whole->done(whole->outcome);
        });
  }
}

void MessageOneSided::fetch_add(NodeId at, uint64_t key, uint64_t offset, uint64_t add,
                                AtomicCompletion done) {
  Request request{.kind = Kind::kFetchAdd, .key = key, .offset = offset, .operand = add};
  ask(at, request, {}, {}, std::move(done));
}

void MessageOneSided::compare_swap(NodeId at, uint64_t key, uint64_t offset, uint64_t expected,
                                   uint64_t desired, AtomicCompletion done) {
  Request request{.kind = Kind::kCompareSwap,
                  .key = key,
                  .offset = offset,
                  .operand = desired,
                  .expected = expected};
  ask(at, request, {}, {}, std::move(done));
}

void MessageOneSided::ask(NodeId node, const Request& asked, std::span<const std::byte> payload,
                          std::span<std::byte> local, AtomicCompletion done) {
  Request request = asked;
  request.call = next_call_++;
  Status sent = streams_.send(node, kOneSidedRequest, object_bytes(request), payload,
                              MessageStreams::Limit::kExceed);
  if (sent) {
    pending_.emplace(request.call, Pending{node, local, std::move(done)});
  } else {
    loop_.post([done = std::move(done), error = sent.error()] { done(error); });
  }
}

void MessageOneSided::serve(NodeId from, const Request& request,
                            std::span<const std::byte> payload) {
  Reply reply{.call = request.call};
  auto found = regions_.find(request.key);
  auto region = found == regions_.end() ? std::span<std::byte>() : found->second;
  const bool atomic = request.kind == Kind::kFetchAdd || request.kind == Kind::kCompareSwap;
  const size_t length = atomic                       ? sizeof(uint64_t)
                        : request.kind == Kind::kPut ? payload.size()
                                                     : request.length;
  std::span<const std::byte> answer;
  if (found == regions_.end()) {
    reply.number = EFAULT;
  } else if (request.offset > region.size() || length > region.size() - request.offset ||
             length > kMaxPayloadBytes) {
    reply.number = ERANGE;
  } else if (std::byte* target = region.data() + request.offset; request.kind == Kind::kGet) {
    answer = {target, length};
  } else if (request.kind == Kind::kPut) {
    if (length > 0) std::memcpy(target, payload.data(), length);
  } else if (reinterpret_cast<uintptr_t>(target) % alignof(uint64_t) != 0) {
    reply.number = EINVAL;
  } else if (std::atomic_ref word(*reinterpret_cast<uint64_t*>(target));
             request.kind == Kind::kFetchAdd) {
    reply.previous = word.fetch_add(request.operand);
  } else {
    reply.previous = request.expected;
    word.compare_exchange_strong(reply.previous, request.operand);
  }
  // A peer that failed meanwhile needs no answer.
  static_cast<void>(streams_.send(from, kOneSidedReply, object_bytes(reply), answer,
                                  MessageStreams::Limit::kExceed));
}

void MessageOneSided::complete(NodeId from, const Reply& reply,
                               std::span<const std::byte> payload) {
  auto found = pending_.find(reply.call);
  if (found == pending_.end() || found->second.peer != from) return;
  Pending call = std::move(pending_.extract(found).mapped());
  if (reply.number != 0) return call.done(errno_error("one-sided operation", reply.number));
  if (!call.local.empty()) {
    if (payload.size() != call.local.size())
      return call.done(errno_error("one-sided operation", EPROTO));
    std::memcpy(call.local.data(), payload.data(), payload.size());
  }
  call.done(reply.previous);
}

void MessageOneSided::fail(NodeId peer) {
  std::vector<AtomicCompletion> failed;
  for (auto i = pending_.begin(); i != pending_.end();) {
    auto next = std::next(i);
    if (i->second.peer == peer) failed.push_back(std::move(pending_.extract(i).mapped().done));
    i = next;
  }
  for (auto& done : failed) done(errno_error("the node failed", EHOSTDOWN));
}

}  // namespace krg
