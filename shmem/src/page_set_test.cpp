// Programs on several nodes that share memory. SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/page_set.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <random>

#include "testing/page_programs.h"

namespace krg {
namespace {

constexpr size_t kWordsPerPage = kPageBytes / sizeof(uint64_t);

class PageSetTest : public PagePrograms {};

// Lets all `programs` go on at the same time.
void meet(Control& control, uint64_t programs) {
  ++control.words[63];
  control.await(63, programs);
}

uint64_t add(uint64_t& word, uint64_t amount) {
  return std::atomic_ref(word).fetch_add(amount);  // one lock-prefixed instruction
}

TEST_F(PageSetTest, ItMayOutliveItsKddm) {
  make(2, 4);
  kddms_.clear();
  sets_.clear();
  messengers_.clear();
}

TEST_F(PageSetTest, AtomicIncrementsFromFourNodesAreNeverLost) {
  make(4, 2, {.hold_time = std::chrono::microseconds(0)});
  constexpr uint64_t kTimes = 20'000;
  for (unsigned node = 0; node < 4; ++node)
    start(node, [this](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      meet(*control_, 4);
      for (uint64_t i = 0; i < kTimes; ++i) {
        add(memory[i % 3 == 0 ? kWordsPerPage : 8], 1);
        if (i % 64 == 0) sched_yield();
      }
      return 0;
    });
  expect_success();
  start(2, [](Program& self) {
    uint64_t* memory = self.map();
    if (!memory) return 2;
    return memory[8] + memory[kWordsPerPage] == 4 * kTimes ? 0 : 3;
  });
  expect_success();
  uint64_t faults = 0;
  for (const auto& set : sets_) faults += set->statistics().write_faults;
  EXPECT_GT(faults, 12u) << "the pages did go to and fro: each node needs two faults for itself";
}

// Each node tells of what it wrote itself; reading is none, and who goes on to own a page has to
// ask for it again.
TEST_F(PageSetTest, EachNodeKnowsWhatItWroteSinceItWasAsked) {
  make(2, 64);
  const auto run = [this](unsigned node, const std::function<void(uint64_t*)>& work) {
    start(node, [work](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      work(memory);
      return 0;
    });
    expect_success();
  };
  const auto written = [this](unsigned node) {
    std::vector<size_t> pages;
    const auto told = sets_[node]->take_written();
    EXPECT_TRUE(told);
    for (size_t page = 0; told && page < told->size(); ++page)
      if ((*told)[page]) pages.push_back(page);
    return pages;
  };
  run(0, [](uint64_t* memory) {
    for (size_t page = 0; page < 64; ++page) memory[page * kWordsPerPage] = 1;
  });
  EXPECT_FALSE(sets_[0]->take_written()) << "nobody had asked before";
  EXPECT_FALSE(sets_[1]->take_written());
  run(0, [](uint64_t* memory) {
    memory[3 * kWordsPerPage] = 2;
    memory[40 * kWordsPerPage] += memory[20 * kWordsPerPage];
  });
  run(1, [](uint64_t* memory) {
    memory[50 * kWordsPerPage] = memory[3 * kWordsPerPage];
    for (size_t page = 10; page < 20; ++page)
      if (memory[page * kWordsPerPage] != 1) memory[0] = 7;
  });
  EXPECT_EQ(written(0), (std::vector<size_t>{3, 40}));
  EXPECT_EQ(written(1), (std::vector<size_t>{50}));
  EXPECT_EQ(written(0), (std::vector<size_t>{}));
  sets_[1]->update(
      30 * kPageBytes, [](uint32_t word) { return word + 1; }, [](const auto&) {});
  sets_[1]->discard({31}, 2, [] {});
  run(0, [](uint64_t* memory) { memory[3 * kWordsPerPage] = 3; });
  EXPECT_EQ(written(0), (std::vector<size_t>{3}));
  EXPECT_EQ(written(1), (std::vector<size_t>{30, 31, 32}));
}

// A program that writes on while the others are asked: no write is in between two answers.
TEST_F(PageSetTest, AWriteIsInThisAnswerOrInTheNext) {
  make(1, 8);
  start(0, [this](Program& self) {
    auto* memory = static_cast<volatile uint64_t*>(self.map());
    if (!memory) return 2;
    for (uint64_t i = 1; control_->words[1] == 0; ++i) {
      memory[i % 8 * kWordsPerPage] = i;
      control_->words[0] = i;
    }
    return 0;
  });
  std::vector<uint64_t> seen(8);
  for (int times = 0; times < 300; ++times) {
    const uint64_t before = control_->words[0];
    while (control_->words[0] <= before + 8 && !children_.back()->ended)
      loop_->run_once(std::chrono::milliseconds(1));
    const auto told = sets_[0]->take_written();
    for (size_t page = 0; page < 8; ++page) {
      const auto bytes = kddms_[0]->find(kPages, ObjectId{page});
      uint64_t word = 0;
      if (!bytes.empty()) std::memcpy(&word, bytes.data(), sizeof word);
      if (told) {
        EXPECT_TRUE(word == seen[page] || (*told)[page]) << page;
      }
      seen[page] = word;
    }
  }
  control_->words[1] = 1;
  expect_success();
}

// Word 0 carries the message, word kWordsPerPage the flag; the answer goes beside the page set.
TEST_F(PageSetTest, WhoSeesTheFlagSeesTheMessage) {
  make(2, 2);
  constexpr uint64_t kTimes = 500;
  start(0, [this](Program& self) {
    auto* memory = static_cast<volatile uint64_t*>(self.map());
    if (!memory) return 2;
    for (uint64_t i = 1; i <= kTimes; ++i) {
      memory[0] = i;
      memory[kWordsPerPage] = i;
      control_->await(0, i);
    }
    return 0;
  });
  start(1, [this](Program& self) {
    auto* memory = static_cast<volatile uint64_t*>(self.map());
    if (!memory) return 2;
    for (uint64_t i = 1; i <= kTimes; ++i) {
      while (memory[kWordsPerPage] < i) sched_yield();
      if (memory[0] < i) return 3;
      control_->words[0] = i;
    }
    return 0;
  });
  expect_success();
  EXPECT_GT(sets_[1]->statistics().read_faults, kTimes / 4) << "the pages did go to and fro";
}

TEST_F(PageSetTest, OfTwoStoresEachBeforeALoadOneIsSeen) {
  make(2, 2);
  constexpr uint64_t kTimes = 500;
  for (unsigned node = 0; node < 2; ++node)
    start(node, [this, node](Program& self) {
      auto* memory = static_cast<volatile uint64_t*>(self.map());
      if (!memory) return 2;
      for (uint64_t i = 1; i <= kTimes; ++i) {
        control_->words[node] = i;
        control_->await(1 - node, i);
        memory[node * kWordsPerPage] = i;
        std::atomic_thread_fence(std::memory_order_seq_cst);
        const uint64_t other = memory[(1 - node) * kWordsPerPage];
        control_->words[2 + node] = other < i;  // the other's store was not seen
        control_->words[4 + node] = i;
        control_->await(5 - node, i);
        if (control_->words[2] && control_->words[3]) return 3;
        control_->words[6 + node] = i;
        control_->await(7 - node, i);
      }
      return 0;
    });
  expect_success();
}

// A lock and what it protects, all in the shared memory.
void lock(uint64_t& word) {
  std::atomic_ref lock(word);
  while (lock.exchange(1) != 0)
    while (lock.load(std::memory_order_relaxed) != 0) sched_yield();
}
void unlock(uint64_t& word) {
  std::atomic_ref(word).store(0);
}

TEST_F(PageSetTest, ASpinLockProtectsWhatItProtectsNatively) {
  make(3, 5);
  constexpr uint64_t kTimes = 3'000;
  for (unsigned node = 0; node < 3; ++node)
    start(node, [this](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      meet(*control_, 3);
      for (uint64_t i = 0; i < kTimes; ++i) {
        lock(memory[0]);
        const uint64_t before = memory[kWordsPerPage];
        if (i % 32 == 0) sched_yield();
        for (size_t page = 1; page < 5; ++page)
          if (memory[page * kWordsPerPage] != before) return 3;
        for (size_t page = 1; page < 5; ++page) memory[page * kWordsPerPage] = before + 1;
        unlock(memory[0]);
      }
      return 0;
    });
  expect_success();
  bool done = false;
  sets_[0]->read(4 * kPageBytes, 8, [&](Result<std::string> bytes) {
    ASSERT_TRUE(bytes);
    uint64_t value;
    std::memcpy(&value, bytes->data(), sizeof value);
    EXPECT_EQ(value, 3 * kTimes);
    done = true;
  });
  run_until([&] { return done; });
}

// Two programs on each of three nodes take turns at random; each word was written last by whom the
// reference says.
TEST_F(PageSetTest, RandomReadsAndWritesAgreeWithAReference) {
  constexpr unsigned kPrograms = 6, kWords = 24;
  constexpr uint64_t kSteps = 4'000;
  make(3, 12, {.hold_time = std::chrono::microseconds(20)});
  for (unsigned me = 0; me < kPrograms; ++me)
    start(me / 2, [this, me](Program& self) {
      auto* memory = static_cast<volatile uint64_t*>(self.map());
      if (!memory) return 2;
      std::mt19937 random(5);  // the same in all of them
      for (uint64_t step = 0; step < kSteps; ++step) {
        const bool mine = random() % kPrograms == me;
        const auto word = static_cast<size_t>(random() % kWords);
        const bool write = random() % 2;
        if (!mine) continue;
        control_->await(0, step);
        volatile uint64_t& there = memory[word * kWordsPerPage / 2];
        if (there != control_->words[8 + word].load()) return 3;
        if (write) there = control_->words[8 + word] = step + 1;
        control_->words[0] = step + 1;
      }
      return 0;
    });
  expect_success();
}

// A program that others interrupt in the middle of a page: one on node 0 writes a word of page 1,
// one on node 1 takes the page, the first comes back for another word; then the second wants the
// page once more.
class PageSetHoldTest : public PageSetTest {
 protected:
  enum Word : size_t { kWrote, kTook, kIsBack, kTookAgain, kNext, kDone };
  void interrupt() {
    make(2, 3,
         {.hold_time = std::chrono::microseconds(0), .long_hold_time = std::chrono::seconds(60)});
    first_ = start(0, [this](Program& self) {
               uint64_t* memory = self.map();
               if (!memory) return 2;
               auto* page = static_cast<volatile uint64_t*>(memory) + kWordsPerPage;
               page[0] = 1;
               set(kWrote);
               control_->await(kTook, 1);
               page[1] = 1;
               set(kIsBack);
               control_->await(kNext, 1);
               memory[2 * kWordsPerPage] = 1;
               set(kDone);
               control_->await(kNext, 2);
               memory[0] = 1;
               return 0;
             }).pid;
    start(1, [this](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      auto* page = static_cast<volatile uint64_t*>(memory) + kWordsPerPage;
      control_->await(kWrote, 1);
      page[2] = 1;
      set(kTook);
      control_->await(kIsBack, 1);
      page[3] = 1;
      set(kTookAgain);
      return page[0] + page[1] + page[2] == 3 ? 0 : 3;
    });
    run_until([this] { return is_set(kIsBack) && sets_[1]->statistics().write_faults == 2; });
  }
  void set(Word word) { control_->words[word] = 1; }
  bool is_set(Word word) const { return control_->words[word] == 1; }
  void run_for_a_while() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
    run_until([&] { return std::chrono::steady_clock::now() >= end; });
  }

