// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/exec_placer.h"

#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "body_host.h"
#include "body_request.h"
#include "krg/procmgr/job_namespaces.h"
#include "krg/runtime/log.h"

namespace krg {

using namespace exec_messages;

namespace {

// A child of vfork(2) or posix_spawn(3) does with its parent. It always execs, and tells nothing of
// the children of fork(2).
bool share_memory(pid_t child, pid_t parent) {
  return syscall(SYS_kcmp, child, parent, KCMP_VM, 0, 0) == 0;
}

}  // namespace

struct ExecPlacer::Impl : std::enable_shared_from_this<Impl> {
  // One exec that is being placed. Until its caller has become a shadow it can go on natively:
  // dropping it does that.
  struct Placing {
    SyscallBroker::Call exec;
    ProcessTable::Claim claim;
    NodeId target;
    ExecCaller caller;
    Result<CapabilitySets> capabilities;
    std::optional<JobId> job;
    // Read by a worker while the loop exports the descriptors.
    Result<ExecSpec> spec;
    Result<std::vector<ExportedFd>> fds;
    unsigned under_way = 2;

    pid_t pid() const { return exec.tid(); }
  };
  using PlacingPtr = std::shared_ptr<Placing>;

  NodeContext& node;
  Parts parts;
  BodyHost bodies;
  size_t placing_count = 0;

  Impl(NodeContext& n, Parts p) : node(n), parts(p), bodies(n, p) {}

  void on_exec(SyscallBroker::Call exec);
  void read_spec(PlacingPtr placing);
  void export_descriptors(PlacingPtr placing);
  void taken_down(PlacingPtr placing);
  void cancel_export(Placing& placing);
  void ask_target(PlacingPtr placing);
  void on_target_answer(PlacingPtr placing, Result<std::string> reply);
  void stay(Placing& placing, const Error& why);
};

// Most execs are none of our business: this is what they pay.
void ExecPlacer::Impl::on_exec(SyscallBroker::Call exec) {
  if (!parts.capabilities.any_distant_fork() || placing_count >= kMaxPlacing) return;
  auto caller = read_exec_caller(exec.tid());
  if (!caller) return;
  parts.forkers.execs(exec.tid());
  if (caller->has_execed) return bodies.execs(exec.tid());
  auto forker = parts.forkers.of_child(exec.tid(), caller->parent);
  if (!forker) return;
  if (parts.on_first_exec && !share_memory(exec.tid(), caller->parent))
    parts.on_first_exec(forker->program);
  if (!forker->sets.effective.has(Capability::kDistantFork)) return;
  auto claim = parts.table.claim(exec.tid());
  if (!claim) return;
  const NodeId target = parts.placement.choose(GlobalPid{exec.tid()});
  if (target == node.self) return;
  ++placing_count;
  auto placing = std::make_shared<Placing>(Placing{
      std::move(exec), std::move(*claim), target, *caller, errno_error("not read", ENODATA),
      std::nullopt, errno_error("not read", ENODATA), errno_error("not exported", ENODATA)});
  read_spec(placing);
  placing->capabilities = parts.capabilities.of(placing->pid());
  if (node.jobs) placing->job = node.jobs->job_of(placing->pid());
  export_descriptors(placing);
}

void ExecPlacer::Impl::read_spec(PlacingPtr placing) {
  node.workers.submit(
      [placing, mount_ns = node.session_mount_ns] {
        placing->spec = read_exec_spec(placing->exec, placing->caller, mount_ns);
      },
      [self = shared_from_this(), placing] { self->taken_down(placing); });
}

void ExecPlacer::Impl::export_descriptors(PlacingPtr placing) {
  parts.descriptors.export_fds(
      placing->pid(), WhichFds::kKeptByExec,
      [self = shared_from_this(), placing](Result<std::vector<ExportedFd>> fds) {
        placing->fds = std::move(fds);
        self->taken_down(placing);
      });
}

void ExecPlacer::Impl::taken_down(PlacingPtr placing) {
  if (--placing->under_way > 0) return;
  if (!placing->spec) {
    cancel_export(*placing);
    return stay(*placing, placing->spec.error());
  }
  if (!placing->fds) return stay(*placing, placing->fds.error());
  if (!placing->capabilities) {
    cancel_export(*placing);
    return stay(*placing, placing->capabilities.error());
  }
  ask_target(placing);
}

void ExecPlacer::Impl::cancel_export(Placing& placing) {
  if (placing.fds) parts.descriptors.cancel_export(*placing.fds);
}

void ExecPlacer::Impl::ask_target(PlacingPtr placing) {
  StartBody ask;
  ask.pid = placing->pid();
  ask.origin = node.self;
  // In a body's group here, its shadow's group and session are meant.
  const ExecCaller& caller = placing->caller;
  const auto place =
      process_identity(parts.table, ask.pid, {caller.parent, caller.group, caller.session});
  ask.group = place.group;
  ask.session = place.session;
  ask.capabilities = *placing->capabilities;
  if (placing->job) {
    ask.has_job = 1;
    ask.job = placing->job->value;
  }
  BodyRequest request;
  request.what = std::move(*placing->spec);
  request.fds = *placing->fds;
  node.messenger.request(placing->target, ask, request.serialize(),
                         [self = shared_from_this(), placing](Result<std::string> reply) {
                           self->on_target_answer(placing, std::move(reply));
                         });
}

void ExecPlacer::Impl::on_target_answer(PlacingPtr placing, Result<std::string> reply) {
  if (!reply) {
    const int number = reply.error().errno_or(EIO);
    if (number == kNotImported || number == EHOSTDOWN) cancel_export(*placing);
    // The kernel here says why the exec fails, or carries it out.
    return stay(*placing, error_of_answer(reply.error()));
  }
  --placing_count;
  const pid_t pid = placing->pid();
  const ProcessTable::Shadow entry{placing->target, placing->job.value_or(JobId{})};
  auto converted = parts.shadows.become_shadow(std::move(placing->exec), entry);
  if (converted) return;
  log_warn("exec", "process {} has no shadow for its body on node {}: {}", pid,
           placing->target.value, converted.error().message());
  ShadowDied died;
  died.pid = pid;
  if (!node.messenger.send(placing->target, died))
    log_debug("exec", "node {} has failed", placing->target.value);
  parts.placement.ended(GlobalPid{pid});
}

void ExecPlacer::Impl::stay(Placing& placing, const Error& why) {
  log_debug("exec", "process {} stays: {}", placing.pid(), why.message());
  parts.placement.ended(GlobalPid{placing.pid()});
  --placing_count;
  placing.exec.go_on();
}

ExecPlacer::ExecPlacer(NodeContext& node, Parts parts)
    : impl_(std::make_shared<Impl>(node, parts)) {
  std::weak_ptr<Impl> weak = impl_;
  parts.broker.set_handler(SYS_execve, [weak](SyscallBroker::Call exec) {
    if (auto self = weak.lock()) self->on_exec(std::move(exec));
  });
  parts.shadows.on_shadow_end([weak](pid_t pid) {
    if (auto self = weak.lock()) self->parts.placement.ended(GlobalPid{pid});
  });
}
ExecPlacer::~ExecPlacer() = default;

}  // namespace krg
