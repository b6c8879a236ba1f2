// shared_histogram: a plain C++ program whose processes share a work queue and a table, on
// whichever nodes they run:
//
//   krgrun -N 4 --caps=+DISTANT_FORK shared_histogram
//
// It counts how many numbers below LIMIT need 0-9, 10-19, ... steps to reach 1 by the rule of
// Collatz. The first process starts WORKERS others, each of which executes this program anew (that
// is when it is placed on a node). A worker takes the next piece of work from an object of a set
// until none is left, and adds what it has counted to other objects of that set.
//
// usage: shared_histogram [WORKERS [LIMIT]]; prints "BIN COUNT" lines, then on how many nodes work
// was done. SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "krg/shmem/client.h"

namespace {

constexpr unsigned kBins = 40, kBinWidth = 10;
constexpr uint64_t kPiece = 10'000;  // numbers that a worker takes at a time

// The set's objects.
constexpr krg::ObjectId kQueue{0}, kTable{1}, kNodes{2};
struct Queue {
  uint64_t next, limit;
};
using Table = std::array<uint64_t, kBins>;
using Nodes = std::array<uint64_t, kBins>;  // workers, by node (the last: and all further ones)

template <class T>
T value_or_exit(krg::Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "shared_histogram: %s\n", result.error().message().c_str());
  std::exit(1);
}

unsigned steps(uint64_t number) {
  unsigned count = 0;
  for (; number > 1; ++count) number = number % 2 == 0 ? number / 2 : 3 * number + 1;
  return count;
}

// Takes the next numbers from the queue; none are left when both are equal.
std::pair<uint64_t, uint64_t> take_piece(const krg::SharedSet& set) {
  auto pin = value_or_exit(set.grab(kQueue));
  Queue& queue = pin.as<Queue>();
  const uint64_t begin = queue.next;
  queue.next = std::min(begin + kPiece, queue.limit);
  return {begin, queue.next};
}

int work(const std::string& set_name) {
  const krg::Client client = value_or_exit(krg::Client::connect());
  const krg::SharedSet set = value_or_exit(client.open_set(set_name));
  const unsigned node = std::min<unsigned>(client.node().value, kBins - 1);
  ++value_or_exit(set.grab(kNodes)).as<Nodes>()[node];
  while (true) {
    const auto [begin, end] = take_piece(set);
    if (begin == end) return 0;
    Table counts{};
    for (uint64_t number = begin; number < end; ++number)
      ++counts[std::min(steps(number) / kBinWidth, kBins - 1)];
    auto table = value_or_exit(set.grab(kTable));
    for (unsigned bin = 0; bin < kBins; ++bin) table.as<Table>()[bin] += counts[bin];
  }
}

int start_and_wait(const char* program, unsigned workers, const std::string& set_name) {
  std::vector<pid_t> children;
  for (unsigned i = 0; i < workers; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      execlp(program, program, "--worker", set_name.c_str(), nullptr);
      std::perror(program);
      _exit(127);
    }
    children.push_back(child);
  }
  int failures = 0;
  for (pid_t child : children) {
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) ++failures;
  }
  return failures;
}

void print(const krg::SharedSet& set) {
  const auto table = value_or_exit(set.get(kTable));
  for (unsigned bin = 0; bin < kBins; ++bin)
    if (table.as<Table>()[bin] > 0)
      std::printf("%3u %llu\n", bin * kBinWidth,
                  static_cast<unsigned long long>(table.as<Table>()[bin]));
  unsigned busy = 0;
  const auto nodes = value_or_exit(set.get(kNodes));
  for (uint64_t workers : nodes.as<Nodes>()) busy += workers > 0;
  std::printf("nodes %u\n", busy);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--worker") return work(argv[2]);
  const unsigned workers = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 8;
  const uint64_t limit = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1'000'000;
  const std::string set_name = "shared_histogram." + std::to_string(getpid());

  const krg::Client client = value_or_exit(krg::Client::connect());
  const krg::SharedSet set = value_or_exit(client.create_set(set_name, sizeof(Table)));
  value_or_exit(set.grab(kQueue)).as<Queue>() = {1, limit};
  const int failures = start_and_wait(argv[0], workers, set_name);
  if (failures > 0) std::fprintf(stderr, "shared_histogram: %d workers failed\n", failures);
  print(set);
  set.destroy().has_value();
  return failures > 0 ? 1 : 0;
}
