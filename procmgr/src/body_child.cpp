// What a body does before it is the program; see body_plan.h for what this code may not do.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <csignal>

#include "body_plan.h"
#include "kernel_values.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "raw_syscall.h"

namespace krg {
namespace {

constexpr unsigned kCapabilities = 41;  // CAP_LAST_CAP + 1 of kernel 6.18; more are not there

// Runs the stages; the first failure is reported and ends the child.
class BodyChild {
 public:
  explicit BodyChild(BodyPlan& plan) : plan_(plan), attributes_(plan.spec.attributes) {}

  [[noreturn]] void run() {
    stage_ = BodyStage::kJoinSession;
    join_session();
    stage_ = BodyStage::kChangeDirectory;
    must(raw_call(SYS_chdir, raw_address(plan_.spec.cwd.c_str())));
    stage_ = BodyStage::kAttributes;
    restore_attributes();
    stage_ = BodyStage::kDescriptors;
    place_descriptors();
    restore_limits();  // after the descriptors: they may lie above the limit for new ones
    stage_ = BodyStage::kFilter;
    install_filter();
    stage_ = BodyStage::kCredentials;
    take_credentials();
    restore_signals();
    stage_ = BodyStage::kExec;
    wait_for_permission();
    must(raw_call(SYS_execve, raw_address(plan_.spec.path.c_str()), raw_address(plan_.argv.data()),
                  raw_address(plan_.environment.data()), 0, 0, kUnnotifiedCookie));
    end();
  }

 private:
  int64_t must(int64_t result) {
    if (result >= 0) return result;
    plan_.report = {BodyReport::kFailure, stage_, static_cast<int32_t>(-result)};
    plan_.message.msg_control = nullptr;
    plan_.message.msg_controllen = 0;
    raw_call(SYS_sendmsg, static_cast<uint64_t>(plan_.control), raw_address(&plan_.message),
             MSG_NOSIGNAL);
    end();
  }
  [[noreturn]] void end() {
    for (;;) raw_call(SYS_exit_group, 127);
  }

  void join_session() {
    // A body leads a kernel group of its own, in krgd's session: so that group is never orphaned
    // and terminal stop signals have their default effect.
    must(plan_.place.own_session ? raw_call(SYS_setsid) : raw_call(SYS_setpgid, 0, 0));
    if (plan_.place.uts_ns >= 0)
      must(raw_call(SYS_setns, static_cast<uint64_t>(plan_.place.uts_ns), CLONE_NEWUTS));
    if (plan_.place.mount_ns >= 0)
      must(raw_call(SYS_setns, static_cast<uint64_t>(plan_.place.mount_ns), CLONE_NEWNS));
  }

  void restore_attributes() {
    raw_call(SYS_umask, attributes_.umask);
    must(raw_call(SYS_personality, attributes_.personality));
    if (attributes_.policy != plan_.own.policy) {
      const sched_param parameter{attributes_.realtime_priority};
      must(raw_call(SYS_sched_setscheduler, 0, static_cast<uint64_t>(attributes_.policy),
                    raw_address(&parameter)));
    }
    if (plan_.timer_slack_ns) must(raw_call(SYS_prctl, PR_SET_TIMERSLACK, *plan_.timer_slack_ns));
    // The processors may have become fewer meanwhile: then it is bound to none.
    if (!plan_.processors.empty())
      raw_call(SYS_sched_setaffinity, 0, plan_.processors.size(),
               raw_address(plan_.processors.data()));
    if (attributes_.nice != plan_.own.nice)
      must(raw_call(SYS_setpriority, PRIO_PROCESS, 0, static_cast<uint64_t>(attributes_.nice)));
  }

  // The sources lie above all targets (BodyPlan), so none is overwritten before it is used.
  void place_descriptors() {
    must(raw_call(SYS_close_range, 0, ~0U, CLOSE_RANGE_CLOEXEC));
    for (const BodyPlan::Placed& fd : plan_.fds)
      must(raw_call(SYS_dup3, static_cast<uint64_t>(fd.source), static_cast<uint64_t>(fd.number),
                    0));
    for (const BodyPlan::Polled& polled : plan_.polled)
      must(raw_call(SYS_epoll_ctl, static_cast<uint64_t>(polled.instance), EPOLL_CTL_ADD,
                    static_cast<uint64_t>(polled.number), raw_address(&polled.event)));
  }

