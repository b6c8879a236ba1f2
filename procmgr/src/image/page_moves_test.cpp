// SPDX-License-Identifier: GPL-2.0-or-later

#include "krg/procmgr/page_moves.h"

#include <stdlib.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "krg/procmgr/syscall_filter.h"
#include "testing/filtered_child.h"
#include "testing/page_move_fixture.h"

namespace krg {
namespace {

// Pages that come before the process runs.
class PagesBefore : public testing::PageMoveFixture {};

TEST_F(PagesBefore, AllAreThereWhenItMayRun) {
  start_source([&] {
    fill(0, 700);
    fill(900, 100);
    last_word(page(750)) = 0;  // a page of zeros that was written
  });
  start_target([&] { return has(0, 700) && is_zero(700, 200) && has(900, 100) ? 0 : 1; });
  begin_move(Userfault::kNo);
  let_target_run();
  expect_all_here();
  EXPECT_EQ(exit_code(target_), 0);
}

TEST_F(PagesBefore, WhateverTheMappingAllows) {
  const auto protect = [&] {
    mprotect(page(0), 10 * kPage, PROT_READ);
    mprotect(page(10), 10 * kPage, PROT_NONE);
  };
  start_source([&] {
    fill(0, 30);
    protect();
  });
  start_target(
      [&] {
        mprotect(page(10), 10 * kPage, PROT_READ);
        return has(0, 30) ? 0 : 1;
      },
      protect);
  begin_move(Userfault::kNo);
  let_target_run();
  EXPECT_EQ(exit_code(target_), 0);
}

TEST_F(PagesBefore, NothingToMove) {
  start_source([] {});
  start_target([] { return 0; });
  begin_move();
  let_target_run();
  expect_all_here();
  EXPECT_EQ(exit_code(target_), 0);
}

TEST_F(PagesBefore, WrittenPagesOfFiles) {
  char name[] = "/tmp/page_moves_XXXXXX";
  UniqueFd file(mkstemp(name));
  const std::string text(20 * kPage, 'f');
  ASSERT_EQ(write(file.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  const auto map_file = [&] {
    mmap(page(0), 20 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file.get(), 0);
  };
  start_source([&] {
    map_file();
    fill(3, 5);
    memset(page(10), 0, kPage);
    fill(100, 900);
  });
  start_target(
      [&] { return has(3, 5) && *page(9) == 'f' && is_zero(10, 1) && has(100, 900) ? 0 : 1; },
      map_file);
  begin_move();
  let_target_run();
  EXPECT_EQ(exit_code(target_), 0);
  unlink(name);  // a deleted one's pages all go along
}

TEST_F(PagesBefore, TheSourceDies) {
  reserve(8192);  // more than is under way at a time
  start_source([&] { fill(0, pages_); });
  start_target([] { return 0; });
  hold_pages();
  begin_move(Userfault::kNo);
  run_a_while();
  kill(source_, SIGKILL);
  ASSERT_TRUE(run_until([&] { return served_.has_value(); }));
  EXPECT_EQ(served_->error().errno_or(0), ESRCH);
  release_pages();
  ASSERT_TRUE(run_until([&] { return may_run_.has_value(); }));
  EXPECT_FALSE(*may_run_);
  EXPECT_FALSE(all_here_.has_value());
}

TEST_F(PagesBefore, TheMoveIsAbandoned) {
  reserve(8192);
  start_source([&] { fill(0, pages_); });
  start_target([] { return 0; });
  hold_pages();
  begin_move(Userfault::kNo);
  run_a_while();
  at_source_.abandon(move_);
  release_pages();
  ASSERT_TRUE(run_until([&] { return may_run_.has_value(); }));
  EXPECT_EQ(may_run_->error().errno_or(0), ECANCELED);
  EXPECT_FALSE(served_.has_value());
}

TEST_F(PagesBefore, NobodyServesThem) {
  start_source([&] { fill(0, 10); });
  start_target([] { return 0; });
  at_target_.receive({.source = kSource,
                      .move = 4711,
                      .pid = target_,
                      .ranges = ranges_,
                      .may_run = [this](Status may) { may_run_ = std::move(may); },
                      .all_here = {}});
  ASSERT_TRUE(run_until([&] { return may_run_.has_value(); }));
  EXPECT_EQ(may_run_->error().errno_or(0), ESRCH);
}

// Pages that come while the process runs. GetParam(): whether workers copy them.
class PagesLater : public testing::LaterPagesFixture, public ::testing::WithParamInterface<bool> {
 protected:
  PagesLater() : LaterPagesFixture(GetParam()) {}
};

TEST_P(PagesLater, ComeInTheBackground) {
  start_both();
  begin_move();
  let_target_run();
  await_meeting();
  expect_all_here();
  go_on();
  EXPECT_EQ(exit_code(target_), 0);
}

TEST_P(PagesLater, ComeWhereTheyAreTouched) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    std::vector<size_t> order(pages_);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(5));
    for (size_t i : order)
      if (!has(i, 1)) return 1;
    return 0;
  });
  begin_move();
  let_target_run();
  EXPECT_EQ(exit_code(target_), 0);
  expect_all_here();
}

