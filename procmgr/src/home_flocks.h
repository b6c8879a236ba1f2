// HomeFlocks: flock(2) of descriptions that stay on this node, for processes of other nodes. The
// kernel keeps the locks, so that everybody here sees them; who waits is tried again and again.
// Owner: RemoteHome. Threads: the loop's thread; flock(2) is called in workers (a network's file
// system may take its time). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>

#include "home_file.h"
#include "stream_messages.h"

namespace krg {

class HomeFlocks {
 public:
  explicit HomeFlocks(NodeContext& node) : node_(node) {}

  void lock(StreamOperation operation, std::shared_ptr<UniqueFd> description,
            const StreamFlock& asked, Messenger::Reply reply);
  // Answers it with EINTR if it waits.
  void cancel(StreamOperation operation);
  void forget_node(NodeId node);

 private:
  struct Wait {
    std::shared_ptr<UniqueFd> description;
    int flags;
    bool waits;
    std::chrono::microseconds pause;
    Messenger::Reply reply;
    bool is_cancelled = false;
  };
  void attempt(StreamOperation operation);
  void on_attempt(StreamOperation operation, int error);

  NodeContext& node_;
  std::map<StreamOperation, Wait> waits_;
};

}  // namespace krg
