// Allocates arrays at different lines, before its threads are on several nodes and later, of which
// each member writes a part of every page.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

constexpr std::size_t kWords = 64 * 1024;

void write_all(std::vector<long*> arrays) {
  for (int round = 0; round < 8; ++round) {
#pragma omp parallel
    for (long* array : arrays)
      for (std::size_t i = std::size_t(omp_get_thread_num()); i < kWords;
           i += std::size_t(omp_get_num_threads()))
        array[i] += 1;
  }
}

long* allocated(std::size_t words) {
  return static_cast<long*>(std::calloc(words, sizeof(long)));  // site: function
}

long* mapped() {
  void* at = mmap(nullptr, kWords * sizeof(long), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);  // site: mapping
  return static_cast<long*>(at);
}

}  // namespace

int main() {
  std::vector<long> vector(kWords);                                      // site: template
  long* plain = static_cast<long*>(std::malloc(kWords * sizeof(long)));  // site: plain
  for (std::size_t i = 0; i < kWords; ++i) plain[i] = 0;
  long* early = allocated(kWords);
  write_all({vector.data(), plain, early});
  long* late = new long[kWords]();  // site: late
  long* map = mapped();
  write_all({late, map});
  long sum = 0;
  for (std::size_t i = 0; i < kWords; ++i)
    sum += vector[i] + plain[i] + early[i] + late[i] + map[i];
  std::printf("%ld\n", sum / long(kWords));
  delete[] late;
  std::free(early);
  std::free(plain);
  return 0;
}