TEST_P(PagesLater, ComeWhereSystemCallsTouchThem) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    int ends[2];
    if (pipe(ends) != 0) return 2;
    for (size_t i = pages_; i-- > 0;) {
      uint64_t word = 0;
      if (write(ends[1], page(i), 8) != 8 || read(ends[0], &word, 8) != 8 || word != word_of(i))
        return 1;
    }
    return 0;
  });
  begin_move();
  let_target_run();
  EXPECT_EQ(exit_code(target_), 0);
  expect_all_here();
}

TEST_P(PagesLater, ComeInRunsOfTouches) {
  reserve(8192);
  start_source([&] { fill(0, pages_); });
  start_target([&] { return has(0, pages_) ? 0 : 1; });
  begin_move();
  let_target_run();
  EXPECT_EQ(exit_code(target_), 0);
  expect_all_here();
}

TEST_P(PagesLater, ZerosAreToldAndUntouchedMemoryIsZeros) {
  start_source([&] {
    fill(0, 100);
    for (size_t i = 100; i < 600; ++i) *page(i) = 0;
    fill(700, 50);
  });
  start_target([&] { return is_zero(100, 600) && has(0, 100) && has(700, 50) ? 0 : 1; });
  begin_move();
  let_target_run();
  EXPECT_EQ(exit_code(target_), 0);
  expect_all_here();
}

TEST_P(PagesLater, NothingDependsOnTheSourceAfterwards) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    meet();
    madvise(page(0), 10 * kPage, MADV_DONTNEED);
    return is_zero(0, 10) && has(10, 100) ? 0 : 1;
  });
  begin_move();
  let_target_run();
  await_meeting();
  expect_all_here();
  EXPECT_EQ(kill(source_, SIGKILL), 0);
  nodes_.fabric().kill(kSource, LoopbackFabric::Death::kNoticed);
  go_on();
  // The loop does not run: nobody serves anything.
  int status = -1;
  EXPECT_EQ(waitpid(target_, &status, 0), target_);
  EXPECT_EQ(status, 0);
}

TEST_P(PagesLater, HugePagesBecomeHugeAgain) {
  constexpr size_t kHuge = 512;  // pages
  constexpr int kCollapse = 25;  // MADV_COLLAPSE
  reserve(4 * kHuge);
  const size_t first = kHuge - reinterpret_cast<uint64_t>(memory_) / kPage % kHuge;
  start_source([&] {
    madvise(memory_, pages_ * kPage, MADV_HUGEPAGE);
    fill(first, 2 * kHuge);
    madvise(page(first), 2 * kHuge * kPage, kCollapse);
  });
  start_target([&] {
    meet();
    return has(first, 2 * kHuge) ? 0 : 1;
  });
  begin_move();
  let_target_run();
  await_meeting();
  expect_all_here();
  // The kernel may have had no huge pages; then it has none for the target either.
  const auto is_huge = [](const PageRange& range) { return range.is_huge != 0; };
  if (std::ranges::all_of(ranges_, is_huge)) {
    EXPECT_TRUE(run_until([&] {
      auto ranges = content_ranges(target_);
      return ranges && std::ranges::any_of(*ranges, is_huge);
    }));
  }
  go_on();
  EXPECT_EQ(exit_code(target_), 0);
}

