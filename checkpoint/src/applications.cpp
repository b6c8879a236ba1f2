// SPDX-License-Identifier: GPL-2.0-or-later
#include "applications.h"

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <set>
#include <string>

#include "payloads.h"

namespace krg {

using namespace checkpoint_messages;

namespace {

// 0: it is outside of the session, or gone.
pid_t parent_of(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("PPid:")) return std::atoi(line.c_str() + 5);
  return 0;
}

Error not_checkpointable(pid_t pid) {
  return errno_error(fmt::format("process {}: CHECKPOINTABLE is not effective "
                                 "(krg_capset -e +CHECKPOINTABLE {})",
                                 pid, pid),
                     EPERM);
}

}  // namespace

void Applications::listen() {
  node_.messenger.on_request<FindApplication>(
      [weak = weak_from_this()](NodeId, const FindApplication& ask, std::string_view,
                                Messenger::Reply reply) {
        auto self = weak.lock();
        if (!self) return;
        auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
        self->climb(ask, [shared](Result<Application> found) {
          if (!found) return shared->fail(found.error());
          shared->ok({reinterpret_cast<const char*>(&*found), sizeof *found});
        });
      });
}

bool Applications::is_checkpointable(pid_t pid) const {
  auto sets = capabilities_.of(pid);
  return sets && sets->effective.has(Capability::kCheckpointable);
}

std::vector<pid_t> Applications::local_roots() const {
  std::set<pid_t> roots;
  for (pid_t pid : table_.local_processes()) {
    if (!is_checkpointable(pid)) continue;
    pid_t root = pid;
    for (pid_t parent = parent_of(root); parent > 1 && is_checkpointable(parent);
         parent = parent_of(root))
      root = parent;
    roots.insert(root);
  }
  return {roots.begin(), roots.end()};
}

void Applications::ask(NodeId to, const FindApplication& question, Done done) {
  node_.messenger.request(to, question, {}, [done = std::move(done)](Result<std::string> reply) {
    Application found;
    if (!reply) return done(reply.error());
    if (reply->size() != sizeof found) return done(errno_error("application", EPROTO));
    std::memcpy(&found, reply->data(), sizeof found);
    done(found);
  });
}

void Applications::find(pid_t pid, Done done) {
  table_.locate(GlobalPid{pid},
                [self = shared_from_this(), pid, done = std::move(done)](Result<NodeId> where) {
                  if (!where)
                    return done(errno_error(fmt::format("there is no process {}", pid), ESRCH));
                  FindApplication question;
                  question.pid = pid;
                  self->ask(*where, question, done);
                });
}

void Applications::climb(FindApplication ask, Done done) {
  for (pid_t pid = ask.is_above ? parent_of(ask.pid) : ask.pid; pid > 1; pid = parent_of(pid)) {
    ask.pid = pid;
    ask.is_above = 0;
    if (const auto* shadow = table_.find_shadow(pid))
      return this->ask(shadow->body_node, ask, std::move(done));
    if (!is_checkpointable(pid)) break;
    ask.root = pid;
    ask.root_node = node_.self;
    if (const auto* body = table_.find_body(pid)) {
      ask.is_above = 1;
      return this->ask(body->origin, ask, std::move(done));
    }
  }
  if (ask.root == 0) return done(not_checkpointable(ask.pid));
  done(Application{ask.root, ask.root_node});
}

}  // namespace krg
