// shared_ranges MEMBERS RANGES: processes on all nodes, of four threads each, pin ranges of a set
// that overlap (krg/shmem/client.h). The first process starts the members, which execute this
// program anew (then they are placed). Each thread takes RANGES ranges for writing and moves an
// amount from the first object of each to the last; now and then it looks at all objects, whose sum
// never changes. Prints "member I node N ranges R wrong W".
// SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "krg/shmem/client.h"
#include "start_members.h"

namespace {

constexpr uint64_t kObjects = 200, kAmount = 1000;
constexpr unsigned kThreads = 4;

template <class T>
T value_or_exit(krg::Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "shared_ranges: %s\n", result.error().message().c_str());
  std::exit(1);
}

// Returns how often the sum was wrong.
unsigned use_ranges(const krg::SharedSet& set, unsigned seed, unsigned ranges) {
  std::mt19937 random(seed);
  unsigned wrong = 0;
  for (unsigned i = 0; i < ranges; ++i) {
    const uint64_t first = random() % (kObjects - 1);
    const uint64_t count = 2 + random() % (kObjects - first - 1);
    {
      const krg::WriteRange range = value_or_exit(set.grab_range({first}, count));
      const auto amounts = range.as<uint64_t>();
      const uint64_t moved = random() % (amounts.front() + 1);
      amounts.front() -= moved;
      amounts.back() += moved;
    }
    if (i % 8 != 0) continue;
    const krg::ReadRange all = value_or_exit(set.get_range({0}, kObjects));
    uint64_t sum = 0;
    for (const uint64_t amount : all.as<uint64_t>()) sum += amount;
    wrong += sum != kObjects * kAmount;
  }
  return wrong;
}

int take_part(const std::string& name, unsigned self, unsigned members, unsigned ranges) {
  const krg::Client client = value_or_exit(krg::Client::connect());
  const krg::SharedSet set = value_or_exit(client.open_or_create_set(name, sizeof(uint64_t)));
  const krg::SharedBarrier barrier = value_or_exit(client.join_barrier(name, members));
  if (self == 0) {
    const krg::WriteRange all = value_or_exit(set.grab_range({0}, kObjects));
    for (uint64_t& amount : all.as<uint64_t>()) amount = kAmount;
  }
  if (!barrier.wait()) return 1;
  std::atomic<unsigned> wrong = 0;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; ++i)
    threads.emplace_back(
        [&, seed = self * kThreads + i] { wrong += use_ranges(set, seed, ranges); });
  for (auto& thread : threads) thread.join();
  const std::string line =
      "member " + std::to_string(self) + " node " + std::to_string(client.node().value) +
      " ranges " + std::to_string(ranges * kThreads) + " wrong " + std::to_string(wrong) + "\n";
  // At once, and as one line among those of others.
  return write(STDOUT_FILENO, line.data(), line.size()) < 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const auto members = static_cast<unsigned>(std::atoi(argv[1]));
  if (argc < 5) return start_members({argv[0], argv[1], argv[2]}, members) > 0;
  return take_part(argv[4], static_cast<unsigned>(std::atoi(argv[3])), members,
                   static_cast<unsigned>(std::atoi(argv[2])));
}