TEST_P(PagesLater, ManyPiecesApart) {
  reserve(37'000);
  start_source([&] {
    for (size_t i = 0; i < pages_; i += 37) fill(i, 1 + i % 5);
  });
  start_target([&] {
    for (size_t i = 0; i < pages_; i += 37)
      if (!has(i, 1 + i % 5) || !is_zero(i + 6, 20)) return 1;
    return 0;
  });
  begin_move();
  let_target_run();
  EXPECT_EQ(exit_code(target_), 0);
  expect_all_here();
}

TEST_P(PagesLater, WrittenPagesAreNotOverwritten) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    for (size_t i = 0; i < pages_; i += 3) first_word(page(i)) = last_word(page(i)) = i;
    meet();
    for (size_t i = 0; i < pages_; ++i)
      if (i % 3 == 0 ? first_word(page(i)) != i : !has(i, 1)) return 1;
    return 0;
  });
  begin_move();
  let_target_run();
  await_meeting();
  expect_all_here();
  go_on();
  EXPECT_EQ(exit_code(target_), 0);
}

// --- the process changes its memory meanwhile ---------------------------------------------------

TEST_P(PagesLater, ItUnmapsSome) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    munmap(page(100), 200 * kPage);
    munmap(page(1000), 24 * kPage);
    map_anew(page(150), 50 * kPage);
    meet();
    return has(0, 100) && has(300, 700) && is_zero(150, 50) ? 0 : 1;
  });
  expect_success();
}

TEST_P(PagesLater, ItDropsSome) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    madvise(page(100), 200 * kPage, MADV_DONTNEED);
    meet();
    return has(0, 100) && is_zero(100, 200) && has(300, pages_ - 300) ? 0 : 1;
  });
  expect_success();
}

TEST_P(PagesLater, ItMovesSome) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    void* place = mmap(nullptr, 500 * kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    auto* moved = static_cast<char*>(
        mremap(page(100), 200 * kPage, 300 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, place));
    if (moved != place) return 2;
    // Other pages come to where these were.
    if (mremap(page(600), 100 * kPage, 100 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, page(100)) !=
        page(100))
      return 3;
    meet();
    if (!has(0, 100) || !has(100, 200, moved) || !has(600, 100, page(100))) return 1;
    if (first_word(moved + 250 * kPage) != 0) return 4;
    return has(300, 300) && has(700, pages_ - 700) ? 0 : 1;
  });
  expect_success();
}

TEST_P(PagesLater, ItSwapsPiecesAllTheWhile) {
  static constexpr size_t kBytes = 512 * kPage, kRounds = 80;  // each swap twice
  reserve(8192);
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    void* aside = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const auto move = [](void* from, void* to) {
      return mremap(from, kBytes, kBytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
    };
    char* last = page(pages_) - kBytes;
    for (size_t round = 0; round < kRounds; ++round) {
      char* piece = page(0) + round / 2 * kBytes % (pages_ * kPage - kBytes);
      if (!move(piece, aside) || !move(last, piece) || !move(aside, last)) return 2;
    }
    meet();
    return has(0, pages_) ? 0 : 1;
  });
  expect_success();
}

TEST_P(PagesLater, ItSplitsMappings) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    for (size_t i = 1; i < pages_; i += 7) mprotect(page(i), kPage, PROT_READ);
    meet();
    return has(0, pages_) ? 0 : 1;
  });
  expect_success();
}

