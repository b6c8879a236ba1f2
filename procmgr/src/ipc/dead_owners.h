// DeadOwners: frees robust mutexes in shared memory whose owner has died. The kernel does that
// itself where it can: it walks the dying thread's list and marks the words (FUTEX_OWNER_DIED). It
// leaves out words whose page lies on another node by then, as that of a mutex somebody waits for
// does. So a waiter's node asks whether the owner that the word names still lives, and if not marks
// the word and wakes a waiter, as the kernel would have. The home lets one node do that.
//
// Threads: the loop's thread; words are read and written by workers, since their page may have to
// come from another node. Owned by FutexCalls. Source: kernel documentation, robust-futex-ABI;
// get_robust_list(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <map>
#include <optional>

#include "alive.h"
#include "krg/procmgr/node_context.h"
#include "krg/procmgr/shared_memory.h"

namespace krg {

class DeadOwners {
 public:
  explicit DeadOwners(NodeContext& node);
  DeadOwners(const DeadOwners&) = delete;
  DeadOwners& operator=(const DeadOwners&) = delete;

  // `word` is what thread `waiter` of this node has been waiting at `address` for a while with.
  void check_owner(const SharedPlace& place, pid_t waiter, RemoteAddr address, uint32_t word);
  // One of those who wait for a word, wherever it is.
  void wake_one(const SharedPlace& place);

 private:
  using Clock = std::chrono::steady_clock;
  using Word = std::pair<SharedPlace, uint32_t>;
  void ask_owners_node(const Word& word, std::function<void()> owner_is_dead);
  void claim(const Word& word, std::function<void()> claimed);
  bool may_claim(const Word& word);

  NodeContext& node_;
  std::map<Word, Clock::time_point> claims_;  // at the home
  Alive alive_;
};

// One word of a thread's memory; nothing where it cannot be read or written. Any thread.
std::optional<uint32_t> read_word_of(pid_t tid, RemoteAddr address);
bool write_word_of(pid_t tid, RemoteAddr address, uint32_t word);

}  // namespace krg
