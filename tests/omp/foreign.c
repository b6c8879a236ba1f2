// Counts the threads of a region; with an argument it opens that library, which needs a function of
// libgomp that libkrgomp lacks.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <dlfcn.h>
#include <omp.h>
#include <stdio.h>

#ifdef KRG_TEST_CALLS_AT_START
int devices_of_openacc(void);
#endif

int main(int argc, char** argv) {
  int threads = 0;
#pragma omp parallel reduction(+ : threads)
  threads += 1;
  printf("%d threads\n", threads);
#ifdef KRG_TEST_CALLS_AT_START
  printf("%d OpenACC devices\n", devices_of_openacc());
#endif
  if (argc < 2) return 0;
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  int (*devices)(void) = (int (*)(void))dlsym(library, "devices_of_openacc");
  printf("%d OpenACC devices\n", devices());
#pragma omp parallel reduction(+ : threads)
  threads += 1;
  printf("%d threads in all\n", threads);
  return 0;
}