TEST_P(PagesLater, ItForks) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    const pid_t child = fork();
    if (child == 0) {
      const pid_t grandchild = fork();
      if (grandchild == 0) return has(0, pages_) ? 0 : 1;
      first_word(page(5)) = 5;
      int status = -1;
      waitpid(grandchild, &status, 0);
      return status == 0 && has(6, pages_ - 6) && first_word(page(5)) == 5 ? 0 : 1;
    }
    madvise(page(20), 20 * kPage, MADV_DONTNEED);
    meet();
    int status = -1;
    waitpid(child, &status, 0);
    return status == 0 && has(0, 20) && is_zero(20, 20) && has(40, pages_ - 40) ? 0 : 1;
  });
  expect_success();
}

TEST_P(PagesLater, ItEndsWhileItsChildWaits) {
  start_source([&] { fill(0, pages_); });
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  start_target([&] {
    if (fork() == 0) {
      const char answer = has(0, pages_) ? 'y' : 'n';
      return write(ends[1], &answer, 1) == 1 ? 0 : 1;
    }
    return 0;
  });
  hold_pages();
  begin_move();
  let_target_run();
  EXPECT_EQ(exit_code(target_), 0);
  release_pages();
  expect_all_here();
  char answer = 0;
  EXPECT_EQ(read(ends[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  close(ends[0]);
  close(ends[1]);
}

TEST_P(PagesLater, ItUnmapsEverything) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    munmap(memory_, pages_ * kPage);
    meet();
    return 0;
  });
  expect_success();
}

TEST_P(PagesLater, ItExecs) {
  start_source([&] { fill(0, pages_); });
  start_target([&] { return execl("/bin/true", "true", nullptr); });
  hold_pages();
  begin_move();
  let_target_run();
  EXPECT_EQ(exit_code(target_), 0);
  release_pages();
  expect_all_here();
}

// --- ends ---------------------------------------------------------------------------------------

TEST_P(PagesLater, ItsEndFreesTheSource) {
  start_source([&] { fill(0, pages_); });
  start_target([&] { return has(pages_ - 1, 1) ? 3 : 1; });
  begin_move();
  let_target_run();
  EXPECT_EQ(exit_code(target_), 3);
  expect_all_here();
}

TEST_P(PagesLater, ItIsKilledWhileItWaitsForAPage) {
  start_source([&] { fill(0, pages_); });
  start_target([&] { return has(0, pages_) ? 0 : 1; });
  hold_pages();
  begin_move();
  let_target_run();
  run_a_while();
  kill(target_, SIGKILL);
  EXPECT_EQ(exit_code(target_), 128 + SIGKILL);
  release_pages();
  expect_all_here();
}

TEST_P(PagesLater, TheDeathOfTheSourceKillsIt) {
  reserve(8192);  // more than is under way at a time
  start_both();
  hold_pages();
  begin_move();
  let_target_run();
  await_meeting();
  kill(source_, SIGKILL);
  ASSERT_TRUE(run_until([&] { return served_.has_value(); }));
  EXPECT_EQ(served_->error().errno_or(0), ESRCH);
  release_pages();
  EXPECT_EQ(exit_code(target_), 128 + SIGKILL);
  ASSERT_TRUE(run_until([&] { return all_here_.has_value(); }));
  EXPECT_FALSE(*all_here_);
}