  pid_t first_ = 0;
};

TEST_F(PageSetHoldTest, WhoComesBackKeepsThePageUntilItWaits) {
  interrupt();
  run_for_a_while();
  EXPECT_FALSE(is_set(kTookAgain));
  sets_[0]->waits(first_);
  run_until([this] { return is_set(kTookAgain); });
  control_->words[kNext] = 2;
  expect_success();
}

TEST_F(PageSetHoldTest, WhoComesBackKeepsThePageUntilItHasToldOthers) {
  interrupt();
  sets_[0]->wakes(first_);
  run_until([this] { return is_set(kTookAgain); });
  control_->words[kNext] = 2;
  expect_success();
}

// In one order only, or two programs might wait for each other's pages.
TEST_F(PageSetHoldTest, WhoComesBackKeepsThePageWhileItWaitsForHigherOnes) {
  interrupt();
  control_->words[kNext] = 1;
  run_until([this] { return is_set(kDone); });
  run_for_a_while();
  EXPECT_FALSE(is_set(kTookAgain));
  control_->words[kNext] = 2;
  run_until([this] { return is_set(kTookAgain); });
  expect_success();
}

TEST_F(PageSetTest, AScanFetchesAheadAndSeesEveryPage) {
  constexpr size_t kScanned = 2'000;
  make(2, kScanned);
  const auto fill = [](Program& self) {
    uint64_t* memory = self.map();
    if (!memory) return 2;
    for (uint64_t page = 0; page < kScanned; ++page) memory[page * kWordsPerPage + 3] = page + 7;
    return 0;
  };
  start(0, fill);
  expect_success();
  EXPECT_LT(sets_[0]->statistics().write_faults, kScanned / 4);
  for (const bool backward : {false, true}) {
    const PageSetStatistics before = sets_[1]->statistics();
    start(1, [backward](Program& self) {
      const uint64_t* memory = self.map();
      if (!memory) return 2;
      for (uint64_t i = 0; i < kScanned; ++i) {
        const uint64_t page = backward ? kScanned - 1 - i : i;
        if (memory[page * kWordsPerPage + 3] != page + 7) return 3;
      }
      return 0;
    });
    expect_success();
    const PageSetStatistics after = sets_[1]->statistics();
    EXPECT_LT(after.read_faults - before.read_faults, kScanned / 4);
    EXPECT_EQ(after.pages_here, kScanned);
    if (!backward) {
      EXPECT_GT(after.fetched_ahead, kScanned / 2);
      EXPECT_GT(after.fetched_ahead_hit, kScanned / 2);
      EXPECT_LE(after.fetched_ahead_hit, after.fetched_ahead);
    }
    start(0, fill);
    expect_success();
  }
}

TEST_F(PageSetTest, AForksChildSharesOn) {
  if (!PageSet::follows_forks())
    GTEST_SKIP() << "lacks userfaultfd_kernel_faults: nor are forks told without that privilege";
  make(2, 2);
  constexpr uint64_t kTimes = 2'000;
  for (unsigned node = 0; node < 2; ++node)
    start(node, [](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      add(memory[0], 0);
      const pid_t child = fork();
      for (uint64_t i = 0; i < kTimes; ++i) add(memory[0], 1);
      if (child == 0) {
        const pid_t grandchild = fork();
        for (uint64_t i = 0; i < kTimes; ++i) add(memory[kWordsPerPage], 1);
        if (grandchild == 0) _exit(0);
        int status = -1;
        _exit(waitpid(grandchild, &status, 0) == grandchild && status == 0 ? 0 : 1);
      }
      int status = -1;
      return waitpid(child, &status, 0) == child && status == 0 ? 0 : 3;
    });
  expect_success();
  start(1, [](Program& self) {
    const uint64_t* memory = self.map();
    if (!memory) return 2;
    return memory[0] == 4 * kTimes && memory[kWordsPerPage] == 4 * kTimes ? 0 : 3;
  });
  expect_success();
  run_until([&] { return sets_[0]->mapping_count() == 0 && sets_[1]->mapping_count() == 0; });
}

// Where this process may open no more files: the child's userfaultfd is one.
TEST_F(PageSetTest, AProgramMayForkThatFindsTheLimitOfOpenFiles) {
  if (!PageSet::follows_forks())
    GTEST_SKIP() << "lacks userfaultfd_kernel_faults: nor are forks told without that privilege";
  make(2, 2);
  start(1, [this](Program& self) {
    uint64_t* memory = self.map();
    if (!memory) return 2;
    add(memory[0], 1);
    control_->words[0] = 1;
    control_->await(1, 1);
    const pid_t child = fork();
    add(memory[0], 1);
    if (child == 0) _exit(0);
    int status = -1;
    if (waitpid(child, &status, 0) != child || status != 0) return 3;
    return memory[0] == 3 ? 0 : 4;
  });
  run_until([&] { return control_->words[0] == 1; });
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const UniqueFd last(open("/dev/null", O_RDONLY | O_CLOEXEC));  // all below it are taken
  const rlimit no_more{static_cast<rlim_t>(last.get()) + 1, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &no_more), 0);
  control_->words[1] = 1;
  run_to_end();
  setrlimit(RLIMIT_NOFILE, &before);
  expect_success();
}

