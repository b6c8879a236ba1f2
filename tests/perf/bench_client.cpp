// krg_bench_client: what a program pays for shared objects through the library
// (krg/shmem/client.h): barriers, locks, reads and writes of what other nodes have. Run under
// krgrun, one member on each node:
//
//   krgrun -N 2 --caps=+DISTANT_FORK build/dev/test-bin/krg_bench_client 2
//
// The rows about ranges alone (neighbours by one request), beside the same by single requests:
//
//   krgrun -N 2 --caps=+DISTANT_FORK build/dev/test-bin/krg_bench_client 2 ranges
//
// The first process starts the members, which execute this program anew (then they are placed).
// Member 0 prints; all are on one machine, and have one clock.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "krg/shmem/client.h"
#include "require.h"
#include "start_members.h"
#include "timing.h"

namespace krg::perf {
namespace {

using namespace std::chrono_literals;

constexpr size_t kPageBytes = 4096, kBlockBytes = 256 * 1024;
constexpr uint64_t kScannedBytes = 64u << 20;
constexpr unsigned kBarriers = 500, kFaults = 2'000, kTold = 200, kInvalidated = 1'000;
constexpr unsigned kInvalidations = 10, kHandOvers = 200;
constexpr ObjectId kLock{1u << 20};

// What lies in the object that is a lock.
struct Release {
  Clock::time_point at{};
  uint64_t by = 0;
};

class Member {
 public:
  Member(const Client& client, unsigned self, unsigned members, const std::string& name)
      : self_(self),
        members_(members),
        pages_(require(client.open_or_create_set(name, kPageBytes))),
        blocks_(require(client.open_or_create_set(name + ".blocks", kBlockBytes))),
        barrier_(require(client.join_barrier(name, members))) {}

  void measure_ranges() {
    read_neighbours();
    invalidate("1,000 pages that the others have, written by 1,000 grab_async",
               [this] { write_range(next_, kInvalidated); });
    invalidate("1,000 pages that the others have, written by one grab_range", [this] {
      const WriteRange range = require(pages_.grab_range({next_}, kInvalidated));
      for (size_t i = 0; i < kInvalidated; ++i) ++range.as<uint64_t>()[i * kPageBytes / 8];
    });
    scan("sequential read, pages, 64 asked for ahead", pages_, 64);
    for (const size_t pages : {8, 64, 256, 1024}) scan_ranges(pages, 2);
  }

  void measure() {
    barriers("barrier, nothing shared", 0);
    barriers("barrier, 100 pages written that the others have read", 100);
    read_pages();
    write_told();
    hand_over();
    scan("sequential read, objects of 256 KiB, 4 asked for ahead", blocks_, 4);
    measure_ranges();
  }

 private:
  void meet() { require(barrier_.wait()); }
  void row(const char* what, double value, const char* unit) const {
    if (self_ == 0) std::printf("%-64s %9.1f %s\n", what, value, unit);
  }
  void barriers(const char* what, unsigned pages);
  void read_pages();
  void write_told();
  template <class Write>
  void invalidate(const char* what, Write write);
  void hand_over();
  void scan(const char* what, const SharedSet& set, unsigned ahead);
  void read_neighbours();
  void scan_ranges(size_t pages, size_t ahead);
  // Member 1 writes `count` objects' numbers into them; then all meet.
  void number(const SharedSet& set, uint64_t count);
  // Each operation is under way while the next ones are asked for.
  void write_range(uint64_t first, uint64_t count);
  uint64_t read_range(const SharedSet& set, uint64_t first, uint64_t count, unsigned ahead);

