// SleepBook: when the sleeps and waits end that processes which came here were in the middle of:
// this kernel goes on with them and tells nobody how long, so that a process that moves again
// before they end could not say what is left of them.
//
// Threads: the loop's thread. Owned by krgd's main. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>

namespace krg {

class FrozenProcess;
struct ProcessImage;

class SleepBook {
 public:
  // A process is made of the image now.
  void note(const ProcessImage& image);
  // A process moves again: the rest of what its threads still wait for goes into its image.
  void take_out(const FrozenProcess& process, ProcessImage& image);

 private:
  struct Sleep {
    uint64_t call = 0;  // its number
    uint64_t arguments[4] = {};
    int64_t ends_ns = 0;  // CLOCK_MONOTONIC
  };
  std::map<pid_t, Sleep> sleeps_;  // by thread
};

}  // namespace krg
