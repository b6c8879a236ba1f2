// OpenMP in C++: objects that are copied into tasks and threads, reductions of classes, iterators,
// exceptions inside of regions, threads.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>

#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "expect.h"

namespace {

struct Counted {
  static int alive;
  int value;
  explicit Counted(int v = 0) : value(v) { __atomic_fetch_add(&alive, 1, __ATOMIC_RELAXED); }
  Counted(const Counted& other) : value(other.value) {
    __atomic_fetch_add(&alive, 1, __ATOMIC_RELAXED);
  }
  Counted& operator=(const Counted&) = default;
  ~Counted() { __atomic_fetch_sub(&alive, 1, __ATOMIC_RELAXED); }
};
int Counted::alive = 0;

void copies() {
  {
    const Counted original(5);
    std::string text = "a text that does not fit into the string itself";
    int sum = 0;
#pragma omp parallel
#pragma omp single
    for (int i = 0; i < 300; ++i) {
#pragma omp task firstprivate(original, text) shared(sum) if (i % 7 != 0)
      {
        expect(text.size() == 47, "copied text");
#pragma omp atomic
        sum += original.value;
      }
    }
    expect(sum == 1500, "copied objects");
  }
  expect(Counted::alive == 0, "every copy was destroyed");
}

void private_objects() {
  Counted object(3);
  int sum = 0;
#pragma omp parallel firstprivate(object) reduction(+ : sum)
  sum += object.value;
  expect(sum == 3 * omp_get_max_threads() && Counted::alive == 1, "firstprivate objects");
  Counted last;
#pragma omp parallel for lastprivate(last) schedule(dynamic)
  for (int i = 0; i < 50; ++i) last.value = i;
  expect(last.value == 49, "lastprivate object");
}

struct Sum {
  long total = 0;
};
#pragma omp declare reduction(add:Sum : omp_out.total += omp_in.total)

void class_reductions() {
  Sum sum;
#pragma omp parallel for reduction(add : sum)
  for (int i = 0; i < 1000; ++i) sum.total += i;
  expect(sum.total == 499500, "declare reduction");
  std::vector<int> values(1000);
  std::iota(values.begin(), values.end(), 0);
  long total = 0;
#pragma omp parallel for reduction(+ : total) schedule(guided)
  for (auto it = values.begin(); it < values.end(); ++it) total += *it;
  expect(total == 499500, "iterators");
  Sum tasks;
#pragma omp parallel
#pragma omp single
#pragma omp taskloop reduction(add : tasks) grainsize(10)
  for (int i = 0; i < 1000; ++i) tasks.total += i;
  expect(tasks.total == 499500, "taskloop with a declared reduction");
}

void exceptions() {
  int caught = 0;
#pragma omp parallel for reduction(+ : caught)
  for (int i = 0; i < 100; ++i) {
    try {
      if (i % 5 == 0) throw std::runtime_error("expected");
    } catch (const std::exception&) {
      ++caught;
    }
  }
  expect(caught == 20, "exceptions");
}

thread_local int of_thread = 0;

void threads() {
  std::vector<std::thread> all;
  std::vector<long> sums(4);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    all.emplace_back([&sums, i] {
      long sum = 0;
#pragma omp parallel for reduction(+ : sum)
      for (int j = 0; j < 1000; ++j) {
        ++of_thread;
        sum += j;
      }
      sums[i] = sum;
    });
  }
  for (std::thread& one : all) one.join();
  for (const long sum : sums) expect(sum == 499500, "std::thread with regions");
}

}  // namespace

int main() {
  for (int round = 0; round < 5; ++round) {
    copies();
    private_objects();
    class_reductions();
    exceptions();
    threads();
  }
  return result();
}
