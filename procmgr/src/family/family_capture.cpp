// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/family_capture.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "alive.h"
#include "family/leading_capture.h"
#include "family/local_capture.h"
#include "packed_bytes.h"

namespace krg {

using namespace family_messages;

namespace {

constexpr std::chrono::seconds kOrphansStand{2};
// Pages that nobody comes for take memory no longer.
constexpr std::chrono::seconds kEarlyKept{60};
constexpr unsigned kNumberShift = 48;  // of a capture: above it the node that leads it

template <class T>
std::vector<T> get_all(PackedReader& in) {
  std::vector<T> all;
  while (!in.at_end()) all.push_back(in.get<T>());
  return all;
}

std::vector<pid_t> get_pids(PackedReader& in, size_t count) {
  std::vector<pid_t> pids;
  for (size_t i = 0; i < count && in.ok(); ++i) pids.push_back(in.get<pid_t>());
  return pids;
}

std::string pack(const LocalCapture::Found& found) {
  PackedWriter out;
  for (const FoundProcess& one : found) out.put(one);
  return out.take();
}

using SharedReply = std::shared_ptr<Messenger::Reply>;

}  // namespace

struct FamilyCaptures::Impl : std::enable_shared_from_this<Impl> {
  struct Share {
    NodeId leader;
    std::shared_ptr<LocalCapture> capture;
    EventLoop::Timer orphaned = {};  // its leader's node has failed
  };

  FamilyCaptureParts parts;
  std::map<uint64_t, Share> shares;
  LocalCapture::EarlyByMember early;  // of members that stand soon
  EventLoop::Timer early_limit;
  uint64_t last_number = 0;

  explicit Impl(FamilyCaptureParts p) : parts(std::move(p)) {}

  template <class M>
  void add(void (Impl::*handler)(const M&, std::string_view, SharedReply)) {
    parts.node.messenger.on_request<M>([weak = weak_from_this(), handler](NodeId, const M& ask,
                                                                          std::string_view payload,
                                                                          Messenger::Reply reply) {
      if (auto self = weak.lock()) ((*self).*handler)(ask, payload, shared(std::move(reply)));
    });
  }

  void listen() {
    Messenger& messenger = parts.node.messenger;
    messenger.on_request<FamilyFreeze>(
        [weak = weak_from_this()](NodeId from, const FamilyFreeze& ask, std::string_view pids,
                                  Messenger::Reply reply) {
          if (auto self = weak.lock()) self->freeze(from, ask, pids, shared(std::move(reply)));
        });
    add(&Impl::flush);
    add(&Impl::take);
    add(&Impl::describe);
    add(&Impl::settle_memory);
    add(&Impl::copy_memory);
    add(&Impl::finish_copies);
    add(&Impl::thaw);
    add(&Impl::watch);
    messenger.on<FamilyDrop>(
        [weak = weak_from_this()](NodeId, const FamilyDrop& drop, std::string_view) {
          if (auto self = weak.lock()) self->shares.erase(drop.capture);
        });
    messenger.on_peer_failure([weak = weak_from_this()](NodeId peer) {
      if (auto self = weak.lock()) self->leader_failed(peer);
    });
  }

  // The end of the whole cluster looks like that at first: what stands must not run on then.
  void leader_failed(NodeId leader) {
    for (auto& [number, share] : shares)
      if (share.leader == leader)
        share.orphaned =
            parts.node.loop.after(kOrphansStand, [weak = weak_from_this(), number = number] {
              if (auto self = weak.lock()) self->shares.erase(number);
            });
  }

  void freeze(NodeId from, const FamilyFreeze& ask, std::string_view payload,
              const SharedReply& reply) {
    auto& share = shares[ask.capture];
    if (!share.capture) {
      if (parts.tracking && parts.tracking->works()) parts.tracking->clean_up();
      share = {from, std::make_shared<LocalCapture>(parts, ask)};
    }
    PackedReader in(payload);
    const auto known = get_pids(in, payload.size() / sizeof(pid_t));
    if (ask.only_look) return reply->ok(pack(share.capture->look(known, ask.only_watches != 0)));
    share.capture->freeze(known, [reply](Result<LocalCapture::Found> found) {
      found ? reply->ok(pack(*found)) : reply->fail(found.error());
    });
  }

  std::shared_ptr<LocalCapture> find(uint64_t number, const SharedReply& reply) {
    auto known = shares.find(number);
    if (known != shares.end()) return known->second.capture;
    reply->fail(ESRCH, "no such capture");
    return nullptr;
  }

  // Each pair of nodes keeps messages in order: when the others have answered, they have taken all
  // that was sent before.
  void flush(const FamilyFlush& ask, std::string_view payload, SharedReply reply) {
    if (ask.is_echo) return reply->ok();
    auto capture = find(ask.capture, reply);
    if (!capture) return;
    PackedReader in(payload);
    capture->flush([self = shared_from_this(), nodes = get_all<NodeId>(in), reply] {
      self->echo(nodes, [reply] { reply->ok(); });
    });
  }

  void echo(const std::vector<NodeId>& nodes, const std::function<void()>& done) {
    auto left = std::make_shared<size_t>(nodes.size());
    if (nodes.empty()) return done();
    FamilyFlush echo;
    echo.is_echo = 1;
    for (NodeId node : nodes)
      parts.node.messenger.request(node, echo, {}, [left, done](const Result<std::string>&) {
        if (--*left == 0) done();
      });
  }

