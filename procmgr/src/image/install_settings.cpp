// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/capability.h>
#include <linux/prctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <csignal>
#include <ctime>

#include "image/call_batch.h"
#include "image/install_parts.h"
#include "kernel_values.h"
#include "process_spec.h"

namespace krg {
namespace {

constexpr uint64_t kSetMemoryMerge = 67;  // prctl(2), not in every header
constexpr int kMostTimers = 10000;        // that are made to come to an id
// prctl(2), not in every header: timers get the ids that are asked for (Linux 6.15).
constexpr uint64_t kTimersHaveGivenIds = 77;

void set_layout(CallBatch& batch, const ProcessImage& image, int program) {
  const ImageLayout& l = image.layout;
  const RemoteAddr auxv = batch.put(std::span<const char>(image.auxv));
  prctl_mm_map map{};
  map.start_code = l.start_code;
  map.end_code = l.end_code;
  map.start_data = l.start_data;
  map.end_data = l.end_data;
  map.start_brk = l.start_brk;
  map.brk = l.brk;
  map.start_stack = l.start_stack;
  map.arg_start = l.arg_start;
  map.arg_end = l.arg_end;
  map.env_start = l.env_start;
  map.env_end = l.env_end;
  map.auxv = reinterpret_cast<__u64*>(auxv.value);
  map.auxv_size = static_cast<uint32_t>(image.auxv.size());
  map.exe_fd = static_cast<uint32_t>(program);
  const RemoteAddr at = batch.put(map);
  batch.add(SYS_prctl, {PR_SET_MM, PR_SET_MM_MAP, at.value, sizeof map, 0});
}

void set_signal_actions(CallBatch& batch, const ProcessImage& image) {
  for (const ImageSignalAction& a : image.signal_actions) {
    const RemoteAddr at = batch.put(KernelSignalAction{a.handler, a.flags, a.restorer, a.mask});
    batch.add(SYS_rt_sigaction, {a.signal, at.value, 0, sizeof a.mask});
  }
}

itimerspec times(const ImageTimer& timer) {
  const auto time = [](int64_t ns) { return timespec{ns / kNsPerSecond, ns % kNsPerSecond}; };
  return {time(timer.interval_ns), time(timer.left_ns)};
}

// Makes `timer`, not armed, with its own id. A kernel that does not let ids be chosen counts them
// up, past execs, too: what comes before this one is made and deleted then.
Status make_timer(FrozenProcess& process, const ImageTimer& timer, RemoteAddr scratch) {
  const RemoteAddr id_at = scratch + sizeof(sigevent);
  sigevent event{};
  event.sigev_signo = timer.signal;
  event.sigev_notify = timer.notify;
  event.sigev_value.sival_ptr = reinterpret_cast<void*>(timer.value);
  event._sigev_un._tid = timer.thread;
  if (auto put = process.write_value(scratch, event); !put) return put;
  if (auto asked = process.write_value(id_at, timer.id); !asked) return asked;
  for (int made = 0; made < kMostTimers; ++made) {
    const int64_t result = process.call(
        SYS_timer_create, {static_cast<uint64_t>(timer.clock), scratch.value, id_at.value});
    if (result < 0) return done_by_call("timers", result);
    auto id = process.read_value<int32_t>(id_at);
    if (!id) return id.error();
    if (*id == timer.id) return {};
    process.call(SYS_timer_delete, {static_cast<uint64_t>(*id)});
    if (*id > timer.id) break;
  }
  return cannot_move("a timer whose number is not to be had (before Linux 6.15)");
}

}  // namespace

Status install_settings(FrozenProcess& process, const ProcessImage& image, int program) {
  CallBatch batch(process);
  set_layout(batch, image, program);
  set_signal_actions(batch, image);
  const size_t needed = batch.size();
  if (image.no_huge_pages) batch.add(SYS_prctl, {PR_SET_THP_DISABLE, 1, 0, 0, 0});
  if (image.merges_pages) batch.add(SYS_prctl, {kSetMemoryMerge, 1, 0, 0, 0});
  if (image.is_subreaper) batch.add(SYS_prctl, {PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0});
  if (auto run = batch.run(); !run) return run;
  for (size_t i = 0; i < needed; ++i)
    if (auto set = done_by_call(i == 0 ? "memory layout" : "signal actions", batch.result(i)); !set)
      return set;
  return {};
}

Status install_timers(FrozenProcess& process, const ProcessImage& image) {
  if (image.timers.empty()) return {};
  auto scratch = process.scratch();
  if (!scratch) return scratch.error();
  process.call(SYS_prctl, {kTimersHaveGivenIds, 1, 0, 0, 0});
  Status made;
  for (const ImageTimer& timer : image.timers)
    if (made = make_timer(process, timer, *scratch); !made) break;
  process.call(SYS_prctl, {kTimersHaveGivenIds, 0, 0, 0, 0});
  return made;
}

Status start_timers(FrozenProcess& process, const ProcessImage& image) {
  CallBatch batch(process);
  for (const ImageTimer& timer : image.timers) {
    if (timer.left_ns == 0) continue;  // disarmed
    const RemoteAddr at = batch.put(times(timer));
    batch.add(SYS_timer_settime, {static_cast<uint64_t>(timer.id), 0, at.value, 0});
  }
  for (size_t which = 0; which < image.interval_timers.size(); ++which) {
    const itimerval& timer = image.interval_timers[which];
    if (timer.it_value.tv_sec == 0 && timer.it_value.tv_usec == 0) continue;
    batch.add(SYS_setitimer, {which, batch.put(timer).value, 0});
  }
  if (batch.size() == 0) return {};
  if (auto run = batch.run(); !run) return run;
  for (size_t i = 0; i < batch.size(); ++i)
    if (auto set = done_by_call("timers", batch.result(i)); !set) return set;
  return {};
}

Status install_capabilities(FrozenProcess& process, const ProcessImage& image) {
  auto status = StatusText::read(process.pid());
  if (!status) return status.error();
  const ProcessAttributes& wanted = image.spec.attributes;
  const auto permitted = status->number<uint64_t>("CapPrm", 16);
  const uint64_t keep = wanted.capabilities_permitted & permitted;
  const uint64_t effective = wanted.capabilities_effective & permitted;
  if (keep == permitted && effective == status->number<uint64_t>("CapEff", 16) &&
      wanted.capabilities_inheritable == status->number<uint64_t>("CapInh", 16))
    return {};
  auto scratch = process.scratch();
  if (!scratch) return scratch.error();
  struct {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {};
  } call;
  for (unsigned word = 0; word < 2; ++word) {
    const auto half = [&](uint64_t set) { return static_cast<uint32_t>(set >> (32 * word)); };
    call.data[word] = {half(effective), half(keep), half(wanted.capabilities_inheritable)};
  }
  const RemoteAddr data = *scratch + sizeof call.header;
  for (const auto& thread : process.threads()) {
    if (auto put = process.write_value(*scratch, call); !put) return put;
    auto set = done_by_call("capabilities",
                            process.call_in(*thread, SYS_capset, {scratch->value, data.value}));
    if (!set) return set;
  }
  return {};
}

}  // namespace krg
