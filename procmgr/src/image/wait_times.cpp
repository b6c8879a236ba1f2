// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/wait_times.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <map>
#include <optional>

#include "kernel_values.h"
#include "pid_texts.h"
#include "process_threads.h"
#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr size_t kMostThreads = 64;
constexpr int64_t kNsPerMs = 1'000'000;
constexpr uint64_t kInterrupted = static_cast<uint64_t>(-EINTR);

bool has_time_limit(uint64_t number) {
  return number == SYS_nanosleep || number == SYS_clock_nanosleep || number == SYS_poll ||
         number == SYS_epoll_wait || number == SYS_epoll_pwait || number == SYS_futex ||
         number == SYS_restart_syscall;
}

// The call that restart_syscall goes on with, by what the kernel waits in (/proc/PID/wchan).
uint64_t restarted_call(const std::string& folder, uint64_t first_argument) {
  constexpr uint64_t kMostClocks = 16;
  auto where = read_whole_file(folder + "/wchan");
  if (!where || where->empty() || *where == "0") return SYS_restart_syscall;
  if (where->starts_with("futex_")) return SYS_futex;
  if (where->starts_with("poll_schedule_timeout")) return SYS_poll;
  // Sleeps are the only others that the kernel goes on with so.
  return first_argument < kMostClocks ? SYS_clock_nanosleep : SYS_nanosleep;
}

struct WaitingCall {
  uint64_t number = 0;
  std::array<uint64_t, 4> arguments{};
};

// "7 0x7ffd01 0x1 0x3e8 …" (proc(5), /proc/PID/syscall); nothing when it is not in such a call.
std::optional<WaitingCall> waiting_call(const std::string& folder) {
  auto text = read_whole_file(folder + "/syscall");
  if (!text) return std::nullopt;
  const auto words = split_words(trimmed(*text));
  const auto number = words.empty() ? std::nullopt : to_number<uint64_t>(words[0]);
  if (!number || !has_time_limit(*number) || words.size() < 5) return std::nullopt;
  WaitingCall call{*number, {}};
  for (size_t i = 0; i < call.arguments.size(); ++i) {
    const std::string_view word = words[i + 1];
    const auto value =
        word.starts_with("0x") ? to_number<uint64_t>(word.substr(2), 16) : std::nullopt;
    if (!value) return std::nullopt;
    call.arguments[i] = *value;
  }
  if (call.number == SYS_restart_syscall)
    call.number = restarted_call(folder, call.arguments.front());
  return call;
}

// When it last began or ceased to run, by its processor's own clock: "se.exec_start : 5383.349116".
std::optional<int64_t> last_ran_ns(const std::string& folder) {
  auto text = read_whole_file(folder + "/sched");
  for (std::string_view rest = text ? std::string_view(*text) : ""; !rest.empty();) {
    const auto words = split_words(next_line(rest));
    if (words.size() != 3 || words[0] != "se.exec_start") continue;
    const size_t point = words[2].find('.');
    if (point == std::string_view::npos) return std::nullopt;
    const auto ms = to_number<int64_t>(words[2].substr(0, point));
    const auto ns = to_number<int64_t>(words[2].substr(point + 1));
    if (!ms || !ns) return std::nullopt;
    return *ms * kNsPerMs + *ns;
  }
  return std::nullopt;
}

// What CLOCK_MONOTONIC is ahead of the clocks of processors, each of which goes by itself: this
// thread goes there and looks.
class ProcessorClocks {
 public:
  ProcessorClocks() { is_known_ = sched_getaffinity(0, sizeof own_, &own_) == 0; }
  ~ProcessorClocks() {
    if (!offsets_.empty()) sched_setaffinity(0, sizeof own_, &own_);
  }
  ProcessorClocks(const ProcessorClocks&) = delete;
  ProcessorClocks& operator=(const ProcessorClocks&) = delete;

  std::optional<int64_t> ahead_ns(int processor) {
    if (auto found = offsets_.find(processor); found != offsets_.end()) return found->second;
    cpu_set_t there;
    CPU_ZERO(&there);
    if (!is_known_ || processor < 0 || processor >= CPU_SETSIZE) return std::nullopt;
    CPU_SET(processor, &there);
    if (sched_setaffinity(0, sizeof there, &there) != 0) return std::nullopt;
    const auto ran = last_ran_ns("/proc/thread-self");
    return offsets_[processor] = ran ? std::optional(monotonic_ns() - *ran) : std::nullopt;
  }

 private:
  bool is_known_;
  cpu_set_t own_;
  std::map<int, std::optional<int64_t>> offsets_;
};