// While a process forks, the kernel refuses changes to both mappings until both have read of it.
TEST_F(PageSetTest, AProcessThatMapsTwoSetsMayFork) {
  if (!PageSet::follows_forks())
    GTEST_SKIP() << "lacks userfaultfd_kernel_faults: nor are forks told without that privilege";
  const PageSetOptions options{.group = make_userfaultfd_group(),
                               .hold_time = std::chrono::microseconds(0),
                               .max_read_ahead = 0};
  make(2, 256, options);
  make_other(options);
  for (unsigned node = 0; node < 2; ++node)
    start(node, [this](Program& self) {
      uint64_t* memory = self.map();
      uint64_t* other = self.map_other();
      if (!memory || !other) return 2;
      for (size_t page = 0; page < 256; ++page)
        memory[page * kWordsPerPage] = other[page * kWordsPerPage] = 1;
      meet(*control_, 2);
      for (int i = 0; i < 100; ++i) {
        const pid_t child = fork();
        add(memory[8], 1);
        add(other[8], 1);
        if (child == 0) _exit(0);
        int status = -1;
        if (waitpid(child, &status, 0) != child || status != 0) return 3;
      }
      return 0;
    });
  expect_success();
  start(0, [](Program& self) {
    const uint64_t* memory = self.map();
    const uint64_t* other = self.map_other();
    return memory && other && memory[8] == 400 && other[8] == 400 ? 0 : 3;
  });
  expect_success();
}

