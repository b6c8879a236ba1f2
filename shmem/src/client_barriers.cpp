// SPDX-License-Identifier: GPL-2.0-or-later
#include "client_barriers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "set_names.h"

namespace krg {
namespace {

constexpr std::chrono::milliseconds kRetryDelay{20};
constexpr unsigned kMaxSteps = 16;  // of a round: 2^16 nodes
constexpr unsigned kNodeShift = 48;
constexpr uint64_t kAllRounds = std::numeric_limits<uint64_t>::max();

// To the node that brings members together; the payload is the barrier's name. The reply comes when
// all have joined: a Formed, then the nodes that have members.
struct JoinBarrier {
  static constexpr uint16_t kId = 210;
  uint8_t version = 1;
  uint8_t reserved[3] = {};
  uint32_t members = 0;
  uint64_t member = 0;  // of the node that asks
};
static_assert(sizeof(JoinBarrier) == 16);

// To the same node: who has asked to join does not any more. The payload is the name.
struct WithdrawFromBarrier {
  static constexpr uint16_t kId = 211;
  uint8_t version = 1;
  uint8_t reserved[7] = {};
  uint64_t member = 0;
};
static_assert(sizeof(WithdrawFromBarrier) == 16);

// All members of the sender, and of those that it has heard of, have come to one more round.
struct BarrierStep {
  static constexpr uint16_t kId = 212;
  uint8_t version = 1;
  uint8_t step = 0;
  uint8_t reserved[6] = {};
  uint64_t barrier = 0;
};
static_assert(sizeof(BarrierStep) == 16);

// Rounds after this one will not be over: a member has gone.
struct LastRound {
  static constexpr uint16_t kId = 213;
  uint8_t version = 1;
  uint8_t reserved[7] = {};
  uint64_t barrier = 0;
  uint64_t round = 0;
};
static_assert(sizeof(LastRound) == 24);

struct Formed {
  uint64_t barrier = 0;  // the forming node, and a number that it counts up
  uint64_t members_here = 0;
};

Error member_gone(std::string_view what) {
  return errno_error(std::string(what), EOWNERDEAD);
}

}  // namespace

struct ClientBarriers::Impl {
  struct Member {
    std::string name;
    uint64_t members = 0;
    uint64_t barrier = 0;  // 0: joining
    uint64_t rounds = 0;   // that it has come to
    Done done;             // what it waits for
    EventLoop::Timer retry;
  };
  // A barrier, as this node sees it. Word of others may come before the word that it was formed.
  struct Barrier {
    std::vector<NodeId> nodes;  // none: not formed yet
    size_t place = 0;           // of this node among them
    unsigned steps = 0;         // of a round
    uint64_t members_here = 0, joined = 0, arrived = 0;
    std::set<uint64_t> members;
    uint64_t rounds = 0;   // that are over here
    bool entered = false;  // all members here have come to the next one
    unsigned step = 0;
    std::array<uint64_t, kMaxSteps> heard{};  // rounds, by step
    uint64_t last_round = kAllRounds;
  };
  struct Joining {
    NodeId node;
    uint64_t member;
    Messenger::Reply reply;
  };
  struct Forming {
    uint64_t members = 0;
    std::vector<Joining> joined;
  };

  Messenger& messenger;
  std::weak_ptr<Impl> self;
  std::unordered_map<uint64_t, Member> members;
  std::unordered_map<uint64_t, Barrier> barriers;
  std::map<std::string, Forming, std::less<>> forming;
  std::map<uint64_t, uint64_t> newest;  // barrier that was formed, by the node that formed it
  uint64_t next_member = 1, next_barrier = 1;

  explicit Impl(Messenger& m) : messenger(m) {}

  NodeId former() const {
    for (uint16_t node = 0; node < messenger.node_count(); ++node)
      if (!messenger.is_failed(NodeId{node})) return NodeId{node};
    return messenger.self();
  }

