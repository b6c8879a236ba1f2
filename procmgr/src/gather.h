// Gather: waits for one answer from each of several nodes, in any order, then hands all of them on
// in the order of the nodes; a node whose answer is an error is left out.
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "krg/runtime/messenger.h"
#include "krg/runtime/types.h"

namespace krg {

template <class T>
using NodeAnswers = std::map<NodeId, T>;

// Calls ask(node, answered) for each node; `answered` takes a Result<T>, once, now or later. `done`
// runs once.
template <class T, class Ask>
void gather(const std::vector<NodeId>& nodes, Ask ask, std::function<void(NodeAnswers<T>)> done) {
  struct State {
    size_t missing;
    NodeAnswers<T> answers;
    std::function<void(NodeAnswers<T>)> done;
  };
  // One more than the nodes, so that answers given at once do not end it early.
  auto state = std::make_shared<State>(State{nodes.size() + 1, {}, std::move(done)});
  auto finish_one = [state] {
    if (--state->missing == 0) state->done(std::move(state->answers));
  };
  for (NodeId node : nodes) {
    ask(node, [state, node, finish_one](Result<T> answer) {
      if (answer) state->answers.emplace(node, std::move(*answer));
      finish_one();
    });
  }
  finish_one();
}

// The nodes that have not failed, this one included.
inline std::vector<NodeId> living_nodes(const Messenger& messenger) {
  std::vector<NodeId> nodes;
  for (unsigned i = 0; i < messenger.node_count(); ++i) {
    NodeId node{static_cast<uint16_t>(i)};
    if (!messenger.is_failed(node)) nodes.push_back(node);
  }
  return nodes;
}

}  // namespace krg
