// SPDX-License-Identifier: GPL-2.0-or-later
#include "dead_owners.h"

#include <linux/futex.h>

#include "futex_messages.h"
#include "in_worker.h"
#include "ipc_home.h"
#include "krg/runtime/log.h"
#include "process_memory.h"
#include "process_status.h"

namespace krg {
namespace {

using namespace futex_messages;

// A node that has claimed a word marks it at once, or never (its waiter was killed).
constexpr auto kClaimTime = std::chrono::seconds(5);

pid_t owner_of(uint32_t word) {
  return static_cast<pid_t>(word & FUTEX_TID_MASK);
}
// Of a robust mutex that is locked and waited for.
bool may_have_owner(uint32_t word) {
  return (word & FUTEX_WAITERS) != 0 && (word & FUTEX_OWNER_DIED) == 0 && owner_of(word) > 1;
}

bool lives_here(pid_t tid) {
  auto status = read_process_status(tid);
  return status && !status->is_zombie();
}

bool is_yes(const Result<std::string>& answer) {
  return answer && *answer == std::string(1, '\1');
}
void answer(Messenger::Reply& reply, bool yes) {
  reply.ok({yes ? "\1" : "\0", 1});
}

bool mark(pid_t waiter, RemoteAddr address, uint32_t word) {
  return read_word_of(waiter, address) == word &&
         write_word_of(waiter, address, (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED);
}

}  // namespace

std::optional<uint32_t> read_word_of(pid_t tid, RemoteAddr address) {
  uint32_t word;
  if (!read_process_memory(tid, address, {reinterpret_cast<char*>(&word), sizeof word}))
    return std::nullopt;
  return word;
}

bool write_word_of(pid_t tid, RemoteAddr address, uint32_t word) {
  return static_cast<bool>(
      write_process_memory(tid, address, {reinterpret_cast<const char*>(&word), sizeof word}));
}

DeadOwners::DeadOwners(NodeContext& node) : node_(node) {
  node.messenger.on_request<AskAlive>(
      [](NodeId, const AskAlive& message, std::string_view, Messenger::Reply reply) {
        answer(reply, lives_here(message.tid));
      });
  node.messenger.on_request<ClaimWord>(
      [this](NodeId, const ClaimWord& message, std::string_view, Messenger::Reply reply) {
        answer(reply, may_claim({message.place.value(), message.word}));
      });
}

bool DeadOwners::may_claim(const Word& word) {
  const auto now = Clock::now();
  std::erase_if(claims_, [&](const auto& claim) { return now - claim.second > kClaimTime; });
  return claims_.emplace(word, now).second;
}

void DeadOwners::check_owner(const SharedPlace& place, pid_t waiter, RemoteAddr address,
                             uint32_t word) {
  if (!may_have_owner(word)) return;
  const Word what{place, word};
  ask_owners_node(what, [this, what, waiter, address] {
    claim(what, [this, what, waiter, address] {
      log_info("ipc", "thread {} died with a mutex: its next owner is told", owner_of(what.second));
      in_worker(
          node_.workers, [waiter, address, what] { return mark(waiter, address, what.second); },
          std::function<void(bool)>(alive_.guard([this, what](bool marked) {
            if (marked) wake_one(what.first);
          })));
    });
  });
}

// The node that the thread's number belongs to has the thread, or the shadow of its process. A
// thread of a node that failed is dead.
void DeadOwners::ask_owners_node(const Word& word, std::function<void()> owner_is_dead) {
  const NodeId origin = node_.pids.origin(GlobalPid{owner_of(word.second)});
  if (origin.value >= node_.node_count) return;  // that is no thread of ours
  if (node_.messenger.is_failed(origin)) return owner_is_dead();
  AskAlive message;
  message.tid = owner_of(word.second);
  node_.messenger.request(
      origin, message, {},
      alive_.guard([owner_is_dead = std::move(owner_is_dead)](const Result<std::string>& answer) {
        if (answer && !is_yes(answer)) owner_is_dead();
      }));
}

void DeadOwners::claim(const Word& word, std::function<void()> claimed) {
  ClaimWord message;
  message.place = Place::of(word.first);
  message.word = word.second;
  node_.messenger.request(
      ipc_home(node_.messenger), message, {},
      alive_.guard([claimed = std::move(claimed)](const Result<std::string>& answer) {
        if (is_yes(answer)) claimed();
      }));
}

void DeadOwners::wake_one(const SharedPlace& place) {
  WakeWaiters message;
  message.wake = 1;
  message.place = Place::of(place);
  node_.messenger.request(ipc_home(node_.messenger), message, {},
                          [](const Result<std::string>&) {});
}

}  // namespace krg