  // ---- joining: the member's side

  void ask(uint64_t member) {
    auto found = members.find(member);
    if (found == members.end()) return;
    const JoinBarrier request{.members = static_cast<uint32_t>(found->second.members),
                              .member = member};
    messenger.request(former(), request, found->second.name,
                      [weak = self, member](Result<std::string> reply) {
                        if (auto impl = weak.lock()) impl->answered(member, std::move(reply));
                      });
  }

  void answered(uint64_t member, Result<std::string> reply) {
    if (reply) return formed(member, *reply);
    auto found = members.find(member);
    if (found == members.end()) return;
    const int number = reply.error().errno_or(0);
    if (number == EAGAIN) {  // it does not know yet that it is the lowest living one
      found->second.retry = messenger.loop().after(kRetryDelay, [weak = self, member] {
        if (auto impl = weak.lock()) impl->ask(member);
      });
      return;
    }
    const Done done = std::move(found->second.done);
    members.erase(found);
    // Some may have been told that it was formed: so it has to be joined anew by all.
    done(number == EHOSTDOWN ? member_gone("the node that forms the barrier") : reply.error());
  }

  void formed(uint64_t member, std::string_view reply) {
    Formed formed;
    std::memcpy(&formed, reply.data(), sizeof formed);
    reply.remove_prefix(sizeof formed);
    Barrier& barrier = barriers[formed.barrier];
    if (barrier.nodes.empty()) {
      newest[formed.barrier >> kNodeShift] = formed.barrier;
      barrier.nodes.resize(reply.size() / sizeof(NodeId));
      std::memcpy(barrier.nodes.data(), reply.data(), reply.size());
      barrier.place = static_cast<size_t>(std::ranges::find(barrier.nodes, messenger.self()) -
                                          barrier.nodes.begin());
      barrier.steps = static_cast<unsigned>(std::bit_width(barrier.nodes.size() - 1));
      barrier.members_here = formed.members_here;
      if (std::ranges::any_of(barrier.nodes, [this](NodeId n) { return messenger.is_failed(n); }))
        barrier.last_round = 0;
    }
    ++barrier.joined;
    auto found = members.find(member);
    if (found == members.end()) {  // it has gone meanwhile
      end_after(formed.barrier, 0, true);
      return forget_unused(formed.barrier);
    }
    barrier.members.insert(member);
    found->second.barrier = formed.barrier;
    std::exchange(found->second.done, nullptr)({});
  }

  // ---- joining: the forming node's side

  void join_here(NodeId from, const JoinBarrier& request, std::string_view name,
                 Messenger::Reply reply) {
    if (former() != messenger.self()) return reply.fail(EAGAIN, "another node forms barriers");
    auto [found, is_new] = forming.try_emplace(std::string(name));
    Forming& barrier = found->second;
    if (is_new) barrier.members = request.members;
    if (barrier.members != request.members)
      return reply.fail(EINVAL, fmt::format("barrier {} is joined by {}", name, barrier.members));
    barrier.joined.push_back({from, request.member, std::move(reply)});
    if (barrier.joined.size() < barrier.members) return;
    Forming complete = std::move(barrier);
    forming.erase(found);
    form(complete);
  }

  void form(Forming& complete) {
    std::map<NodeId, uint64_t> counts;
    for (const Joining& joining : complete.joined) ++counts[joining.node];
    std::vector<NodeId> nodes;
    for (const auto& [node, count] : counts) nodes.push_back(node);
    const uint64_t id = uint64_t{messenger.self().value} << kNodeShift | next_barrier++;
    for (Joining& joining : complete.joined) {
      const Formed formed{id, counts[joining.node]};
      std::string payload(reinterpret_cast<const char*>(&formed), sizeof formed);
      payload.append(reinterpret_cast<const char*>(nodes.data()), nodes.size() * sizeof(NodeId));
      joining.reply.ok(payload);
    }
  }

