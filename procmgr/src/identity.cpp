// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/identity.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "identity_rules.h"
#include "process_status.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;
using Field = pid_t ProcessIdentity::*;

void finish(Call& call, const Status& status) {
  if (status) return call.succeed(0);
  call.fail(status.error().errno_or(ESRCH));
}

}  // namespace

struct Identity::Impl : std::enable_shared_from_this<Identity::Impl> {
  Impl(NodeContext& context, ProcessTable& processes, ShadowHost& host)
      : node(context), table(processes), shadows(host) {}

  void get_parent(Call call);
  void get(Call call, pid_t pid, Field field);
  void set_group(Call call);
  void set_session(Call call);

  void tell(Call call, pid_t pid, Field field);
  bool is_of_this_node(pid_t pid) const { return table.is_at_home(GlobalPid{pid}); }
  // The body that this thread belongs to, or 0: a body leads its kernel group for all its life.
  pid_t body_of_thread(pid_t tid) const;

  NodeContext& node;
  ProcessTable& table;
  ShadowHost& shadows;
};

pid_t Identity::Impl::body_of_thread(pid_t tid) const {
  if (table.find_body(tid)) return tid;
  const pid_t group = getpgid(tid);
  if (!table.find_body(group)) return 0;
  auto status = read_process_status(tid);
  return status && status->pid == group ? group : 0;
}

void Identity::Impl::tell(Call call, pid_t pid, Field field) {
  if (table.home_of(GlobalPid{pid}).value >= node.node_count) return call.fail(ESRCH);
  auto waiting = std::make_shared<Call>(std::move(call));
  shadows.identity(GlobalPid{pid}, [waiting, field](Result<ProcessIdentity> identity) {
    if (!identity) return waiting->fail(ESRCH);
    waiting->succeed((*identity).*field);
  });
}

void Identity::Impl::get_parent(Call call) {
  const pid_t body = body_of_thread(call.tid());
  if (body == 0) return call.go_on();
  tell(std::move(call), body, &ProcessIdentity::parent);
}

// `pid` 0: the caller.
void Identity::Impl::get(Call call, pid_t pid, Field field) {
  const pid_t named = pid == 0 ? call.tid() : pid;
  if (named < 0) return call.go_on();
  const bool is_here = is_of_this_node(named) || table.find_body(named);
  if (!is_here) return tell(std::move(call), named, field);
  // Without any body's group or session around, the kernel knows.
  if (!table.find_group(getpgid(named)) && (table.bodies().empty() || getsid(named) != getsid(0)))
    return call.go_on();
  auto identity = process_identity(table, named);
  if (!identity) return call.fail(ESRCH);
  call.succeed((*identity).*field);
}

void Identity::Impl::set_group(Call call) {
  const auto named = static_cast<pid_t>(call.arg(0)), group = static_cast<pid_t>(call.arg(1));
  auto caller = read_process_status(call.tid());
  if (!caller) return;  // it has died
  const pid_t pid = named == 0 ? caller->pid : named;
  if (pid < 0 || group < 0) return call.go_on();  // the kernel refuses
  GroupChange change;
  change.is_caller = pid == caller->pid;
  change.is_body = table.find_body(pid) != nullptr;
  change.is_of_this_node = is_of_this_node(pid);
  change.wanted = group == 0 ? pid : group;
  change.is_stray = table.is_at_home(GlobalPid{change.wanted});
  if (auto place = process_identity(table, pid)) change.virtual_group = place->group;
  if (const auto* leader = table.find_group(change.wanted))
    change.wanted_leader_group = leader->virtual_group;
  switch (group_answer(change, node.pids)) {
    case GroupAnswer::kNative:
      return call.go_on();
    case GroupAnswer::kDone:
      return call.succeed(0);
    case GroupAnswer::kNoSuchProcess:
      return call.fail(ESRCH);
    case GroupAnswer::kRefused:
      return call.fail(EPERM);
    case GroupAnswer::kAtShadow:
      break;
  }
  auto waiting = std::make_shared<Call>(std::move(call));
  shadows.set_group(
      GlobalPid{pid}, change.wanted,
      [self = shared_from_this(), waiting, pid, wanted = change.wanted](Status status) {
        if (auto* body = status ? self->table.find_body(pid) : nullptr)
          body->virtual_group = wanted;
        finish(*waiting, status);
      });
}

void Identity::Impl::set_session(Call call) {
  const pid_t pid = body_of_thread(call.tid());
  if (pid == 0) return call.go_on();
  auto waiting = std::make_shared<Call>(std::move(call));
  shadows.set_session(GlobalPid{pid}, [self = shared_from_this(), waiting, pid](Status status) {
    if (!status) return finish(*waiting, status);
    if (auto* body = self->table.find_body(pid)) body->virtual_group = body->virtual_session = pid;
    waiting->succeed(pid);
  });
}

Identity::Identity(NodeContext& node, SyscallBroker& broker, ProcessTable& table,
                   ShadowHost& shadows)
    : impl_(std::make_shared<Impl>(node, table, shadows)) {
  Impl* impl = impl_.get();
  broker.set_handler(SYS_getppid, [impl](Call call) { impl->get_parent(std::move(call)); });
  broker.set_handler(SYS_getpgrp,
                     [impl](Call call) { impl->get(std::move(call), 0, &ProcessIdentity::group); });
  broker.set_handler(SYS_getpgid, [impl](Call call) {
    const auto pid = static_cast<pid_t>(call.arg(0));
    impl->get(std::move(call), pid, &ProcessIdentity::group);
  });
  broker.set_handler(SYS_getsid, [impl](Call call) {
    const auto pid = static_cast<pid_t>(call.arg(0));
    impl->get(std::move(call), pid, &ProcessIdentity::session);
  });
  broker.set_handler(SYS_setpgid, [impl](Call call) { impl->set_group(std::move(call)); });
  broker.set_handler(SYS_setsid, [impl](Call call) { impl->set_session(std::move(call)); });
}
Identity::~Identity() = default;

}  // namespace krg
