// SpreadProcess: robust mutexes that a thread holds when it ends. The kernel would free them, but
// does not wait for a page that is elsewhere: krgd does it before. Source: get_robust_list(2), the
// kernel's Documentation/locking/robust-futexes.rst.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "spread/spread_process.h"

namespace krg {
namespace {

constexpr unsigned kMostLocks = ROBUST_LIST_LIMIT;
constexpr uint64_t kOfPriorities = 1;  // in a link: the mutex has priority inheritance

}  // namespace

struct SpreadProcess::RobustList {
  RemoteAddr head;
  int64_t word_offset = 0;  // of a mutex's word from its link
  unsigned left = kMostLocks;
  std::function<void()> done;
};

// `done` runs when each of them has been freed, or is not in spread memory: the kernel's then.
void SpreadProcess::free_robust_mutexes(const ThreadPtr& thread, std::function<void()> done) {
  uint64_t head = 0;
  size_t bytes = 0;
  if (syscall(SYS_get_robust_list, thread->traced->tid(), &head, &bytes) != 0 || head == 0)
    return done();
  const auto offset = parts_.memory.offset_of(RemoteAddr{head}, sizeof(robust_list_head));
  if (!offset) return done();
  auto list = std::make_shared<RobustList>();
  list->head = RemoteAddr{head};
  list->done = std::move(done);
  parts_.pages->read(*offset, sizeof(robust_list_head),
                     [this, thread, list, alive = std::weak_ptr(alive_)](Result<std::string> read) {
                       if (alive.expired() || thread->is_gone) return;
                       if (!read) return list->done();
                       uint64_t words[3];  // robust_list_head, whose links are this process's
                       static_assert(sizeof words == sizeof(robust_list_head));
                       std::memcpy(words, read->data(), sizeof words);
                       list->word_offset = static_cast<int64_t>(words[1]);
                       free_robust_mutex(thread, list, words[0]);
                     });
}

void SpreadProcess::free_robust_mutex(const ThreadPtr& thread,
                                      const std::shared_ptr<RobustList>& list, uint64_t link) {
  const RemoteAddr at{link & ~kOfPriorities};
  const RemoteAddr word = at + static_cast<uint64_t>(list->word_offset);
  const auto next = parts_.memory.offset_of(at, sizeof link);
  const auto offset = parts_.memory.offset_of(word, sizeof(uint32_t));
  if (at == list->head || list->left-- == 0 || !next || !offset || word.value % 4 != 0)
    return list->done();
  parts_.pages->read(
      *next, sizeof link,
      [this, thread, list, link, word, offset = *offset,
       alive = std::weak_ptr(alive_)](const Result<std::string>& read) {
        if (alive.expired() || thread->is_gone) return;
        if (!read) return list->done();
        uint64_t following = 0;
        std::memcpy(&following, read->data(), sizeof following);
        const auto owner = static_cast<uint32_t>(thread->traced->tid());
        parts_.pages->update(
            offset,
            [owner](uint32_t old) {
              if ((old & FUTEX_TID_MASK) != owner) return old;
              return (old & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
            },
            [this, thread, list, link, word, following, owner, alive](const Result<uint32_t>& old) {
              if (alive.expired() || thread->is_gone) return;
              const bool has_waiters = old && (*old & FUTEX_TID_MASK) == owner &&
                                       (*old & FUTEX_WAITERS) && !(link & kOfPriorities);
              if (has_waiters) wake_futex(word, 1, FUTEX_BITSET_MATCH_ANY);
              free_robust_mutex(thread, list, following);
            });
      });
}

}  // namespace krg
