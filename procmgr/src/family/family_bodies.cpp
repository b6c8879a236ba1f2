// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_bodies.h"

#include <csignal>

#include "body_request.h"
#include "exec_messages.h"
#include "krg/procmgr/body_descriptors.h"
#include "krg/procmgr/job_namespaces.h"
#include "krg/procmgr/process_identity.h"
#include "krg/runtime/log.h"

namespace krg {

using namespace exec_messages;

struct FamilyBodies::Start {
  std::shared_ptr<FrozenProcess> process;
  CapabilitySets capabilities;
  MovedProcess moved;
  NodeId to;
  bool has_children = false;
  std::vector<ExportedFd> fds = {};
  std::function<void(Status)> done;
  pid_t pid() const { return process->pid(); }
};

void FamilyBodies::start(std::shared_ptr<FrozenProcess> process, const FamilyMember& member,
                         MovedProcess moved, NodeId to, bool has_children,
                         std::function<void()> exported, std::function<void(Status)> done) {
  auto start = std::make_shared<Start>(Start{std::move(process),
                                             member.capabilities,
                                             std::move(moved),
                                             to,
                                             has_children,
                                             {},
                                             std::move(done)});
  parts_.descriptors.export_fds(start->pid(), WhichFds::kAll,
                                [self = shared_from_this(), start, exported = std::move(exported)](
                                    Result<std::vector<ExportedFd>> fds) {
                                  if (!fds) return start->done(fds.error());
                                  exported();
                                  start->fds = std::move(*fds);
                                  self->ask(start);
                                });
}

void FamilyBodies::ask(const std::shared_ptr<Start>& start) {
  StartBody ask;
  ask.pid = start->pid();
  ask.origin = parts_.node.self;
  ask.capabilities = start->capabilities;
  const auto place = process_identity(parts_.table, ask.pid);
  if (!place) {
    parts_.descriptors.cancel_export(start->fds);
    return start->done(place.error());
  }
  ask.group = place->group;
  ask.session = place->session;
  if (auto job = parts_.node.jobs ? parts_.node.jobs->job_of(ask.pid) : std::nullopt) {
    ask.has_job = 1;
    ask.job = job->value;
  }
  BodyRequest request;
  request.what = start->moved;
  request.fds = start->fds;
  if (start->has_children) request.children_on = {parts_.node.self};
  parts_.node.messenger.request(
      start->to, ask, request.serialize(),
      [self = shared_from_this(), start](const Result<std::string>& reply) {
        if (reply) return self->leave_shadow(start);
        const int number = reply.error().errno_or(EIO);
        if (number == kNotImported || number == EHOSTDOWN)
          self->parts_.descriptors.cancel_export(start->fds);
        start->done(error_of_answer(reply.error()));
      });
}

void FamilyBodies::leave_shadow(const std::shared_ptr<Start>& start) {
  const pid_t pid = start->pid();
  ProcessTable::Shadow entry{start->to, JobId{}};
  if (parts_.node.jobs) entry.job = parts_.node.jobs->job_of(pid).value_or(JobId{});
  Status converted = parts_.shadows.become_shadow(*start->process, entry);
  if (converted) {
    started_[pid] = start->to;
  } else {
    ShadowDied died;
    died.pid = pid;
    if (!parts_.node.messenger.send(start->to, died))
      log_debug("checkpoint", "node {} has failed", start->to.value);
  }
  start->process.reset();
  start->done(std::move(converted));
}

void FamilyBodies::thaw() {
  for (const auto& [pid, node] : started_) {
    ThawBody thaw;
    thaw.pid = pid;
    if (!parts_.node.messenger.send(node, thaw))
      log_debug("checkpoint", "node {} has failed", node.value);
  }
  started_.clear();
}

void FamilyBodies::kill_all() {
  for (const auto& [pid, node] : std::exchange(started_, {})) kill(pid, SIGKILL);
}

}  // namespace krg
