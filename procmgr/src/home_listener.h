// HomeListener: a listening socket that stays on this node while a process elsewhere accepts by it.
// Connections are accepted here and offered there (listener_relays.h), one at a time; each is a
// HomeSocket. Owner: RemoteHome. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "home_file.h"
#include "listener_messages.h"

namespace krg {

class RemoteHome;

class HomeListener : public RelayedHomeFile {
 public:
  HomeListener(NodeContext& node, RemoteHome& home, UniqueFd real);
  ~HomeListener() override;

  // From now on connections go to `listener` of that node.
  void attach(NodeId node, uint64_t listener);
  void pause();
  // A connection that was offered and is not accepted; `came` is what came by it so far.
  void take_back(HomeId connection, std::string_view came);
  // Connections are on their way to the process.
  bool has_waiting() const;
  // It is a process's of this node again, which accepts by itself: those that wait here.
  std::vector<HomeId> release_waiting();

 private:
  struct State;
  std::shared_ptr<State> state_;  // answers that come late hold it weakly
};

}  // namespace krg
