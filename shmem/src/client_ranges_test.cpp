// Programs that pin neighbours together. SPDX-License-Identifier: GPL-2.0-or-later
#include <signal.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cstring>
#include <numeric>
#include <random>

#include "testing/client_fixture.h"
#include "testing/sequential_consistency.h"

namespace krg {
namespace {

using namespace std::chrono_literals;
using testing::error_of;

class ClientRangesTest : public testing::ClientTest {
 protected:
  // Starts `grab`, and returns when krgd has asked for all `count` objects of it.
  template <class Grab>
  static auto asked_for(const SharedSet& set, size_t count, Grab grab) {
    const uint64_t before = set.statistics()->grabs;
    auto asked = grab();
    while (set.statistics()->grabs < before + count) std::this_thread::sleep_for(1ms);
    return asked;
  }
  template <class T>
  static bool waits(std::future<T>& future) {
    return future.wait_for(50ms) == std::future_status::timeout;
  }
};

TEST_F(ClientRangesTest, ARangeIsItsObjectsOneBehindTheOther) {
  for (const size_t bytes : {8ul, 100ul, 4096ul, 200'000ul}) {
    const std::string name = "bytes" + std::to_string(bytes);
    const SharedSet one = shared(1, name, bytes), two = shared(2, name, bytes);
    constexpr uint64_t kFirst = 60, kCount = 10;  // over the border of what one node manages
    for (uint64_t i = 0; i < kCount; ++i) {
      auto pin = one.grab({kFirst + i});
      std::memset(pin->bytes().data(), static_cast<int>(i + 1), bytes);
    }
    {
      auto range = two.get_range({kFirst}, kCount + 1);
      ASSERT_TRUE(range) << range.error().message();
      ASSERT_EQ(range->bytes().size(), bytes * (kCount + 1));
      EXPECT_EQ(range->count(), kCount + 1);
      for (uint64_t i = 0; i <= kCount; ++i) {
        const auto object = range->object(i);
        EXPECT_EQ(object.data(), range->bytes().data() + i * bytes);
        const std::byte expected{static_cast<unsigned char>(i == kCount ? 0 : i + 1)};
        EXPECT_EQ(std::ranges::count(object, expected), static_cast<ptrdiff_t>(bytes));
      }
    }
    auto written = shared(3, name, bytes).grab_range_async({kFirst + 2}, 3).get();
    ASSERT_TRUE(written);
    EXPECT_EQ(written->object(1)[bytes - 1], std::byte{4});
    std::memset(written->bytes().data(), 77, written->bytes().size());
    written->put();
    for (uint64_t i = 0; i < kCount; ++i)
      EXPECT_EQ(one.get({kFirst + i})->bytes()[bytes / 2],
                std::byte{static_cast<unsigned char>(i >= 2 && i < 5 ? 77 : i + 1)});
  }
}

TEST_F(ClientRangesTest, RangesOfAllLengthsArriveWhole) {
  const SharedSet one = shared(0, "words", 8), two = shared(3, "words", 8);
  for (const size_t count : {1ul, 2ul, 63ul, 1024ul, 1025ul, kMaxRangeObjects}) {
    auto written = one.grab_range({7}, count);
    ASSERT_TRUE(written) << written.error().message();
    ASSERT_EQ(written->as<uint64_t>().size(), count);
    std::iota(written->as<uint64_t>().begin(), written->as<uint64_t>().end(), count);
    written->put();
    auto read = two.get_range_async({7}, count).get();
    ASSERT_TRUE(read);
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(read->as<uint64_t>()[i], count + i) << i;
  }
  const SharedSet blocks = shared(1, "blocks", kMaxObjectBytes);
  EXPECT_TRUE(blocks.get_range({0}, 2));
}

TEST_F(ClientRangesTest, ARangeTravelsInFewMessages) {
  constexpr uint64_t kCount = 256;
  const SharedSet owner = shared(2, "pages", 4096), reader = shared(1, "pages", 4096);
  ASSERT_TRUE(owner.grab_range({0}, kCount));
  const auto sent = [this] {
    uint64_t all = 0;
    in_loop([&] {
      for (const auto& node : nodes_) all += node->kddm.traffic().sent;
    });
    return all;
  };
  ASSERT_TRUE(owner.sync());
  const uint64_t before = sent();
  ASSERT_TRUE(reader.get_range({0}, kCount));
  // A request to each manager, one from each on to the owner, and four pieces of 256 KiB.
  EXPECT_LE(sent() - before, 2 * kNodes + 8);
}

TEST_F(ClientRangesTest, AnAbandonedRangeLeavesItsObjectsAsTheyWere) {
  const SharedSet set = shared(0, "set", 8);
  set.grab({3})->as<uint64_t>() = 5;
  auto range = set.grab_range({2}, 3);
  std::ranges::fill(range->as<uint64_t>(), 9);
  range->abandon();
  range = set.grab_range({2}, 3);
  EXPECT_EQ(range->as<uint64_t>()[1], 5u);
  *range = std::move(*set.grab_range({10}, 3));  // puts the others
  const auto other = shared(1, "set", 8).grab_range({2}, 3);
  ASSERT_TRUE(other);
  EXPECT_EQ(other->as<uint64_t>()[1], 5u);
}

TEST_F(ClientRangesTest, SaysWhatCannotBePinned) {
  const SharedSet set = shared(0, "set", 8), pages = shared(0, "pages", 1u << 20);
  EXPECT_EQ(error_of(set.get_range({1}, 0)), EINVAL);
  EXPECT_EQ(error_of(set.grab_range({1}, kMaxRangeObjects + 1)), EINVAL);
  EXPECT_EQ(error_of(set.grab_range({1}, ~size_t{0})), EINVAL);
  EXPECT_EQ(error_of(pages.grab_range({1}, kMaxRangeBytes / (1u << 20) + 1)), EINVAL);
  EXPECT_EQ(error_of(set.get_range({~uint64_t{0}}, 2)), EINVAL);
  EXPECT_TRUE(set.get_range({~uint64_t{0}}, 1));
}

TEST_F(ClientRangesTest, OneThatIsMissingIsTold) {
  const SharedSet here = shared(0, "set", 8), there = shared(1, "set", 8);
  ASSERT_TRUE(here.grab_range({0}, 10));
  ASSERT_TRUE(there.remove({6}));
  EXPECT_EQ(error_of(there.get_range({0}, 10, Touch::kNoFirstTouch)), ENOENT);
  EXPECT_EQ(error_of(there.grab_range_async({0}, 10, Touch::kNoFirstTouch).get()), ENOENT);
  EXPECT_TRUE(there.get_range({0}, 6, Touch::kNoFirstTouch));
  ASSERT_TRUE(here.grab_range({0}, 10)) << "nobody holds anything";
  EXPECT_TRUE(there.get_range({0}, 10, Touch::kNoFirstTouch)) << "made anew";
}

TEST_F(ClientRangesTest, OneThatIsLostIsTold) {
  const SharedSet set = shared(1, "set", 8);
  ASSERT_TRUE(set.grab_range({0}, 10));
  ASSERT_TRUE(shared(3, "set", 8).grab({6}));
  in_loop([&] { fabric_.kill(NodeId{3}, LoopbackFabric::Death::kNoticed); });
  EXPECT_EQ(error_of(set.get_range({0}, 10)), EOWNERDEAD);
  EXPECT_EQ(error_of(set.grab_range({0}, 10)), EOWNERDEAD);
  const SharedSet other = shared(2, "set", 8);
  EXPECT_TRUE(other.grab_range({0}, 6)) << "nobody holds anything";
  EXPECT_TRUE(other.grab_range({7}, 3));
  ASSERT_TRUE(other.remove({6}));
  EXPECT_TRUE(set.get_range({0}, 10));
}

TEST_F(ClientRangesTest, WhoWaitsForAnObjectHoldsNoneAboveIt) {
  const SharedSet zero = shared(0, "set", 8), one = shared(1, "set", 8), two = shared(2, "set", 8);
  ASSERT_TRUE(two.grab_range({0}, 10));
  auto held = zero.grab({5});
  auto range = asked_for(one, 10, [&] { return one.grab_range_async({0}, 10); });
  auto below = two.grab_async({3});
  for (uint64_t above = 6; above < 10; ++above) {
    auto granted = two.grab_async({above});
    ASSERT_EQ(granted.wait_for(20s), std::future_status::ready) << above;
    granted.get()->as<uint64_t>() = above;
  }
  EXPECT_TRUE(waits(below)) << "what is below is kept";
  EXPECT_TRUE(waits(range));
  // Who goes upwards and who has a range wait for each other in one direction only.
  auto seven = two.grab({7});
  held->put();
  EXPECT_TRUE(waits(range)) << "for 7";
  EXPECT_EQ(two.grab({8})->as<uint64_t>(), 8u);
  seven->put();
  auto taken = range.get();
  ASSERT_TRUE(taken);
  for (uint64_t above = 6; above < 10; ++above) EXPECT_EQ(taken->as<uint64_t>()[above], above);
  EXPECT_TRUE(waits(below));
  taken->put();
  EXPECT_TRUE(below.get());
}

// Threads on some nodes move amounts between the ends of ranges that overlap, others look: nobody
// waits for ever, and no amount is seen in two places, or in none.
TEST_F(ClientRangesTest, OverlappingRangesEndAndAreSeenWhole) {
  constexpr unsigned kThreadsEach = 6, kOperations = 60;
  constexpr uint64_t kObjects = 100, kAmount = 1000;
  for (const unsigned nodes : {1u, 2u, kNodes}) {
    const std::string name = "amounts" + std::to_string(nodes);
    {
      auto all = shared(0, name, 64).grab_range({0}, kObjects);
      for (uint64_t i = 0; i < kObjects; ++i) all->as<uint64_t>()[i * 8] = kAmount;
    }
    std::vector<std::thread> threads;
    for (unsigned id = 0; id < nodes * kThreadsEach; ++id)
      threads.emplace_back([&, id] {
        const SharedSet set = shared(id % nodes, name, 64);
        std::mt19937 random(id);
        for (unsigned i = 0; i < kOperations; ++i) {
          if (random() % 8 == 0) {
            auto all = set.get_range({0}, kObjects);
            ASSERT_TRUE(all) << all.error().message();
            uint64_t sum = 0;
            for (uint64_t o = 0; o < kObjects; ++o) sum += all->as<uint64_t>()[o * 8];
            ASSERT_EQ(sum, kObjects * kAmount);
            continue;
          }
          const uint64_t first = random() % (kObjects - 1);
          const uint64_t count = 2 + random() % (kObjects - first - 1);
          auto range = set.grab_range({first}, count);
          ASSERT_TRUE(range) << range.error().message();
          const uint64_t moved = random() % (range->as<uint64_t>().front() + 1);
          range->as<uint64_t>().front() -= moved;
          range->as<uint64_t>()[(count - 1) * 8] += moved;
          if (random() % 4 == 0) range->abandon();
        }
      });
    for (auto& thread : threads) thread.join();
  }
}

// One program's, all at once: they overlap, and some wait for others of its own.
TEST_F(ClientRangesTest, ManyRangesAtOnce) {
  constexpr unsigned kRanges = 400;
  constexpr uint64_t kObjects = 300;
  for (const unsigned node : {1u, 3u}) {
    const SharedSet set = shared(node, "set", 8);
    std::promise<void> all;
    std::atomic<unsigned> granted = 0;
    for (unsigned i = 0; i < kRanges; ++i)
      set.grab_range_async({i * 7 % kObjects}, 40, Touch::kFirstTouch,
                           [&](Result<WriteRange> range) {
                             ASSERT_TRUE(range) << range.error().message();
                             for (uint64_t& word : range->as<uint64_t>()) ++word;
                             range->put();
                             if (++granted == kRanges) all.set_value();
                           });
    all.get_future().wait();
  }
  auto read = shared(0, "set", 8).get_range({0}, kObjects + 40);
  uint64_t sum = 0;
  for (const uint64_t word : read->as<uint64_t>()) sum += word;
  EXPECT_EQ(sum, 2u * kRanges * 40);
}

// Ranges and single objects together have one order for all threads.
TEST_F(ClientRangesTest, AccessesAreSequentiallyConsistent) {
  constexpr unsigned kThreads = 2 * kNodes, kOperations = 60, kObjects = 6;
  std::vector<std::vector<kddm::AccessHistory::Access>> accesses(kThreads);
  std::array<std::atomic<uint64_t>, kObjects> values{};
  std::vector<std::thread> threads;
  for (unsigned id = 0; id < kThreads; ++id)
    threads.emplace_back([&, id] {
      const SharedSet set = shared(id % kNodes, "set", 8);
      std::mt19937 random(id);
      for (unsigned i = 0; i < kOperations; ++i) {
        const auto first = static_cast<unsigned>(random() % kObjects);
        const auto count = static_cast<unsigned>(1 + random() % (kObjects - first));
        if (random() % 3 == 0) {
          const auto pin = set.get({first});
          accesses[id].push_back({id, first, pin->as<uint64_t>() + 1, 0});
        } else if (random() % 2 == 0) {
          const auto range = set.get_range({first}, count);
          for (unsigned o = 0; o < count; ++o)
            accesses[id].push_back({id, first + o, range->as<uint64_t>()[o] + 1, 0});
        } else {
          auto range = set.grab_range({first}, count);
          for (unsigned o = 0; o < count; ++o) {
            uint64_t& word = range->as<uint64_t>()[o];
            const uint64_t read = word;
            word = ++values[first + o];
            accesses[id].push_back({id, first + o, read + 1, word + 1});
          }
        }
      }
    });
  for (auto& thread : threads) thread.join();
  kddm::AccessHistory history;
  for (unsigned object = 0; object < kObjects; ++object) history.begin_object(object, 1);
  for (const auto& of_thread : accesses)
    for (const auto& access : of_thread) history.record(access);
  EXPECT_EQ(history.violation(), "");
}

TEST_F(ClientRangesTest, AKilledProgramLetsGoOfARange) {
  const SharedSet set = shared(1, "set", 8);
  std::ranges::fill(set.grab_range({0}, 20)->as<uint64_t>(), 1);
  auto held = set.grab({15});
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t program = fork();
  if (program == 0) {
    const SharedSet mine = shared(2, "set", 8);
    auto range = mine.grab_range({0}, 5);
    std::ranges::fill(range->as<uint64_t>(), 99);
    auto waiting = mine.grab_range_async({5}, 15);
    if (!mine.sync() || write(ready[1], "x", 1) != 1) _exit(1);
    pause();
  }
  close(ready[1]);
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  close(ready[0]);
  auto after = set.grab_range_async({0}, 15);
  EXPECT_TRUE(waits(after));
  kill(program, SIGKILL);
  waitpid(program, nullptr, 0);
  auto taken = after.get();
  ASSERT_TRUE(taken);
  EXPECT_EQ(std::ranges::count(taken->as<uint64_t>(), 1u), 15) << "what it had not put is dropped";
  held->put();
  EXPECT_TRUE(shared(3, "set", 8).grab_range({15}, 5));
}

TEST_F(ClientRangesTest, ADestroyedSetEndsRangesThatWait) {
  const SharedSet here = shared(0, "set", 8), there = shared(3, "set", 8);
  auto taken = here.grab_range({0}, 5);
  auto held = there.grab({7});
  auto range = asked_for(here, 10, [&] { return here.grab_range_async({5}, 10); });
  EXPECT_TRUE(waits(range));
  ASSERT_TRUE(shared(1, "set", 8).destroy());
  EXPECT_EQ(error_of(range.get()), EIDRM);
  EXPECT_EQ(error_of(here.get_range({0}, 2)), EIDRM);
  taken->put();
  EXPECT_TRUE(shared(0, "set", 8).grab_range({0}, 20));
}

// While others work with ranges a node goes: what it had is lost, or goes on; nobody hangs.
TEST_F(ClientRangesTest, ANodesDeathIsToldAndTheOthersGoOn) {
  constexpr uint64_t kObjects = 60;
  ASSERT_TRUE(shared(3, "set", 8).grab_range({0}, kObjects));
  std::atomic<unsigned> done = 0;
  std::atomic<bool> over = false;
  std::vector<std::thread> threads;
  for (unsigned id = 0; id < 9; ++id)
    threads.emplace_back([&, id] {
      const SharedSet set = shared(id % 3, "set", 8);
      std::mt19937 random(id);
      while (!over) {
        const uint64_t first = random() % kObjects, count = 1 + random() % (kObjects - first);
        if (random() % 2 == 0) {
          const int error = error_of(set.get_range({first}, count));
          EXPECT_TRUE(error == 0 || error == EOWNERDEAD) << error;
        } else {
          const int error = error_of(set.grab_range({first}, count));
          EXPECT_TRUE(error == 0 || error == EOWNERDEAD) << error;
        }
        ++done;
      }
    });
  const auto go_on = [&] {
    for (const unsigned before = done; done < before + 100;) std::this_thread::sleep_for(1ms);
  };
  while (done < 20) std::this_thread::sleep_for(1ms);
  in_loop([&] { fabric_.kill(NodeId{3}, LoopbackFabric::Death::kNoticed); });
  go_on();
  over = true;
  for (auto& thread : threads) thread.join();
  const SharedSet set = shared(0, "set", 8);
  for (uint64_t o = 0; o < kObjects; ++o) EXPECT_TRUE(set.grab({o}) || set.remove({o}));
  EXPECT_TRUE(set.grab_range({0}, kObjects));
}

// As with single objects: none is granted what it does not keep inside of the one before.
TEST_F(ClientRangesTest, ThousandsMayWaitForAnObject) {
  constexpr unsigned kMany = 12'000;
  const SharedSet set = shared(1, "set", 8);
  auto held = set.grab({1});
  std::vector<std::future<Result<WriteRange>>> ranges;
  for (unsigned i = 0; i < kMany; ++i)
    ranges.push_back(set.grab_range_async({1}, 2, Touch::kNoFirstTouch));
  const pid_t program = fork();
  if (program == 0) {
    const SharedSet mine = shared(1, "set", 8);
    for (unsigned i = 0; i < kMany; ++i)
      mine.grab_range_async({1}, 2, Touch::kFirstTouch, [](const Result<WriteRange>&) {});
    _exit(!mine.sync());
  }
  int status = -1;
  waitpid(program, &status, 0);
  EXPECT_EQ(status, 0);
  held->put();
  for (auto& one : ranges) EXPECT_EQ(error_of(one.get()), ENOENT);
  EXPECT_TRUE(shared(0, "set", 8).grab({1}));
}

TEST_F(ClientRangesTest, SaysWhenKrgdHasGone) {
  const SharedSet set = shared(0, "set", 8), other = shared(1, "set", 8);
  auto held = other.grab({5});
  auto range = asked_for(set, 10, [&] { return set.grab_range_async({0}, 10); });
  in_loop([&] { nodes_[0].reset(); });
  EXPECT_EQ(error_of(range.get()), ECONNRESET);
  EXPECT_EQ(error_of(set.get_range({2}, 3)), ECONNRESET);
}

}  // namespace
}  // namespace krg
