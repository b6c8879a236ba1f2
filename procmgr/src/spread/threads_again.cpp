// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/threads_again.h"

#include "spread/spread_again.h"

namespace krg {

std::string with_threads(const std::string& spread, const ThreadsAgain& threads) {
  if (spread.empty()) return spread;
  auto again = SpreadAgain::parse(spread);
  if (!again) return spread;
  again->job = threads.job;
  again->come_home = !threads.come_home   ? SpreadAgain::ComeHome::kAsBefore
                     : *threads.come_home ? SpreadAgain::ComeHome::kYes
                                          : SpreadAgain::ComeHome::kNo;
  return again->serialize();
}

}  // namespace krg
