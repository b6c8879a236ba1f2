// SPDX-License-Identifier: GPL-2.0-or-later
#include "callbacks.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <utility>
#include <vector>

namespace krg {

using namespace checkpoint_messages;

namespace {

constexpr std::chrono::seconds kPatience{30};

// Runs `done` with the first error when it has been called `left` times.
std::function<void(Status)> gathered(size_t left, std::function<void(Status)> done) {
  struct State {
    size_t left;
    Status all;
    std::function<void(Status)> done;
  };
  auto state = std::make_shared<State>(State{left, {}, std::move(done)});
  return [state](Status one) {
    if (!one && state->all) state->all = std::move(one);
    if (--state->left == 0) state->done(state->all);
  };
}

std::vector<PageRange> ranges_of(const std::vector<std::array<uint64_t, 2>>& rows) {
  std::vector<PageRange> ranges;
  for (const auto& [start, bytes] : rows)
    if (bytes > 0) ranges.push_back({.start = RemoteAddr{start}, .bytes = bytes});
  return ranges;
}

}  // namespace

void Callbacks::listen() {
  sections_->listen();
  std::weak_ptr<Callbacks> weak = weak_from_this();
  control_.add_command("checkpoint.callbacks", [weak](const ControlServer::Request& request,
                                                      ControlServer::Reply reply) {
    auto self = weak.lock();
    if (!self || request.peer.pid <= 0)
      return reply.fail(errno_error("only for programs of the session", EPERM));
    self->members_[request.connection].pid = request.peer.pid;
    reply.ok();
  });
  control_.add_command("checkpoint.called", [weak](const ControlServer::Request& request,
                                                   ControlServer::Reply reply) {
    reply.ok();
    auto self = weak.lock();
    if (!self) return;
    self->note_left_out(request, [self, connection = request.connection](const Status& noted) {
      self->answered(connection, noted);
    });
  });
  control_.on_disconnect([weak](Connection connection) {
    auto self = weak.lock();
    if (!self) return;
    self->answered(connection, {});
    self->members_.erase(connection);
  });
  node_.messenger.on_request<CallMembers>(
      [weak](NodeId from, const CallMembers& ask, std::string_view, Messenger::Reply reply) {
        auto self = weak.lock();
        if (!self) return;
        auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
        const auto done = [shared](const Status& called) {
          called ? shared->ok() : shared->fail(called.error());
        };
        if (ask.after) {
          self->sections_->open(ask.root);
          return self->call_here(ask.root, true, done);
        }
        self->sections_->close(ask.root, from, [self, root = ask.root, done](const Status& closed) {
          closed ? self->call_here(root, false, done) : done(closed);
        });
      });
}

void Callbacks::note_left_out(const ControlServer::Request& request,
                              std::function<void(Status)> noted) {
  const auto member = members_.find(request.connection);
  if (member == members_.end()) return;
  const auto ranges =
      ranges_of(request.arguments.value("left_out", std::vector<std::array<uint64_t, 2>>()));
  const bool had_any = std::exchange(member->second.has_left_out, !ranges.empty());
  if (ranges.empty() && !had_any) return noted({});
  left_out_->tell(member->second.pid, ranges, std::move(noted));
}

void Callbacks::call(pid_t root, bool after, std::function<void(Status)> done) {
  std::vector<NodeId> nodes;
  for (uint16_t n = 0; n < node_.node_count; ++n)
    if (!node_.messenger.is_failed(NodeId{n})) nodes.push_back(NodeId{n});
  auto one = gathered(nodes.size(), std::move(done));
  CallMembers ask;
  ask.root = root;
  ask.after = after;
  for (NodeId to : nodes)
    node_.messenger.request(to, ask, {}, [one](const Result<std::string>& reply) {
      one(reply ? Status() : Status(reply.error()));
    });
}

void Callbacks::call_here(pid_t root, bool after, const std::function<void(Status)>& done) {
  auto one = gathered(members_.size() + 1, done);
  std::map<Connection, pid_t> pids;  // what follows may end connections
  for (const auto& [connection, member] : members_) pids[connection] = member.pid;
  for (const auto& [connection, pid] : pids)
    applications_->find(pid, [self = shared_from_this(), connection = connection, root, after,
                              one](const Result<Applications::Application>& found) {
      const bool is_its = found && found->root == root && self->members_.contains(connection);
      is_its ? self->call_one(connection, after, one) : one({});
    });
  one({});
}

void Callbacks::call_one(Connection connection, bool after,
                         const std::function<void(Status)>& done) {
  if (after) {
    control_.notify(connection, "checkpoint.after", {});
    return done({});
  }
  Member& member = members_[connection];
  member.called = done;
  member.patience =
      node_.loop.after(kPatience, [self = shared_from_this(), connection, pid = member.pid] {
        self->answered(connection,
                       errno_error(fmt::format("process {}: its callbacks", pid), ETIMEDOUT));
      });
  control_.notify(connection, "checkpoint.before", {});
}

void Callbacks::answered(Connection connection, const Status& how) {
  const auto member = members_.find(connection);
  if (member == members_.end() || !member->second.called) return;
  auto called = std::exchange(member->second.called, nullptr);
  auto patience = std::move(member->second.patience);  // this may be its very callback
  called(how);
}

}  // namespace krg
