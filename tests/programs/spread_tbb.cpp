// A program of oneTBB's: loops, reductions, task groups, pipelines and its containers.
//   spread_tbb [COMMAND]    COMMAND runs when several threads have taken part
// SPDX-License-Identifier: GPL-2.0-or-later
#include <tbb/concurrent_hash_map.h>
#include <tbb/concurrent_queue.h>
#include <tbb/enumerable_thread_specific.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/parallel_pipeline.h>
#include <tbb/parallel_reduce.h>
#include <tbb/parallel_sort.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

namespace {

constexpr int kThreads = 4;

long fibonacci(int n) {
  if (n < 2) return n;
  if (n < 12) return fibonacci(n - 1) + fibonacci(n - 2);
  long first = 0, second = 0;
  tbb::task_group group;
  group.run([&] { first = fibonacci(n - 1); });
  group.run_and_wait([&] { second = fibonacci(n - 2); });
  return first + second;
}

// The library begins its threads when it likes to.
void until_all_take_part() {
  std::mutex mutex;
  std::set<std::thread::id> seen;
  std::atomic<int> present{0};
  while (seen.size() < kThreads)
    tbb::parallel_for(0, kThreads, [&](int) {
      ++present;
      for (int i = 0; i < 200 && present < kThreads; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::lock_guard lock(mutex);
      seen.insert(std::this_thread::get_id());
      --present;
    });
}

void work() {
  std::vector<long> numbers(200000);
  tbb::parallel_for(tbb::blocked_range<size_t>(0, numbers.size()), [&](const auto& range) {
    for (size_t i = range.begin(); i < range.end(); ++i)
      numbers[i] = static_cast<long>(i * 2654435761u % 1000003);
  });
  const long sum = tbb::parallel_reduce(
      tbb::blocked_range<size_t>(0, numbers.size()), 0L,
      [&](const auto& range, long part) {
        return std::accumulate(numbers.begin() + range.begin(), numbers.begin() + range.end(),
                               part);
      },
      std::plus<>());
  tbb::concurrent_hash_map<long, int> counts;
  tbb::enumerable_thread_specific<long> own(0);
  tbb::parallel_for(0, 2000, [&](int i) {
    tbb::concurrent_hash_map<long, int>::accessor entry;
    counts.insert(entry, numbers[i] % 100);
    ++entry->second;
    ++own.local();
  });
  int total = 0;
  for (const auto& [key, count] : counts) total += count;
  tbb::parallel_sort(numbers);
  int item = 0;
  long piped = 0;
  tbb::parallel_pipeline(
      kThreads,
      tbb::make_filter<void, int>(tbb::filter_mode::serial_in_order,
                                  [&](tbb::flow_control& control) {
                                    if (item == 200) control.stop();
                                    return item++;
                                  }) &
          tbb::make_filter<int, long>(tbb::filter_mode::parallel,
                                      [](int i) { return long{i} * i; }) &
          tbb::make_filter<long, void>(tbb::filter_mode::serial_in_order,
                                       [&](long square) { piped = piped * 3 % 1009 + square; }));
  std::printf(
      "sum %ld, %zu keys, %d counted, %ld by themselves, sorted %d, piped %ld, fibonacci %ld\n",
      sum, counts.size(), total, own.combine(std::plus<>()),
      std::is_sorted(numbers.begin(), numbers.end()), piped, fibonacci(20));
}

}  // namespace

int main(int argc, char** argv) {
  tbb::global_control threads(tbb::global_control::max_allowed_parallelism, kThreads);
  tbb::task_arena(kThreads).execute([&] {
    until_all_take_part();
    if (argc > 1 && std::system(argv[1]) != 0) std::abort();
    work();
  });
}
