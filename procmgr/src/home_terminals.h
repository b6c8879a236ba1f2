// HomeTerminals: the terminals of this node that other nodes mirror: tells the mirrors what changes
// and that input waits, and reads input for a process that really waits for it.
// A terminal tells nobody when its modes change, so it is looked at each kTick while it is
// mirrored. That a process reads in the background shows as late as at the next kLookEvery-th look,
// when no input waits.
//
// Owner: Descriptors. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "remote_home.h"
#include "terminal_messages.h"

namespace krg {

class HomeTerminals {
 public:
  HomeTerminals(NodeContext& node, RemoteHome& home);
  HomeTerminals(const HomeTerminals&) = delete;
  HomeTerminals& operator=(const HomeTerminals&) = delete;

  // From now on `id`, an entry of RemoteHome that is a terminal, is looked after.
  void add(HomeId id, const TerminalSettings& settings);

 private:
  struct Terminal {
    HomeId id;
    TerminalSettings told;
  };

  void look();
  void tell(Terminal& terminal, const HomeFile& file);
  void read_for(const TerminalRead& message, NodeId from, Messenger::Reply reply);

  NodeContext& node_;
  RemoteHome& home_;
  std::vector<Terminal> terminals_;
  unsigned looks_ = 0;
  EventLoop::Timer tick_;
};

// Errors: ENOTTY.
Result<TerminalSettings> terminal_settings(int fd);

}  // namespace krg
