// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/short_turns.h"

#include <sched.h>
#include <sys/prctl.h>

#include <ctime>

#include "krg/runtime/short_slice.h"

namespace krg {
namespace {

bool stay_on(unsigned processor) {
  if (processor >= CPU_SETSIZE) return false;
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(processor, &only);
  return sched_setaffinity(0, sizeof only, &only) == 0;
}

void wake_up_ever_again(const std::stop_token& stop, unsigned processor,
                        std::chrono::microseconds turn) {
  if (!stay_on(processor)) return;
  prctl(PR_SET_NAME, "krgd-turns");
  prctl(PR_SET_TIMERSLACK, 1);
  static_cast<void>(take_short_slices(turn));  // without them it is woken a little later
  const timespec pause{0, static_cast<long>(std::chrono::nanoseconds(turn).count())};
  while (!stop.stop_requested()) clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
}

}  // namespace

ShortTurns::ShortTurns(const std::set<unsigned>& processors, std::chrono::microseconds turn) {
  for (unsigned processor : processors)
    threads_.emplace_back([processor, turn](const std::stop_token& stop) {
      wake_up_ever_again(stop, processor, turn);
    });
}

}  // namespace krg
