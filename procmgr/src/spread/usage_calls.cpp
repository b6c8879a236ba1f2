// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/usage_calls.h"

#include "kernel_values.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/times.h>

#include <cstring>
#include <ctime>

namespace krg {
namespace {

using Form = UsageCall::Form;

// Of a clock's number that names a process or thread: ~id << 3, whether it is a thread's, which
// clock.
constexpr int kOfThread = 4, kWhichClock = 3;
enum { kAllOfIt, kUserTime, kRunTime };

std::optional<UsageCall> of_clock(clockid_t clock, RemoteAddr answer) {
  UsageCall call{.form = Form::kClock, .answer = answer, .bytes = sizeof(timespec)};
  if (clock == CLOCK_PROCESS_CPUTIME_ID) return call;
  call.of_thread = true;
  if (clock == CLOCK_THREAD_CPUTIME_ID) return call;
  if (clock >= 0 || (clock & kWhichClock) > kRunTime) return std::nullopt;
  call.of_thread = (clock & kOfThread) != 0;
  call.pid = ~(clock >> 3);
  if ((clock & kWhichClock) == kUserTime) call.form = Form::kUserClock;
  return call;
}

void add_to(timeval& time, int64_t ns) {
  const int64_t us = time.tv_usec + ns / 1000;
  time.tv_sec += us / 1'000'000;
  time.tv_usec = us % 1'000'000;
}

void add_to(timespec& time, int64_t more_ns) {
  const int64_t ns = time.tv_nsec + more_ns;
  time.tv_sec += ns / kNsPerSecond;
  time.tv_nsec = ns % kNsPerSecond;
}

template <class T, class Change>
std::string changed(std::string bytes, Change change) {
  T value{};
  if (bytes.size() != sizeof value) return bytes;
  std::memcpy(&value, bytes.data(), sizeof value);
  change(value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

}  // namespace

std::optional<UsageCall> usage_call(const user_regs_struct& call) {
  std::optional<UsageCall> found;
  const auto which = static_cast<int>(call.rdi);
  switch (call.orig_rax) {
    case SYS_getrusage:
      found = UsageCall{.form = Form::kUsage,
                        .of_thread = which == RUSAGE_THREAD,
                        .of_children = which == RUSAGE_CHILDREN,
                        .answer = RemoteAddr{call.rsi},
                        .bytes = sizeof(rusage)};
      break;
    case SYS_wait4:
      found = UsageCall{.form = Form::kUsage,
                        .of_children = true,
                        .answer = RemoteAddr{call.r10},
                        .bytes = sizeof(rusage)};
      break;
    case SYS_waitid:
      if (call.rdx == 0) break;  // nobody can tell which child it was
      found = UsageCall{.form = Form::kUsage,
                        .of_children = true,
                        .answer = RemoteAddr{call.r8},
                        .bytes = sizeof(rusage),
                        .info = RemoteAddr{call.rdx}};
      break;
    case SYS_times:
      found = UsageCall{
          .form = Form::kTimes, .answer = RemoteAddr{call.rdi}, .bytes = sizeof(struct tms)};
      break;
    case SYS_clock_gettime:
      found = of_clock(which, RemoteAddr{call.rsi});
      break;
    default:
      break;
  }
  if (found && found->answer.value == 0) return std::nullopt;
  return found;
}

std::string with_more(const UsageCall& call, std::string bytes, const MoreUsage& all,
                      int64_t ticks_per_s) {
  const CpuTime& more = call.of_children ? all.children : all.own;
  const int64_t ns_per_tick = kNsPerSecond / ticks_per_s;
  switch (call.form) {
    case Form::kUsage:
      return changed<rusage>(std::move(bytes), [&](rusage& usage) {
        add_to(usage.ru_utime, more.user_ns);
        add_to(usage.ru_stime, more.system_ns);
      });
    case Form::kTimes:
      return changed<struct tms>(std::move(bytes), [&](struct tms& times) {
        times.tms_utime += all.own.user_ns / ns_per_tick;
        times.tms_stime += all.own.system_ns / ns_per_tick;
        times.tms_cutime += all.children.user_ns / ns_per_tick;
        times.tms_cstime += all.children.system_ns / ns_per_tick;
      });
    case Form::kClock:
    case Form::kUserClock:
      return changed<timespec>(std::move(bytes), [&](timespec& time) {
        add_to(time, call.form == Form::kClock ? more.total_ns() : more.user_ns);
      });
  }
  return bytes;
}

}  // namespace krg