std::optional<int> processor_of(const std::string& folder) {
  constexpr size_t kProcessorAt = 36;  // proc(5): field 39; the first after the name is 3
  auto text = read_whole_file(folder + "/stat");
  const size_t name_end = text ? text->rfind(')') : std::string::npos;
  if (name_end == std::string::npos) return std::nullopt;
  const auto words = split_words(std::string_view(*text).substr(name_end + 1));
  return words.size() > kProcessorAt ? to_number<int>(words[kProcessorAt]) : std::nullopt;
}

// A time limit in milliseconds that is the rest of a longer one.
uint64_t rest_of_ms(uint64_t limit, int64_t waited_ns) {
  const int64_t left = static_cast<int32_t>(limit) * kNsPerMs - waited_ns;
  return static_cast<uint64_t>(std::max<int64_t>((left + kNsPerMs - 1) / kNsPerMs, 0));
}

// The time limit at `at` is not to be written: the kernel that goes on with the wait remembers it.
void shorten_remembered(const FrozenProcess& process, ImageThread& thread, uint64_t at,
                        int64_t waited_ns) {
  auto limit = process.read_value<timespec>(RemoteAddr{at});
  if (!limit) return;
  const int64_t left = limit->tv_sec * kNsPerSecond + limit->tv_nsec - waited_ns;
  thread.sleep_left_ns = std::max<int64_t>(left, 1);
  thread.registers.rax = static_cast<uint64_t>(kRestartBlock);
}

void shorten_wait(const FrozenProcess& process, ImageThread& thread, int64_t waited_ns) {
  user_regs_struct& r = thread.registers;
  if (static_cast<int64_t>(r.rax) != kRestartUnlessHandled || thread.sleep_left_ns >= 0) return;
  switch (r.orig_rax) {
    case SYS_poll:
      if (static_cast<int32_t>(r.rdx) > 0) r.rdx = rest_of_ms(r.rdx, waited_ns);
      return;
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
      if (static_cast<int32_t>(r.r10) > 0) r.r10 = rest_of_ms(r.r10, waited_ns);
      return;
    case SYS_nanosleep:
      return shorten_remembered(process, thread, r.rdi, waited_ns);
    case SYS_clock_nanosleep:
      if (!(r.rsi & TIMER_ABSTIME)) shorten_remembered(process, thread, r.rdx, waited_ns);
      return;
    case SYS_futex:
      // All others have absolute limits; shared memory's are answered by krgd.
      if (r.rsi == (FUTEX_WAIT | FUTEX_PRIVATE_FLAG) && r.r10 != 0)
        shorten_remembered(process, thread, r.r10, waited_ns);
      return;
    default:
      return;
  }
}

}  // namespace

WaitTimes WaitTimes::of(pid_t pid) {
  WaitTimes times;
  const std::vector<pid_t> threads = threads_of(pid);
  if (threads.size() > kMostThreads) return times;
  ProcessorClocks clocks;
  for (const pid_t tid : threads) {
    const std::string folder = fmt::format("/proc/{}/task/{}", pid, tid);
    const auto call = waiting_call(folder);
    const auto ran = call ? last_ran_ns(folder) : std::nullopt;
    const auto processor = ran ? processor_of(folder) : std::nullopt;
    const auto ahead = processor ? clocks.ahead_ns(*processor) : std::nullopt;
    if (ahead) times.waits_.push_back({tid, call->number, call->arguments, *ran + *ahead});
  }
  return times;
}

bool WaitTimes::shorten(const FrozenProcess& process, ProcessImage& image) const {
  const int64_t now = monotonic_ns();
  bool knows_all = true;
  for (ImageThread& thread : image.threads) {
    user_regs_struct& r = thread.registers;
    const std::array<uint64_t, 4> arguments{r.rdi, r.rsi, r.rdx, r.r10};
    const auto wait = std::find_if(waits_.begin(), waits_.end(), [&](const Wait& one) {
      return one.tid == thread.tid && one.arguments == arguments;
    });
    const bool is_unknown = r.orig_rax == SYS_restart_syscall && r.rax == kInterrupted;
    if (wait == waits_.end() || wait->began_ns > now) {
      knows_all &= !is_unknown;
      continue;
    }
    // Which call was restarted is not always to be seen in the program (make_restartable()).
    if (is_unknown && wait->number != SYS_restart_syscall) {
      r.orig_rax = wait->number;
      r.rax = static_cast<uint64_t>(kRestartUnlessHandled);
    }
    shorten_wait(process, thread, now - wait->began_ns);
  }
  return knows_all;
}

}  // namespace krg
