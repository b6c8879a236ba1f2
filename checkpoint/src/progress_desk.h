// ProgressDesk: tells who waits for a checkpoint or a restart how far all nodes together are: by
// the notice `progress` ("done", "total": bytes) on its connection, ten times a second and at the
// end.
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "checkpoint_messages.h"
#include "krg/checkpoint/progress.h"
#include "krg/runtime/control_server.h"

namespace krg {

// On the node whose connection it is.
class ProgressDesk {
 public:
  ProgressDesk(NodeContext& node, ControlServer& control);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// On a node that works: tells `of` until it goes, and then once more. Nothing for nobody.
std::shared_ptr<void> report_progress(NodeContext& node, const checkpoint_messages::Audience& to,
                                      const SharedProgress& of);

}  // namespace krg
