// TeamPhase: where in its program a thread of an OpenMP team is, as its team calls tell: in which
// parallel region, behind which of its barriers. What it does there it does much the same each
// time. Pure. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

#include "krg/procmgr/team_call.h"

namespace krg {

class TeamPhase {
 public:
  // The answer to a call of the thread. Returns whether another phase begins.
  bool on_answer(const TeamWords& asked, int64_t result, const TeamWords& answer) {
    if (result == kTeamTask || result == kTeamOwnTask) return false;  // it will ask again
    switch (static_cast<TeamOp>(asked[0])) {
      case TeamOp::dock:
        return result == 1 && enter(answer[4], 0);
      case TeamOp::begin:
        return enter(asked[4], 0);
      case TeamOp::barrier:
        return enter(region_, asked[5]);
      case TeamOp::end:
        return enter(0, region_);
      default:
        return false;
    }
  }
  // The outlined function of the region that it is in; 0: none.
  uint64_t region() const { return region_; }
  // Behind which barrier, by where the program comes from; 0: before the first one.
  uint64_t site() const { return region_ != 0 ? site_ : 0; }
  uint64_t number() const { return region_ * 0x9e3779b97f4a7c15ULL + site_; }

 private:
  bool enter(uint64_t region, uint64_t site) {
    region_ = region;
    site_ = site;
    return true;
  }

  uint64_t region_ = 0;
  uint64_t site_ = 0;  // the barrier's; outside of regions the last region
};

}  // namespace krg