  void restore_limits() {
    for (unsigned i = 0; i < attributes_.limits.size(); ++i) {
      const rlimit &wanted = attributes_.limits[i], &own = plan_.own.limits[i];
      if (wanted.rlim_cur == own.rlim_cur && wanted.rlim_max == own.rlim_max) continue;
      must(raw_call(SYS_prlimit64, 0, i, raw_address(&wanted), 0));
    }
  }

  void install_filter() {
    if (plan_.filter.len == 0) return;
    const uint64_t flags =
        SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    const int64_t listener =
        must(raw_call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, raw_address(&plan_.filter)));
    plan_.report = {BodyReport::kListener, stage_, 0};
    plan_.message.msg_control = plan_.ancillary;
    plan_.message.msg_controllen = sizeof plan_.ancillary;
    *reinterpret_cast<int*>(CMSG_DATA(reinterpret_cast<cmsghdr*>(plan_.ancillary))) =
        static_cast<int>(listener);
    must(raw_call(SYS_sendmsg, static_cast<uint64_t>(plan_.control), raw_address(&plan_.message),
                  MSG_NOSIGNAL));
  }

  void take_credentials() {
    const ProcessAttributes& a = attributes_;
    const uint64_t kept = plan_.kept_capabilities;
    // While the bounding set allows it.
    if (kept != 0) set_capabilities(plan_.own.permitted, plan_.own.permitted, kept);
    for (unsigned c = 0; c < kCapabilities; ++c)
      if ((plan_.own.bounding >> c & 1) && !(a.capabilities_bounding >> c & 1))
        must(raw_call(SYS_prctl, PR_CAPBSET_DROP, c));
    // Lost by setresuid from root otherwise.
    must(raw_call(SYS_prctl, PR_SET_KEEPCAPS, 1));
    // Only what differs: in a user namespace with one id nothing may be set, and nothing does.
    if (plan_.spec.groups != plan_.own.groups)
      must(
          raw_call(SYS_setgroups, plan_.spec.groups.size(), raw_address(plan_.spec.groups.data())));
    if (a.gids != plan_.own.gids) must(raw_call(SYS_setresgid, a.gids[0], a.gids[1], a.gids[2]));
    if (a.uids != plan_.own.uids) must(raw_call(SYS_setresuid, a.uids[0], a.uids[1], a.uids[2]));
    set_capabilities(a.capabilities_effective & plan_.own.permitted,
                     (a.capabilities_permitted | kept) & plan_.own.permitted,
                     a.capabilities_inheritable | kept);
    for (unsigned c = 0; c < kCapabilities; ++c)
      if ((a.capabilities_ambient | kept) >> c & 1)
        must(raw_call(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c));
    if (a.no_new_privs) must(raw_call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1));
  }

  void set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2];
    for (unsigned word = 0; word < 2; ++word) {
      auto half = [&](uint64_t set) { return static_cast<uint32_t>(set >> (32 * word)); };
      data[word] = {half(effective), half(permitted), half(inheritable)};
    }
    must(raw_call(SYS_capset, raw_address(&header), raw_address(data)));
  }

  void restore_signals() {
    for (unsigned signal = 1; signal <= kLastSignal; ++signal) {
      const uint64_t bit = uint64_t{1} << (signal - 1);
      KernelSignalAction action{};  // SIG_DFL
      if (attributes_.ignored_signals & bit)
        action.handler = 1;  // SIG_IGN
      else if (!(plan_.own.ignored_signals & bit))
        continue;
      raw_call(SYS_rt_sigaction, signal, raw_address(&action), 0, sizeof action.mask);
    }
    must(raw_call(SYS_rt_sigprocmask, SIG_SETMASK, raw_address(&attributes_.blocked_signals), 0,
                  sizeof attributes_.blocked_signals));
  }

  void wait_for_permission() {
    while (plan_.may_exec.load(std::memory_order_acquire) == 0)
      raw_call(SYS_futex, raw_address(&plan_.may_exec), FUTEX_WAIT, 0, 0);
  }

  BodyPlan& plan_;
  const ProcessAttributes& attributes_;
  BodyStage stage_ = BodyStage::kJoinSession;
};

}  // namespace

void run_body(BodyPlan& plan) {
  BodyChild(plan).run();
}

}  // namespace krg
