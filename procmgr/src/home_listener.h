// HomeListener: a listening socket that stays on this node while processes elsewhere accept by it.
// Connections are accepted here and offered there (listener_relays.h), one at a time; each is a
// HomeSocket. Where several may accept by it, on other nodes or this one, a connection stays in the
// socket's own queue until one of other nodes waits for it: they are asked in turn.
// Owner: RemoteHome. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "home_file.h"
#include "listener_messages.h"

namespace krg {

class RemoteHome;

class HomeListener : public RelayedHomeFile {
 public:
  // `release`: those that wait here are to go back into the socket's queue, for nobody elsewhere
  // accepts any more.
  HomeListener(NodeContext& node, RemoteHome& home, UniqueFd real, std::function<void()> release);
  ~HomeListener() override;

  // Others accept by it, too: processes of this node.
  void share();
  // From now on connections go to `listener` of that node, too.
  void attach(NodeId node, uint64_t listener);
  void detach(NodeId node, uint64_t listener);
  bool is_attached() const;
  // A connection that was offered and is not accepted; `came` is what came by it so far.
  void take_back(HomeId connection, std::string_view came);
  // Connections are on their way to the process.
  bool has_waiting() const;
  // It is a process's of this node again, which accepts by itself: those that wait here.
  std::vector<HomeId> release_waiting();
  void forget_node(NodeId node) override;

 private:
  struct State;
  std::shared_ptr<State> state_;  // answers that come late hold it weakly
};

}  // namespace krg
