// A long computation that saves itself at each tenth of its way (libkrg, krg/procmgr/checkpoint.h),
// and tells what happens to it. Where its memory is lost, it goes on from the last version:
//
//   krgrun --caps=+CHECKPOINTABLE saves_itself FOLDER
//   krgrun --restart=FOLDER
//
// SPDX-License-Identifier: GPL-2.0-or-later
#include <krg/procmgr/checkpoint.h>
#include <stdio.h>

enum { kSteps = 50, kParts = 10 };

static int tell(void* what) {
  printf("  %s\n", (const char*)what);
  return fflush(stdout);
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "Usage: saves_itself FOLDER\n");
    return 2;
  }
  if (cr_register_chkpt_callback(tell, "is about to be saved") != 0 ||
      cr_register_continue_callback(tell, "goes on") != 0 ||
      cr_register_restart_callback(tell, "has been restarted") != 0) {
    perror("saves_itself: not under krgrun");
    return 1;
  }
  double sum = 0;
  for (int step = 1; step <= kSteps; ++step) {
    for (int i = 1; i <= 1000000; ++i) sum += 1.0 / ((double)step * i);
    if (step % kParts != 0) continue;
    printf("step %d, sum %.9f\n", step, sum);
    fflush(stdout);
    if (application_checkpoint(argv[1]) < 0) {
      perror("saves_itself");
      return 1;
    }
  }
  printf("result %.9f\n", sum);
  return 0;
}