// Who goes to sleep because of what a word is has to do so before it is changed and sleepers are
// woken: also where both wait for the page that a third one uses.
TEST_F(PageSetTest, WhoLooksAtAWordHearsOfItBeforeItChanges) {
  make(2, 2);
  for (unsigned user = 0; user < 2; ++user) {
    for (unsigned reader = 0; reader < 2; ++reader) {
      for (unsigned writer = 0; writer < 2; ++writer) {
        std::vector<std::string> told;
        bool is_used = false;
        kddms_[user]->grab(kPages, ObjectId{0}, Kddm::Touch::kFirstTouch,
                           [&](const Result<std::span<std::byte>>& page) {
                             ASSERT_TRUE(page);
                             std::memset(page->data(), 0, page->size());
                             is_used = true;
                           });
        run_until([&] { return is_used; });
        sets_[reader]->read(8, sizeof(uint32_t), [&](const Result<std::string>& bytes) {
          ASSERT_TRUE(bytes);
          told.push_back(bytes->front() == 0 ? "looked" : "looked late");
        });
        sets_[writer]->update(
            8, [](uint32_t) { return 1; },
            [&](const Result<uint32_t>&) { told.push_back("changed"); });
        kddms_[user]->put(kPages, ObjectId{0});
        run_until([&] { return told.size() == 2; });
        const bool is_right = told == std::vector<std::string>{"looked", "changed"} ||
                              told == std::vector<std::string>{"changed", "looked late"};
        EXPECT_TRUE(is_right) << user << reader << writer << ": " << told[0] << ", " << told[1];
      }
    }
  }
}