TEST_P(PagesLater, TheDeathOfTheSourceIsSigbusToChildren) {
  reserve(8192);
  start_source([&] { fill(0, pages_); });
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  start_target([&] {
    if (fork() == 0) {
      static int answer_to;
      answer_to = ends[1];
      signal(SIGBUS, [](int) {
        const char answer = 'b';
        _exit(write(answer_to, &answer, 1) == 1 ? 0 : 1);
      });
      return has(0, pages_) ? 0 : 1;
    }
    meet();
    return 0;
  });
  hold_pages();
  begin_move();
  let_target_run();
  await_meeting();
  kill(source_, SIGKILL);
  ASSERT_TRUE(run_until([&] { return served_.has_value(); }));
  release_pages();
  EXPECT_EQ(exit_code(target_), 128 + SIGKILL);
  char answer = 0;
  EXPECT_EQ(read(ends[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'b');
  close(ends[0]);
  close(ends[1]);
}

TEST_P(PagesLater, TheFailureOfItsNodeFreesTheSource) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    meet();
    return 0;
  });
  hold_pages();
  begin_move();
  let_target_run();
  await_meeting();
  nodes_.fabric().kill(kTarget, LoopbackFabric::Death::kNoticed);
  ASSERT_TRUE(run_until([&] { return served_.has_value(); }));
  EXPECT_EQ(served_->error().errno_or(0), EHOSTDOWN);
}

TEST_P(PagesLater, TheFailureOfTheSourcesNodeKillsIt) {
  reserve(8192);
  start_source([&] { fill(0, pages_); });
  start_target([&] { return has(0, pages_) ? 0 : 1; });
  hold_pages();
  begin_move();
  let_target_run();
  run_a_while();
  nodes_.fabric().kill(kSource, LoopbackFabric::Death::kNoticed);
  EXPECT_EQ(exit_code(target_), 128 + SIGKILL);
  ASSERT_TRUE(run_until([&] { return all_here_.has_value(); }));
  EXPECT_FALSE(*all_here_);
}

TEST_P(PagesLater, WhatIsToComeIsTold) {
  start_source([&] { fill(0, 100); });
  start_target([&] {
    meet();
    return 0;
  });
  hold_pages();
  begin_move();
  let_target_run();
  await_meeting();
  const auto address = RemoteAddr{reinterpret_cast<uint64_t>(page(99))};
  EXPECT_TRUE(at_target_.awaits(target_, address + 100, 8));
  EXPECT_TRUE(at_target_.awaits(target_, RemoteAddr{address.value - 100}, 200));
  EXPECT_FALSE(at_target_.awaits(target_, address + kPage, 8));
  EXPECT_FALSE(at_target_.awaits(getpid(), address, 8));
  EXPECT_TRUE(at_target_.is_receiving(target_));
  EXPECT_FALSE(at_target_.is_receiving(getpid()));
  release_pages();
  expect_all_here();
  EXPECT_FALSE(at_target_.is_receiving(target_));
  EXPECT_FALSE(at_target_.awaits(target_, address + 100, 8));
  go_on();
  EXPECT_EQ(exit_code(target_), 0);
}

TEST_P(PagesLater, CallsThatWeAnswerWaitForTheirArguments) {
  start_source([&] { fill(0, pages_); });
  start_target([&] {
    auto listener = install_syscall_filter({testing::range_of(getpid())});
    if (!listener) return 2;
    hand_over(listener->get());
    listener->reset();
    return static_cast<int>(syscall(SYS_semop, 1, page(500), 1));
  });
  uint64_t seen = 0;
  bool could_read = false;
  target_calls_.set_handler(SYS_semop, [&](SyscallBroker::Call call) {
    auto argument = call.read_memory(RemoteAddr{call.arg(1)}, 8);
    could_read = argument.has_value();
    if (argument) std::memcpy(&seen, argument->data(), sizeof seen);
    call.succeed(7);
  });
  hold_pages();
  begin_move();
  let_target_run();
  ASSERT_TRUE(target_calls_.add_listener(take_fd()));
  go_on();
  run_a_while();
  release_pages();
  EXPECT_EQ(exit_code(target_), 7);
  EXPECT_TRUE(could_read);
  EXPECT_EQ(seen, word_of(500));
  expect_all_here();
}

INSTANTIATE_TEST_SUITE_P(CopiedByWorkers, PagesLater, ::testing::Bool());

}  // namespace
}  // namespace krg