  // Nobody waits to join with one that has gone.
  template <class IsGone>
  void give_up_forming(IsGone is_gone) {
    for (auto it = forming.begin(); it != forming.end();) {
      if (std::ranges::none_of(it->second.joined, is_gone)) {
        ++it;
        continue;
      }
      Forming given_up = std::move(it->second);
      it = forming.erase(it);
      for (Joining& joining : given_up.joined)
        joining.reply.fail(member_gone("one that had joined the barrier"));
    }
  }

  // ---- rounds

  // A barrier that another node speaks of; none when all members here have gone.
  Barrier* heard_of(uint64_t id) {
    if (auto found = barriers.find(id); found != barriers.end()) return &found->second;
    const auto known = newest.find(id >> kNodeShift);
    if (known != newest.end() && id <= known->second) return nullptr;
    return &barriers[id];
  }

  void tell_step(uint64_t id, const Barrier& barrier) {
    if (barrier.step >= barrier.steps) return;
    const size_t to = (barrier.place + (size_t{1} << barrier.step)) % barrier.nodes.size();
    // One that has died is found dead: the barrier ends then.
    messenger
        .send(barrier.nodes[to],
              BarrierStep{.step = static_cast<uint8_t>(barrier.step), .barrier = id})
        .has_value();
  }

  void arrive(uint64_t id, Barrier& barrier) {
    if (++barrier.arrived < barrier.members_here) return;
    barrier.entered = true;
    barrier.step = 0;
    tell_step(id, barrier);
    advance(id, barrier);
  }

  // Callbacks run at its end: the barrier may be gone afterwards.
  void advance(uint64_t id, Barrier& barrier) {
    if (!barrier.entered) return;
    while (barrier.step < barrier.steps && barrier.heard[barrier.step] > barrier.rounds) {
      ++barrier.step;
      tell_step(id, barrier);
    }
    if (barrier.step < barrier.steps) return;
    barrier.entered = false;
    barrier.arrived = 0;
    ++barrier.rounds;
    std::vector<Done> over;
    for (uint64_t member : barrier.members) over.push_back(std::move(members[member].done));
    forget_unused(id);
    for (const Done& done : over)
      if (done) done({});
  }

  void end_after(uint64_t id, uint64_t round, bool tell) {
    Barrier& barrier = barriers.at(id);
    if (round >= barrier.last_round) return;
    barrier.last_round = round;
    if (tell)
      for (const NodeId node : barrier.nodes)
        if (node != messenger.self())
          messenger.send(node, LastRound{.barrier = id, .round = round}).has_value();
    std::vector<Done> failed;
    for (uint64_t id_of_member : barrier.members) {
      Member& member = members[id_of_member];
      if (member.done && member.rounds > round) failed.push_back(std::exchange(member.done, {}));
    }
    for (const Done& done : failed) done(member_gone("a member of the barrier"));
  }

  // Nobody here has it, and nobody elsewhere waits for what this node has still to pass on.
  void forget_unused(uint64_t id) {
    auto found = barriers.find(id);
    if (found == barriers.end()) return;
    const Barrier& barrier = found->second;
    const bool passes_on = barrier.entered && barrier.rounds < barrier.last_round;
    if (!barrier.nodes.empty() && barrier.joined == barrier.members_here &&
        barrier.members.empty() && !passes_on)
      barriers.erase(found);
  }