TEST_F(PageSetTest, AKilledProgramKeepsNobodyWaiting) {
  make(3, 2);
  unsigned idle = 0;
  sets_[1]->on_idle([&] { ++idle; });
  Child& victim = start(1, [this](Program& self) {
    uint64_t* memory = self.map();
    if (!memory) return 2;
    control_->words[0] = 1;
    for (;;) add(memory[0], 1);
  });
  for (unsigned node : {0u, 2u})
    start(node, [this](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      while (control_->words[1] == 0) add(memory[0], 1);
      for (uint64_t i = 0; i < 1'000; ++i) add(memory[0], 1);
      return 0;
    });
  run_until([&] { return control_->words[0] == 1 && sets_[1]->statistics().write_faults > 3; });
  kill(victim.pid, SIGKILL);
  control_->words[1] = 1;
  run_to_end();
  EXPECT_TRUE(WIFSIGNALED(victim.status));
  for (size_t i = 1; i < children_.size(); ++i) EXPECT_EQ(children_[i]->status, 0);
  run_until([&] { return sets_[1]->mapping_count() == 0 && idle == 1; });
}

// Pages 0 and 1 have a copy on node 0 when node 2 dies, page 2 and 3 were node 2's alone. A program
// that waits for one of them is told, too.
TEST_F(PageSetTest, OfALostNodesPagesThoseWithACopyGoOn) {
  make(3, 4, {.max_read_ahead = 0});
  start(2, [](Program& self) {
    uint64_t* memory = self.map();
    if (!memory) return 2;
    for (uint64_t page = 0; page < 4; ++page) memory[page * kWordsPerPage] = page + 50;
    return 0;
  });
  expect_success();
  start(0, [](Program& self) {
    const uint64_t* memory = self.map(0, 2);
    if (!memory) return 2;
    return memory[0] == 50 && memory[kWordsPerPage] == 51 ? 0 : 3;
  });
  expect_success();
  fabric_->kill(NodeId{2}, LoopbackFabric::Death::kSilent);
  for (unsigned node = 0; node < 2; ++node)
    start(node, [this](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      ++control_->words[0];
      for (uint64_t page = 0; page < 4; ++page) {
        uint64_t* word = memory + page * kWordsPerPage;
        if (gives_sigbus(word) != (page >= 2)) return 3;
        if (page < 2 && *word < page + 50) return 4;
      }
      return 0;
    });
  run_until([&] { return control_->words[0] == 2; });
  for (int turns = 0; turns < 20; ++turns) loop_->run_once(std::chrono::milliseconds(1));
  for (unsigned node = 0; node < 2; ++node) kddms_[node]->node_died(NodeId{2});
  expect_success();
}

}  // namespace
}  // namespace krg
