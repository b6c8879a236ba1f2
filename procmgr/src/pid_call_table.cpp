// SPDX-License-Identifier: GPL-2.0-or-later
#include "pid_call_table.h"

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>

namespace krg {
namespace {

constexpr size_t kSchedAttrBytes = 56;  // struct sched_attr of Linux 5.8 (SCHED_ATTR_SIZE_VER1)
static_assert(sizeof(siginfo_t) == 128 && sizeof(struct rlimit) == 16 && sizeof(sched_param) == 4);

constexpr CallBuffer fixed(unsigned arg, size_t bytes) {
  return {arg, bytes};
}
constexpr CallBuffer sized(unsigned arg, unsigned bytes_arg) {
  return {arg, 0, bytes_arg};
}

constexpr PidCall kPidCalls[] = {
    {SYS_kill, "kill", 0},
    {SYS_tkill, "tkill", 0},
    {SYS_tgkill, "tgkill", 0},
    {SYS_rt_sigqueueinfo, "rt_sigqueueinfo", 0, fixed(2, sizeof(siginfo_t))},
    {SYS_rt_tgsigqueueinfo, "rt_tgsigqueueinfo", 0, fixed(3, sizeof(siginfo_t))},
    {SYS_prlimit64, "prlimit64", 0, fixed(2, sizeof(struct rlimit)),
     fixed(3, sizeof(struct rlimit))},
    {SYS_getpriority, "getpriority", 1},
    {SYS_setpriority, "setpriority", 1},
    {SYS_ioprio_get, "ioprio_get", 1},
    {SYS_ioprio_set, "ioprio_set", 1},
    {SYS_sched_getparam, "sched_getparam", 0, {}, fixed(1, sizeof(sched_param))},
    {SYS_sched_setparam, "sched_setparam", 0, fixed(1, sizeof(sched_param))},
    {SYS_sched_getscheduler, "sched_getscheduler", 0},
    {SYS_sched_setscheduler, "sched_setscheduler", 0, fixed(2, sizeof(sched_param))},
    {SYS_sched_getattr, "sched_getattr", 0, {}, sized(1, 2)},
    {SYS_sched_setattr, "sched_setattr", 0, fixed(1, kSchedAttrBytes)},
    {SYS_sched_getaffinity, "sched_getaffinity", 0, {}, sized(2, 1)},
    {SYS_sched_setaffinity, "sched_setaffinity", 0, sized(2, 1)},
};

}  // namespace

std::span<const PidCall> pid_calls() {
  return kPidCalls;
}

const PidCall* find_pid_call(int number) {
  const auto* found = std::find_if(std::begin(kPidCalls), std::end(kPidCalls),
                                   [&](const PidCall& call) { return call.number == number; });
  return found == std::end(kPidCalls) ? nullptr : found;
}

size_t bytes_of(const CallBuffer& buffer, const RawCall& call) {
  if (!buffer.exists() || call.args[buffer.arg] == 0) return 0;
  if (buffer.bytes_arg == CallBuffer::kNone) return buffer.bytes;
  return static_cast<uint32_t>(call.args[buffer.bytes_arg]);
}

}  // namespace krg
