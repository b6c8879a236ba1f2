// Balancer: moves running processes from a node that is loaded more than another one
// (krgrun --balance). Each node looks at itself: when another node would, with one process more,
// still have a load per core that is lower by `gap`, it gets the one that has computed longest of
// those that may migrate (CAN_MIGRATE), at most one in `min_interval`. A process that could not
// move is left alone for kRefusedFor.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <vector>

#include "krg/procmgr/process_mover.h"

namespace krg {

class Balancer {
 public:
  struct Options {
    std::chrono::milliseconds poll{1000}, min_interval{2000};
    double gap = 0.25;  // processes per core
  };
  static constexpr std::chrono::seconds kRefusedFor{30};

  // All of `parts` outlive it, and so does the mover.
  Balancer(NodeContext& node, const ExecPlacer::Parts& parts, ProcessMover& mover, Options options);
  Balancer(const Balancer&) = delete;
  Balancer& operator=(const Balancer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  void look();
  std::vector<pid_t> candidates();
  void move_first(std::shared_ptr<std::vector<pid_t>> pids, NodeId target);

  NodeContext& node_;
  const ExecPlacer::Parts parts_;
  ProcessMover& mover_;
  const Options options_;
  Clock::time_point last_move_{};
  std::map<pid_t, Clock::time_point> refused_;
  EventLoop::Timer timer_;
};

}  // namespace krg
