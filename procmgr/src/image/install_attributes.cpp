// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <csignal>
#include <fstream>

#include "image/install_parts.h"
#include "kernel_values.h"
#include "krg/runtime/log.h"
#include "process_spec.h"

namespace krg {
namespace {

constexpr unsigned kCapabilities = 41;  // CAP_LAST_CAP + 1 of kernel 6.18; more are not there

// Has system calls made whose arguments lie in scratch memory.
class Attributes {
 public:
  Attributes(FrozenProcess& process, RemoteAddr scratch, const ProcessAttributes& own)
      : process_(process), scratch_(scratch), own_(own) {}

  Status enter(const std::string& folder) {
    if (folder.size() + 1 > FrozenProcess::kScratchBytes)
      return errno_error("working directory", ENAMETOOLONG);
    const std::string_view text(folder.c_str(), folder.size() + 1);
    if (auto put = process_.write(scratch_, text); !put) return put;
    return done_by_call(folder.c_str(), process_.call(SYS_chdir, {scratch_.value}));
  }

  Status set_simple(const ProcessAttributes& wanted) {
    process_.call(SYS_umask, {wanted.umask});
    if (wanted.personality != own_.personality)
      if (auto set =
              done_by_call("personality", process_.call(SYS_personality, {wanted.personality}));
          !set)
        return set;
    for (uint64_t i = 0; i < wanted.limits.size(); ++i) {
      const rlimit &limit = wanted.limits[i], &now = own_.limits[i];
      if (limit.rlim_cur == now.rlim_cur && limit.rlim_max == now.rlim_max) continue;
      if (auto put = process_.write_value(scratch_, limit); !put) return put;
      auto set = done_by_call("limits", process_.call(SYS_prlimit64, {0, i, scratch_.value, 0}));
      if (!set) return set;
    }
    return {};
  }

  // Whose threads have priorities of their own besides (install_threads()).
  Status set_scheduling(const ProcessAttributes& wanted) {
    if (wanted.policy != own_.policy || wanted.realtime_priority != own_.realtime_priority) {
      const int32_t parameter = wanted.realtime_priority;
      if (auto put = process_.write_value(scratch_, parameter); !put) return put;
      auto set = done_by_call(
          "scheduling", process_.call(SYS_sched_setscheduler,
                                      {0, static_cast<uint64_t>(wanted.policy), scratch_.value}));
      if (!set) return set;
    }
    if (wanted.nice == own_.nice) return {};
    return done_by_call(
        "priority",
        process_.call(SYS_setpriority, {PRIO_PROCESS, 0, static_cast<uint64_t>(wanted.nice)}));
  }

  // Those that its exec has left ignored and that are not any more.
  Status reset_signals(const ProcessImage& image) {
    uint64_t reset = own_.ignored_signals;
    for (const ImageSignalAction& action : image.signal_actions)
      reset &= ~(uint64_t{1} << (action.signal - 1));
    for (uint64_t signal = 1; signal <= kLastSignal; ++signal) {
      if (!(reset >> (signal - 1) & 1)) continue;
      if (auto put = process_.write_value(scratch_, KernelSignalAction{}); !put) return put;
      process_.call(SYS_rt_sigaction,
                    {signal, scratch_.value, 0, sizeof(KernelSignalAction::mask)});
    }
    return {};
  }

  // Each thread has its own.
  Status set_credentials(FrozenThread& thread, const ProcessAttributes& wanted,
                         const std::vector<gid_t>& groups, bool groups_differ) {
    for (uint64_t c = 0; c < kCapabilities; ++c)
      if ((own_.capabilities_bounding >> c & 1) && !(wanted.capabilities_bounding >> c & 1))
        process_.call_in(thread, SYS_prctl, {PR_CAPBSET_DROP, c});
    // Lost by setresuid from root otherwise.
    process_.call_in(thread, SYS_prctl, {PR_SET_KEEPCAPS, 1, 0, 0, 0});
    if (groups_differ) {
      const std::string_view bytes(reinterpret_cast<const char*>(groups.data()),
                                   groups.size() * sizeof(gid_t));
      if (auto put = process_.write(scratch_, bytes); !put) return put;
      auto set = done_by_call(
          "groups", process_.call_in(thread, SYS_setgroups, {groups.size(), scratch_.value}));
      if (!set) return set;
    }
    if (wanted.gids != own_.gids) {
      auto set =
          done_by_call("group", process_.call_in(thread, SYS_setresgid,
                                                 {wanted.gids[0], wanted.gids[1], wanted.gids[2]}));
      if (!set) return set;
    }
    if (wanted.uids != own_.uids) {
      auto set =
          done_by_call("user", process_.call_in(thread, SYS_setresuid,
                                                {wanted.uids[0], wanted.uids[1], wanted.uids[2]}));
      if (!set) return set;
    }
    process_.call_in(thread, SYS_prctl, {PR_SET_KEEPCAPS, 0, 0, 0, 0});
    process_.call_in(thread, SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0});
    for (uint64_t c = 0; c < kCapabilities; ++c)
      if (wanted.capabilities_ambient >> c & 1)
        process_.call_in(thread, SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c, 0, 0});
    if (wanted.no_new_privs && !own_.no_new_privs)
      process_.call_in(thread, SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0});
    return {};
  }

 private:
  FrozenProcess& process_;
  const RemoteAddr scratch_;
  const ProcessAttributes& own_;
};

}  // namespace

Status install_attributes(FrozenProcess& process, const ProcessImage& image) {
  auto status = StatusText::read(process.pid());
  auto caller = read_exec_caller(process.pid());
  auto scratch = process.scratch();
  if (!status) return status.error();
  if (!caller) return caller.error();
  if (!scratch) return scratch.error();
  ProcessAttributes own;
  if (auto read = read_attributes(process.pid(), *caller, *status, own); !read) return read;
  const ProcessAttributes& wanted = image.spec.attributes;
  Attributes attributes(process, *scratch, own);
  if (auto set = attributes.set_simple(wanted); !set) return set;
  if (auto set = attributes.set_scheduling(wanted); !set) return set;
  if (auto set = attributes.reset_signals(image); !set) return set;
  const bool groups_differ = groups_of(*status) != image.spec.groups;
  for (const auto& thread : process.threads()) {
    auto set = attributes.set_credentials(*thread, wanted, image.spec.groups, groups_differ);
    if (!set) return set;
  }
  if (wanted.oom_score_adj != own.oom_score_adj) {
    std::ofstream file(fmt::format("/proc/{}/oom_score_adj", process.pid()));
    if (!(file << wanted.oom_score_adj << std::flush))
      log_warn("image", "{}: oom_score_adj {} is not to be had", process.pid(),
               wanted.oom_score_adj);
  }
  return attributes.enter(image.spec.cwd);  // as who it is now
}

}  // namespace krg