  unsigned self_, members_;
  SharedSet pages_, blocks_;
  SharedBarrier barrier_;
  uint64_t next_ = 0;  // page that no row has used
};

void Member::write_range(uint64_t first, uint64_t count) {
  std::vector<std::future<Result<WritePin>>> asked;
  for (uint64_t i = first; i < first + count; ++i) asked.push_back(pages_.grab_async({i}));
  for (auto& one : asked) ++require(one.get()).as<uint64_t>();
}

uint64_t Member::read_range(const SharedSet& set, uint64_t first, uint64_t count, unsigned ahead) {
  uint64_t sum = 0;
  std::vector<std::future<Result<ReadPin>>> asked(ahead);
  for (uint64_t i = 0; i < count + ahead; ++i) {
    auto& slot = asked[i % ahead];
    if (i >= ahead) {
      const ReadPin pin = require(slot.get());
      const auto* words = &pin.as<uint64_t>();
      sum = std::accumulate(words, words + set.object_bytes() / sizeof(uint64_t), sum);
    }
    if (i < count) slot = set.get_async({first + i});
  }
  return sum;
}

void Member::barriers(const char* what, unsigned pages) {
  Samples samples;
  for (unsigned i = 0; i < kBarriers; ++i) {
    if (pages > 0) {
      read_range(pages_, next_, pages, 64);
      meet();
      if (self_ == 0) write_range(next_, pages);
    }
    const auto start = Clock::now();
    meet();
    samples.add(microseconds_since(start));
  }
  next_ += pages;
  row(what, samples.median_us(), "µs");
}

void Member::read_pages() {
  if (self_ == 1) write_range(next_, kFaults);
  meet();
  std::vector<uint64_t> order(kFaults);
  std::iota(order.begin(), order.end(), next_);
  std::ranges::shuffle(order, std::mt19937(7));
  Samples samples;
  for (const uint64_t page : order) {
    if (self_ != 0) break;
    const auto start = Clock::now();
    require(pages_.get({page}));
    samples.add(microseconds_since(start));
  }
  if (self_ == 0)
    row("get of a page that another has written, in no order", samples.median_us(), "µs");
  next_ += kFaults;
  meet();
}

void Member::write_told() {
  Samples alone, told;
  for (unsigned i = 0; i < kTold; ++i) {
    const ObjectId page{next_ + i};
    require(pages_.get(page));
    meet();
    const auto start = Clock::now();
    if (self_ == 0) ++require(pages_.grab(page)).as<uint64_t>();
    alone.add(microseconds_since(start));
    meet();
    told.add(microseconds_since(start));
  }
  next_ += kTold;
  row("a page that the others have, written", alone.median_us(), "µs");
  row("  with the barrier that tells them", told.median_us(), "µs");
}

template <class Write>
void Member::invalidate(const char* what, Write write) {
  Samples alone, told;
  for (unsigned i = 0; i < kInvalidations; ++i) {
    read_range(pages_, next_, kInvalidated, 64);
    meet();
    const auto start = Clock::now();
    if (self_ == 0) write();
    alone.add(microseconds_since(start));
    meet();
    told.add(microseconds_since(start));
  }
  next_ += kInvalidated;
  row(what, alone.median_us(), "µs");
  row("  with the barrier that tells them", told.median_us(), "µs");
}

// The lock is held for longer than it takes to ask for it: the next one waits.
void Member::hand_over() {
  Samples samples;
  for (unsigned i = 0; i < kHandOvers; ++i) {
    {
      const WritePin lock = require(pages_.grab(kLock));
      const auto now = Clock::now();
      auto& last = lock.as<Release>();
      if (last.at != Clock::time_point{} && last.by != self_)
        samples.add(std::chrono::duration<double, std::micro>(now - last.at).count());
      std::this_thread::sleep_for(2ms);
      last = {Clock::now(), self_};
    }
    std::this_thread::sleep_for(1ms);
  }
  meet();
  row("lock, from its put to one who waits", samples.median_us(), "µs");
}

void Member::number(const SharedSet& set, uint64_t count) {
  for (uint64_t i = next_; self_ == 1 && i < next_ + count; ++i)
    require(set.grab({i})).as<uint64_t>() = i;
  meet();
}

void Member::scan(const char* what, const SharedSet& set, unsigned ahead) {
  const uint64_t count = kScannedBytes / set.object_bytes();
  number(set, count);
  const auto start = Clock::now();
  if (self_ == 0) {
    const uint64_t sum = read_range(set, next_, count, ahead);
    if (sum != count * next_ + count * (count - 1) / 2) std::printf("WRONG: a scan's sum\n");
    row(what, static_cast<double>(kScannedBytes) / microseconds_since(start), "MB/s");
  }
  next_ += count;
  meet();
}

// In ranges of so many pages, of which the next `ahead` are under way.
void Member::scan_ranges(size_t pages, size_t ahead) {
  const uint64_t count = kScannedBytes / kPageBytes, ranges = count / pages;
  number(pages_, count);
  const auto start = Clock::now();
  if (self_ == 0) {
    uint64_t sum = 0;
    std::vector<std::future<Result<ReadRange>>> asked(ahead);
    for (uint64_t i = 0; i < ranges + ahead; ++i) {
      auto& slot = asked[i % ahead];
      if (i >= ahead) {
        const ReadRange range = require(slot.get());
        const auto words = range.as<uint64_t>();
        sum = std::accumulate(words.begin(), words.end(), sum);
      }
      if (i < ranges) slot = pages_.get_range_async({next_ + i * pages}, pages);
    }
    if (sum != count * next_ + count * (count - 1) / 2) std::printf("WRONG: a scan's sum\n");
    const std::string what = "sequential read, ranges of " + std::to_string(pages) + " pages, " +
                             std::to_string(ahead) + " asked for ahead";
    row(what.c_str(), static_cast<double>(kScannedBytes) / microseconds_since(start), "MB/s");
  }
  next_ += count;
  meet();
}

// As where eight neighbours come at a time: each that is wanted lies in its row of eight.
void Member::read_neighbours() {
  constexpr uint64_t kRow = 8;
  next_ = (next_ + kRow - 1) / kRow * kRow;
  number(pages_, kFaults);
  std::vector<uint64_t> order(kFaults / kRow);
  std::iota(order.begin(), order.end(), uint64_t{0});
  std::ranges::shuffle(order, std::mt19937(7));
  Samples samples;
  for (const uint64_t at : order) {
    if (self_ != 0) break;
    const auto start = Clock::now();
    require(pages_.get_range({next_ + at * kRow}, kRow));
    samples.add(microseconds_since(start));
  }
  if (self_ == 0) row("get_range of 8 pages that another has written", samples.median_us(), "µs");
  next_ += kFaults;
  meet();
}

}  // namespace
}  // namespace krg::perf

int main(int argc, char** argv) {
  using namespace krg::perf;
  const auto members = static_cast<unsigned>(argc > 1 ? std::atoi(argv[1]) : 2);
  const std::string rows = argc > 2 ? argv[2] : "all";
  if (argc < 5) return start_members({argv[0], std::to_string(members), rows}, members);
  const auto client = require(krg::Client::connect());
  const auto self = static_cast<unsigned>(std::atoi(argv[3]));
  std::printf("member %u on node %u\n", self, client.node().value);
  std::fflush(stdout);
  Member member(client, self, members, argv[4]);
  rows == "ranges" ? member.measure_ranges() : member.measure();
}