  void take(const FamilyTake& ask, std::string_view, SharedReply reply) {
    auto capture = find(ask.capture, reply);
    if (!capture) return;
    capture->take(ask.base, live_pages(ask.base), early, [reply](const Result<FamilyPiece>& piece) {
      piece ? reply->ok(piece->serialize()) : reply->fail(piece.error());
    });
  }

  std::shared_ptr<LivePages> live_pages(uint64_t capture) const {
    const auto known = shares.find(capture);
    return known == shares.end() ? nullptr : known->second.capture->live();
  }

  // For the capture that follows, if it comes soon.
  void keep_early(LocalCapture::EarlyByMember more) {
    for (auto& [pid, pages] : more) early[pid] = std::move(pages);
    if (early.empty()) return;
    early_limit = parts.node.loop.after(kEarlyKept, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->early.clear();
    });
  }

  void watch(const FamilyWatchLarge& ask, std::string_view, SharedReply reply) {
    auto capture = find(ask.capture, reply);
    if (!capture) return;
    const auto answer = [reply](uint64_t bytes) { reply->ok(PackedWriter().put(bytes).take()); };
    if (ask.protects)
      return capture->protect_large([self = shared_from_this(), capture, answer](uint64_t bytes) {
        self->keep_early(capture->take_early());
        answer(bytes);
      });
    capture->watch_large([answer] { answer(0); });
  }

  // A node may have no member, but what is open there, or pages of memory that nodes share.
  std::shared_ptr<LocalCapture> find_or_begin(uint64_t number) {
    auto& share = shares[number];
    if (!share.capture) {
      FamilyFreeze none;
      none.capture = number;
      share = {parts.node.self, std::make_shared<LocalCapture>(parts, none)};
    }
    return share.capture;
  }

  void describe(const FamilyDescribe& ask, std::string_view payload, SharedReply reply) {
    PackedReader in(payload);
    const auto pids = get_pids(in, in.get<uint32_t>());
    const auto uses = unpack_uses(in);
    auto description = find_or_begin(ask.capture)->describe(ask, {pids.begin(), pids.end()}, uses);
    description ? reply->ok(description->serialize()) : reply->fail(description.error());
  }

  void settle_memory(const FamilySettleMemory& ask, std::string_view payload, SharedReply reply) {
    auto memory = find_or_begin(ask.capture)->begin_memory();
    if (!memory) return reply->fail(memory.error());
    PackedReader in(payload);
    std::vector<NodeId> nodes(in.get<uint32_t>());
    for (NodeId& node : nodes) node = in.get<NodeId>();
    (*memory)->settle(get_all<MemoryRow>(in), ask.base,
                      [self = shared_from_this(), nodes, reply](Result<std::string> written) {
                        if (!written) return reply->fail(written.error());
                        self->echo(nodes, [reply, written = *written] { reply->ok(written); });
                      });
  }

  std::shared_ptr<MemoryCopies> find_memory(uint64_t capture, const SharedReply& reply) {
    auto found = find(capture, reply);
    auto memory = found ? found->memory() : std::shared_ptr<MemoryCopies>();
    if (!memory) reply->fail(memory.error());
    return memory ? *memory : nullptr;
  }

  void copy_memory(const FamilyCopyMemory& ask, std::string_view payload, SharedReply reply) {
    auto memory = find_memory(ask.capture, reply);
    if (!memory) return;
    const auto begun = memory->begin(ask.capture, payload);
    if (!begun) return reply->fail(begun.error());
    PackedWriter out;
    reply->ok(out.put(static_cast<uint8_t>(*begun)).take());
  }

  void finish_copies(const FamilyFinishCopies& ask, std::string_view, SharedReply reply) {
    if (auto memory = find_memory(ask.capture, reply))
      memory->finish(
          [reply](const Status& done) { done ? reply->ok() : reply->fail(done.error()); });
  }

  void thaw(const FamilyThaw& ask, std::string_view, SharedReply reply) {
    if (auto known = shares.find(ask.capture); known != shares.end()) known->second.capture->thaw();
    reply->ok();
  }
};

FamilyCaptures::FamilyCaptures(FamilyCaptureParts parts)
    : impl_(std::make_shared<Impl>(std::move(parts))) {
  impl_->listen();
}
// This node ends, and all of its processes with it.
FamilyCaptures::~FamilyCaptures() {
  for (const auto& [number, share] : impl_->shares)
    if (share.capture) share.capture->kill_all();
}

void FamilyCaptures::capture(const Order& order, std::function<void(Result<Captured>)> done) {
  const uint64_t fresh =
      (uint64_t{impl_->parts.node.self.value} + 1) << kNumberShift | ++impl_->last_number;
  const uint64_t number = order.frozen != 0 ? order.frozen : fresh;
  lead_capture(impl_->parts, {order, number},
               [impl = impl_, number, order, done = std::move(done)](Result<Captured> captured) {
                 if (!captured && order.frozen == 0) drop_capture(impl->parts.node, number);
                 done(std::move(captured));
               });
}

Result<std::shared_ptr<FamilySnapshot>> FamilyCaptures::share_of(uint64_t capture,
                                                                 ProcessFamily family) {
  auto known = impl_->shares.find(capture);
  if (known == impl_->shares.end()) return errno_error("no such capture", ESRCH);
  return known->second.capture->snapshot(std::move(family));
}

std::shared_ptr<LivePages> FamilyCaptures::live_pages(uint64_t watch) const {
  return impl_->live_pages(watch);
}

void FamilyCaptures::drop(uint64_t capture) {
  drop_capture(impl_->parts.node, capture);
}

}  // namespace krg
