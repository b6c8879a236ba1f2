// SPDX-License-Identifier: GPL-2.0-or-later
#include "progress_desk.h"

#include <utility>

#include "krg/runtime/log.h"

namespace krg {

using namespace checkpoint_messages;

namespace {

constexpr std::chrono::milliseconds kPeriod{100};

struct Sizes {
  uint64_t done = 0, total = 0;
};

void send(NodeContext& node, const Audience& to, const Progress& of) {
  PartProgress message;
  message.connection = to.connection;
  message.done = of.done;
  message.total = of.total;
  if (!node.messenger.send(to.node, message))
    log_debug("checkpoint", "node {} has failed", to.node.value);
}

}  // namespace

struct ProgressDesk::State {
  ControlServer& control;
  std::map<ControlServer::ConnectionId, std::map<NodeId, Sizes>> known = {};
};

ProgressDesk::ProgressDesk(NodeContext& node, ControlServer& control)
    : state_(std::make_shared<State>(State{control})) {
  node.messenger.on<PartProgress>(
      [state = state_](NodeId from, const PartProgress& message, std::string_view) {
        auto& nodes = state->known[message.connection];
        nodes[from] = {message.done, message.total};
        Sizes all;
        for (const auto& [which, sizes] : nodes) {
          all.done += sizes.done;
          all.total += sizes.total;
        }
        state->control.notify(message.connection, "progress",
                              {{"done", all.done}, {"total", all.total}});
      });
  control.on_disconnect(
      [state = state_](ControlServer::ConnectionId connection) { state->known.erase(connection); });
}

std::shared_ptr<void> report_progress(NodeContext& node, const Audience& to,
                                      const SharedProgress& of) {
  if (to.connection == 0) return nullptr;
  class Report {
   public:
    Report(NodeContext& node, const Audience& to, SharedProgress of)
        : node_(node),
          to_(to),
          of_(std::move(of)),
          timer_(node.loop.every(kPeriod, [this] { send(node_, to_, *of_); })) {}
    ~Report() { send(node_, to_, *of_); }

   private:
    NodeContext& node_;
    const Audience to_;
    const SharedProgress of_;
    EventLoop::Timer timer_;
  };
  return std::make_shared<Report>(node, to, of);
}

}  // namespace krg
