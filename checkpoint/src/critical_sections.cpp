// SPDX-License-Identifier: GPL-2.0-or-later
#include "critical_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace krg {
namespace {

constexpr std::chrono::seconds kPatience{30};

}  // namespace

void CriticalSections::listen() {
  std::weak_ptr<CriticalSections> weak = weak_from_this();
  control_.add_command("checkpoint.disable",
                       [weak](const ControlServer::Request& request, ControlServer::Reply reply) {
                         if (auto self = weak.lock()) self->disable(request, std::move(reply));
                       });
  control_.add_command("checkpoint.enable",
                       [weak](const ControlServer::Request& request, ControlServer::Reply reply) {
                         if (auto self = weak.lock()) self->leave(request.connection);
                         reply.ok();
                       });
  control_.on_disconnect([weak](Connection connection) {
    if (auto self = weak.lock()) self->leave(connection);
  });
  node_.messenger.on_peer_failure([weak](NodeId failed) {
    auto self = weak.lock();
    if (!self) return;
    std::vector<pid_t> roots;
    for (const auto& [root, closing] : self->closings_)
      if (closing.leader == failed) roots.push_back(root);
    for (pid_t root : roots) self->open(root);
  });
}

void CriticalSections::disable(const ControlServer::Request& request, ControlServer::Reply reply) {
  if (request.peer.pid <= 0)
    return reply.fail(errno_error("only for programs of the session", EPERM));
  const Connection connection = request.connection;
  if (!sections_.try_emplace(connection, Section{.pid = request.peer.pid}).second)
    return reply.fail(errno_error("checkpoints are disabled already", EALREADY));
  auto shared = std::make_shared<ControlServer::Reply>(std::move(reply));
  applications_->find(request.peer.pid, [self = shared_from_this(), connection,
                                         shared](const Result<Applications::Application>& found) {
    const auto section = self->sections_.find(connection);
    if (section == self->sections_.end()) return;
    if (!found) {
      self->sections_.erase(section);
      return shared->fail(found.error());
    }
    section->second.root = found->root;
    self->enter(connection, [shared](const Status& entered) {
      entered ? shared->ok() : shared->fail(entered.error());
    });
  });
}

// Later, where the application is being saved.
void CriticalSections::enter(Connection connection, const std::function<void(Status)>& entered) {
  const auto section = sections_.find(connection);
  if (section == sections_.end()) return;
  const auto closing = closings_.find(section->second.root);
  if (closing != closings_.end() && !closing->second.closed) {
    closing->second.waiting.emplace_back(
        [self = shared_from_this(), connection, entered] { self->enter(connection, entered); });
    return;
  }
  section->second.is_entered = true;
  entered({});
}

void CriticalSections::leave(Connection connection) {
  const auto left = sections_.extract(connection);
  if (left) check_closed(left.mapped().root);
}

void CriticalSections::close(pid_t root, NodeId leader, std::function<void(Status)> closed) {
  open(root);  // what a checkpoint before has left
  Closing& closing = closings_[root];
  closing.leader = leader;
  closing.closed = std::move(closed);
  closing.patience =
      node_.loop.after(kPatience, [self = shared_from_this(), root] { self->give_up(root); });
  look_whose(root);
}

// Processes may have come to another application since they entered.
void CriticalSections::look_whose(pid_t root) {
  auto left = std::make_shared<size_t>(sections_.size() + 1);
  const auto one_is_known = [self = shared_from_this(), root, left] {
    if (--*left == 0) self->check_closed(root);
  };
  std::map<Connection, pid_t> pids;  // what follows may end connections
  for (const auto& [connection, section] : sections_) pids[connection] = section.pid;
  for (const auto& [connection, pid] : pids)
    applications_->find(pid, [self = shared_from_this(), connection = connection,
                              one_is_known](const Result<Applications::Application>& found) {
      const auto section = self->sections_.find(connection);
      if (section != self->sections_.end()) section->second.root = found ? found->root : 0;
      one_is_known();
    });
  one_is_known();
}

// 0: nobody.
pid_t CriticalSections::who_is_in(pid_t root) const {
  const auto found = std::find_if(sections_.begin(), sections_.end(), [root](const auto& one) {
    return one.second.is_entered && one.second.root == root;
  });
  return found == sections_.end() ? 0 : found->second.pid;
}

void CriticalSections::check_closed(pid_t root) {
  const auto closing = closings_.find(root);
  if (closing == closings_.end() || !closing->second.closed || who_is_in(root) != 0) return;
  closing->second.patience = {};
  std::exchange(closing->second.closed, nullptr)({});
}

void CriticalSections::give_up(pid_t root) {
  const auto closing = closings_.find(root);
  if (closing == closings_.end() || !closing->second.closed) return;
  auto closed = std::exchange(closing->second.closed, nullptr);
  const pid_t who = who_is_in(root);
  const auto patience = std::move(closing->second.patience);  // this is its very callback
  open(root);
  closed(errno_error(
      fmt::format("process {} does not let its application be saved (cr_disable)", who), EAGAIN));
}

void CriticalSections::open(pid_t root) {
  auto closing = closings_.extract(root);
  if (!closing) return;
  for (const auto& enter_now : closing.mapped().waiting) enter_now();
  if (closing.mapped().closed)
    closing.mapped().closed(errno_error("the checkpoint was given up", ECANCELED));
}

}  // namespace krg