  void node_died(NodeId dead) {
    give_up_forming([dead](const Joining& joining) { return joining.node == dead; });
    std::vector<uint64_t> ended;
    for (auto& [id, barrier] : barriers) {
      // Until a first round is over, some may not have heard that it was formed, and never will.
      const bool formed_by_it = id >> kNodeShift == dead.value && barrier.rounds == 0;
      if (formed_by_it || std::ranges::find(barrier.nodes, dead) != barrier.nodes.end())
        ended.push_back(id);
    }
    for (uint64_t id : ended) {
      if (!barriers.contains(id)) continue;  // what another one's members did when they heard of it
      if (barriers[id].nodes.empty()) {
        barriers.erase(id);
        continue;
      }
      end_after(id, barriers[id].rounds, false);
      forget_unused(id);
    }
  }
};

ClientBarriers::ClientBarriers(Messenger& messenger) : impl_(std::make_shared<Impl>(messenger)) {
  impl_->self = impl_;
  const auto weak = impl_->self;
  messenger.on_request<JoinBarrier>([weak](NodeId from, const JoinBarrier& request,
                                           std::string_view name, Messenger::Reply reply) {
    if (auto impl = weak.lock()) impl->join_here(from, request, name, std::move(reply));
  });
  messenger.on<WithdrawFromBarrier>(
      [weak](NodeId from, const WithdrawFromBarrier& withdrawn, std::string_view) {
        if (auto impl = weak.lock())
          impl->give_up_forming([&](const Impl::Joining& joining) {
            return joining.node == from && joining.member == withdrawn.member;
          });
      });
  messenger.on<BarrierStep>([weak](NodeId, const BarrierStep& step, std::string_view) {
    auto impl = weak.lock();
    auto* barrier = impl ? impl->heard_of(step.barrier) : nullptr;
    if (!barrier || step.step >= kMaxSteps) return;
    ++barrier->heard[step.step];
    impl->advance(step.barrier, *barrier);
  });
  messenger.on<LastRound>([weak](NodeId, const LastRound& last, std::string_view) {
    auto impl = weak.lock();
    if (!impl || !impl->heard_of(last.barrier)) return;
    impl->end_after(last.barrier, last.round, false);
    impl->forget_unused(last.barrier);
  });
  messenger.on_peer_failure([weak](NodeId dead) {
    if (auto impl = weak.lock()) impl->node_died(dead);
  });
}
ClientBarriers::~ClientBarriers() = default;

uint64_t ClientBarriers::join(std::string_view name, uint64_t members, Done done) {
  const uint64_t id = impl_->next_member++;
  if (name.empty() || name.size() > kMaxSetNameBytes || members == 0 ||
      members > kMaxBarrierMembers) {
    impl_->messenger.loop().post([done = std::move(done)] {
      done(errno_error(fmt::format("a barrier's name has 1 to {} bytes, and it 1 to {} members",
                                   kMaxSetNameBytes, kMaxBarrierMembers),
                       EINVAL));
    });
    return id;
  }
  Impl::Member& member = impl_->members[id];
  member.name = name;
  member.members = members;
  member.done = std::move(done);
  impl_->ask(id);
  return id;
}

void ClientBarriers::wait(uint64_t id, Done done) {
  auto found = impl_->members.find(id);
  if (found == impl_->members.end() || found->second.barrier == 0)
    return done(errno_error("a barrier that was not joined", EINVAL));
  Impl::Member& member = found->second;
  if (member.done) return done(errno_error("the barrier's member, which waits already", EBUSY));
  Impl::Barrier& barrier = impl_->barriers.at(member.barrier);
  if (member.rounds >= barrier.last_round) return done(member_gone("a member of the barrier"));
  ++member.rounds;
  member.done = std::move(done);
  impl_->arrive(member.barrier, barrier);
}

void ClientBarriers::leave(uint64_t id) {
  auto gone = impl_->members.extract(id);
  if (gone.empty()) return;
  const Impl::Member& member = gone.mapped();
  if (member.barrier == 0) {
    impl_->messenger.send(impl_->former(), WithdrawFromBarrier{.member = id}, member.name)
        .has_value();
    return;
  }
  impl_->barriers.at(member.barrier).members.erase(id);
  impl_->end_after(member.barrier, member.rounds, true);
  impl_->forget_unused(member.barrier);
}

}  // namespace krg
