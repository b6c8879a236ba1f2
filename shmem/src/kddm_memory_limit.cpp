// SPDX-License-Identifier: GPL-2.0-or-later
#include "kddm_memory_limit.h"

#include <algorithm>
#include <utility>

#include "krg/runtime/check.h"

namespace krg::kddm {

// To all: what this node's objects take, and may take (0: no limit); `ask`: tell me, too.
struct MemoryLimit::Notice {
  static constexpr uint16_t kId = kMessageIds + 6;
  uint8_t version = 1;
  uint8_t ask = 0;
  uint8_t unused[6] = {};
  uint64_t limit = 0;
  uint64_t used = 0;
};

// May this set's objects be given to you? Reply: a byte, 1 for yes.
struct MemoryLimit::OpenQuery {
  static constexpr uint16_t kId = kMessageIds + 7;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};

MemoryLimit::MemoryLimit(std::shared_ptr<Server> server)
    : server_(std::move(server)), messenger_(server_->messenger), peers_(messenger_.node_count()) {}

void MemoryLimit::start() {
  static_assert(sizeof(Notice) == 24 && sizeof(OpenQuery) == 16);
  auto weak = weak_from_this();
  server_->on_growth = [weak] {
    if (auto self = weak.lock()) self->schedule();
  };
  server_->on_release = [weak](const ObjectKey& key) {
    if (auto self = weak.lock()) self->released(key);
  };
  messenger_.on<Notice>([weak](NodeId from, const Notice& notice, std::string_view) {
    auto self = weak.lock();
    if (!self) return;
    Peer& peer = self->peers_[from.value];
    peer.limit = notice.limit;
    peer.used = notice.used;
    if (notice.ask && self->limit_) self->tell(from, false);
    self->schedule();
  });
  messenger_.on_request<OpenQuery>([weak](NodeId, const OpenQuery& query, std::string_view,
                                          Messenger::Reply reply) {
    auto self = weak.lock();
    reply.ok(self && self->server_->find_set(SetId{query.set}) ? "\1" : std::string_view("\0", 1));
  });
}

void MemoryLimit::set(size_t bytes) {
  limit_ = bytes;
  tell(true);
  schedule();
}

void MemoryLimit::tell(bool always) {
  if (!limit_) return;
  const uint64_t used = server_->bytes_here();
  const uint64_t step = std::max<uint64_t>(*limit_ / 16, 64 << 10);
  if (!always && used < told_ + step && told_ < used + step) return;
  told_ = used;
  tell_all(false);
}

void MemoryLimit::tell_all(bool ask) {
  for (unsigned n = 0; n < peers_.size(); ++n) {
    const NodeId node{static_cast<uint16_t>(n)};
    if (node != messenger_.self() && !server_->is_muted(node)) tell(node, ask);
  }
}

void MemoryLimit::tell(NodeId node, bool ask) {
  // Who cannot be reached is found dead.
  static_cast<void>(
      messenger_.send(node, Notice{.ask = ask, .limit = *limit_, .used = server_->bytes_here()}));
}

bool MemoryLimit::is_over() const {
  return limit_ && *limit_ > 0 && server_->bytes_here() > *limit_ + giving_bytes_;
}

void MemoryLimit::schedule() {
  if (!limit_ || scheduled_) return;
  scheduled_ = true;
  messenger_.loop().post([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->scheduled_ = false;
    self->make_room();
  });
}

// Copies go first: another node has them anyway. Then what is cold.
void MemoryLimit::make_room() {
  tell(false);
  forget_refused();
  if (server_->mode() != Server::Mode::kRunning) return;
  const Outbox::Scope scope(server_->outbox);
  drop_copies();
  for_coldest([this](Set& set, const ObjectKey& key) {
    if (giving_.size() < kMaxGiving) give(set, key);
  });
  if (!std::exchange(somebody_is_busy_, false) || !is_over()) return;
  retry_ = messenger_.loop().after(kRetry, [this] { schedule(); });
}

// While this node is over its limit. `use` may release the object.
void MemoryLimit::for_coldest(const std::function<void(Set&, const ObjectKey&)>& use) {
  size_t looks = 0;
  const auto& by_use = server_->by_use();
  for (auto at = by_use.begin(); at != by_use.end() && is_over() && looks < kMaxLooks; ++looks) {
    const ObjectKey key = *at++;
    Set* set = server_->find_set(key.set);
    check(set != nullptr, "an object that has bytes is in an open set");
    use(*set, key);
  }
}

// Looking at thousands of objects for nothing costs more than giving some of them.
void MemoryLimit::drop_copies() {
  if (!is_over() || (without_copies_ > 0 && without_copies_-- > 0)) return;
  bool found = false;
  for_coldest([&](Set& set, const ObjectKey& key) { found |= drop(set, key); });
  if (!found && is_over()) without_copies_ = kWithoutCopies;
}

bool MemoryLimit::drop(Set& set, const ObjectKey& key) {
  bool dropped = false;
  server_->step(set, key.object, {}, [&](Entry& e, const Place&, Actions& a) {
    if (!drop_copy(e, a)) return;
    dropped = true;
    ++set.statistics.copies_dropped;
    set.evicted.insert(key.object.value);
  });
  return dropped;
}

void MemoryLimit::give(Set& set, const ObjectKey& key) {
  const size_t bytes = set.options.object_bytes;
  const NodeId target = roomiest(set.id, bytes);
  if (target == kNoNode) return;
  server_->step(set, key.object, {}, [&](Entry& e, const Place& p, Actions& a) {
    if (e.state != State::kReadOwner && e.state != State::kWriteOwner) return;
    kddm::give(e, p, target, a);
    if (e.state != State::kWaitChgOwnAck) return;
    giving_[{key.set.value, key.object.value}] = {bytes, target};
    giving_bytes_ += bytes;
    peers_[target.value].used += bytes;  // until it tells
  });
}

// What a node takes is known too high when objects have been fetched back from it.
void MemoryLimit::ask_again() {
  if (asked_) return;
  // After what this turn still sends: the answer counts all that was given.
  messenger_.loop().post([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    for (unsigned n = 0; n < self->peers_.size(); ++n) {
      const NodeId node{static_cast<uint16_t>(n)};
      const Peer& peer = self->peers_[n];
      const bool is_full = peer.limit && *peer.limit > 0 && *peer.limit <= peer.used;
      // What has not left yet would be missing in the answer.
      const bool is_given = std::any_of(self->giving_.begin(), self->giving_.end(),
                                        [&](const auto& g) { return g.second.target == node; });
      if (node != self->messenger_.self() && !self->server_->is_muted(node) && is_full && !is_given)
        self->tell(node, true);
    }
  });
  asked_ = messenger_.loop().after(kAskAgain, [this] {
    asked_.reset();
    schedule();
  });
}

// The node with the most room that has the set open.
NodeId MemoryLimit::roomiest(SetId set, size_t bytes) {
  NodeId best = kNoNode;
  uint64_t best_room = 0;
  for (unsigned n = 0; n < peers_.size(); ++n) {
    const NodeId node{static_cast<uint16_t>(n)};
    const Peer& peer = peers_[n];
    if (!peer.limit || server_->is_muted(node) || node == messenger_.self()) continue;
    const uint64_t limit = *peer.limit == 0 ? ~0ull : *peer.limit;
    if (limit < peer.used + bytes) {
      ask_again();
      continue;
    }
    if (limit - peer.used <= best_room) continue;
    if (!is_open_at(node, set)) continue;
    if (messenger_.deferred_bytes(node) > kMaxOnTheWay) {
      somebody_is_busy_ = true;
      continue;
    }
    best = node;
    best_room = limit - peer.used;
  }
  return best;
}

// Asks once; the answer comes later.
bool MemoryLimit::is_open_at(NodeId node, SetId set) {
  auto [known, fresh] = peers_[node.value].open.try_emplace(set.value, false);
  if (!fresh) return known->second;
  messenger_.request(node, OpenQuery{.set = set.value}, {},
                     [weak = weak_from_this(), node, set](const Result<std::string>& reply) {
                       auto self = weak.lock();
                       if (!self) return;
                       auto& open = self->peers_[node.value].open;
                       if (!reply || *reply != "\1") {
                         open.erase(set.value);  // it is asked again when there is need
                         return;
                       }
                       open[set.value] = true;
                       self->schedule();
                     });
  return false;
}

void MemoryLimit::released(const ObjectKey& key) {
  auto given = giving_.extract({key.set.value, key.object.value});
  if (given.empty()) return;
  giving_bytes_ -= given.mapped().bytes;
  if (Set* set = server_->find_set(key.set)) {
    ++set->statistics.evictions;
    set->evicted.insert(key.object.value);
  }
  schedule();
}

// The manager may say no, since somebody wants the object; and a set may be closed.
void MemoryLimit::forget_refused() {
  for (auto at = giving_.begin(); at != giving_.end();) {
    const Set* set = server_->find_set(SetId{at->first.first});
    const auto object = set ? set->objects.find(at->first.second) : decltype(set->objects.end()){};
    if (set && object != set->objects.end() &&
        object->second.entry.state == State::kWaitChgOwnAck) {
      ++at;
      continue;
    }
    giving_bytes_ -= at->second.bytes;
    at = giving_.erase(at);
  }
}

}  // namespace krg::kddm
