// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/migration.h"

#include <fmt/core.h>

#include <cstring>

#include "exec_messages.h"
#include "krg/runtime/log.h"

namespace krg {

using namespace exec_messages;

Migration::Migration(NodeContext& node, const ExecPlacer::Parts& parts, ProcessMover& mover,
                     std::function<bool(NodeId)> is_online, Threads threads)
    : node_(node),
      parts_(parts),
      mover_(mover),
      is_online_(std::move(is_online)),
      threads_(std::move(threads)) {
  node_.messenger.on_request<MigrateProcess>([this](NodeId, const MigrateProcess& ask,
                                                    std::string_view, Messenger::Reply reply) {
    auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
    migrate_here(ask.pid, ask.target,
                 [shared](Status moved) { moved ? shared->ok() : shared->fail(moved.error()); });
  });
  node_.messenger.on_request<CloneProcess>(
      [this](NodeId, const CloneProcess& ask, std::string_view, Messenger::Reply reply) {
        auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
        clone_here(ask.pid, ask.target, [shared](Result<pid_t> copy) {
          if (copy) return shared->ok({reinterpret_cast<const char*>(&*copy), sizeof(pid_t)});
          shared->fail(copy.error());
        });
      });
}

void Migration::add_commands(ControlServer& server) {
  server.add_command("migrate", [this](ControlServer::Request request, ControlServer::Reply reply) {
    auto shared = std::make_shared<ControlServer::Reply>(std::move(reply));
    const pid_t pid = request.arguments.value("pid", 0);
    const unsigned node = request.arguments.value("node", unsigned{kNoNode.value});
    if (pid <= 0) return shared->fail(errno_error("the pid is missing", EINVAL));
    if (node >= node_.node_count)
      return shared->fail(errno_error(fmt::format("there is no node {}", node), ENODEV));
    migrate(GlobalPid{pid}, NodeId{static_cast<uint16_t>(node)},
            [shared](Status moved) { moved ? shared->ok() : shared->fail(moved.error()); });
  });
  server.add_command("clone", [this](ControlServer::Request request, ControlServer::Reply reply) {
    auto shared = std::make_shared<ControlServer::Reply>(std::move(reply));
    const pid_t pid = request.arguments.value("pid", 0);
    const unsigned node = request.arguments.value("node", unsigned{kNoNode.value});
    if (pid <= 0) return shared->fail(errno_error("the pid is missing", EINVAL));
    if (node >= node_.node_count && node != kNoNode.value)
      return shared->fail(errno_error(fmt::format("there is no node {}", node), ENODEV));
    clone(GlobalPid{pid}, NodeId{static_cast<uint16_t>(node)}, [shared](Result<pid_t> copy) {
      copy ? shared->ok({{"pid", *copy}}) : shared->fail(copy.error());
    });
  });
}

void Migration::migrate(GlobalPid pid, NodeId target, Done done) {
  if (!is_online_(target))
    return done(errno_error(fmt::format("node {} is not online", target.value), ENODEV));
  parts_.table.locate(pid, [this, pid, target, done = std::move(done)](Result<NodeId> where) {
    if (!where) return done(where.error());
    MigrateProcess ask;
    ask.pid = pid.value;
    ask.target = target;
    node_.messenger.request(*where, ask, {}, [done](Result<std::string> reply) {
      reply ? done({}) : done(reply.error());
    });
  });
}

void Migration::clone(GlobalPid pid, NodeId target, std::function<void(Result<pid_t>)> done) {
  if (target != kNoNode && !is_online_(target))
    return done(errno_error(fmt::format("node {} is not online", target.value), ENODEV));
  parts_.table.locate(pid, [this, pid, target, done = std::move(done)](Result<NodeId> where) {
    if (!where) return done(where.error());
    CloneProcess ask;
    ask.pid = pid.value;
    ask.target = target;
    node_.messenger.request(*where, ask, {}, [done](Result<std::string> reply) {
      pid_t copy = 0;
      if (!reply) return done(reply.error());
      if (reply->size() != sizeof copy) return done(errno_error("copy", EPROTO));
      memcpy(&copy, reply->data(), sizeof copy);
      done(copy);
    });
  });
}

Status Migration::check_may_move(pid_t pid) {
  const auto sets = parts_.capabilities.of(pid);
  if (!sets) return sets.error();
  if (sets->effective.has(Capability::kCanMigrate)) return {};
  return errno_error(
      fmt::format("CAN_MIGRATE is not effective (krg_capset {} -e +CAN_MIGRATE)", pid), EPERM);
}

void Migration::clone_here(pid_t pid, NodeId target, std::function<void(Result<pid_t>)> done) {
  if (auto may = check_may_move(pid); !may) return done(may.error());
  mover_.clone(pid, target == kNoNode ? node_.self : target, std::move(done));
}

void Migration::migrate_here(pid_t pid, NodeId target, Done done) {
  const pid_t spread = threads_.process_of(pid);
  if (spread == 0 && target == node_.self) return done({});
  if (auto may = check_may_move(spread != 0 ? spread : pid); !may) return done(may.error());
  spread != 0 ? threads_.move(pid, target, std::move(done))
              : mover_.freeze_and_move(pid, target, std::move(done));
}

}  // namespace krg
