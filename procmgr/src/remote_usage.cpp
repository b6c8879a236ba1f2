// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/remote_usage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>

#include "image/known_mappings.h"
#include "kernel_values.h"
#include "krg/procmgr/process_table.h"
#include "krg/procmgr/shared_window.h"
#include "krg/runtime/log.h"
#include "process_status.h"
#include "seized_thread.h"
#include "touch.h"
#include "usage_accounts.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;

class SessionTree : public ProcessTree {
 public:
  Place find(pid_t pid) const override {
    auto stat = read_process_stat(pid);
    return stat ? Place{stat->start_time, stat->parent} : Place{};
  }
};

// The kernel's own codes for "make the call again after the signal" (linux/errno.h).
bool will_restart(int64_t result) {
  return result <= kRestartSystemCall && result >= kRestartBlock;
}

bool is_page_set(pid_t pid, RemoteAddr at) {
  if (at.value - kSharedWindow < kSharedWindowBytes) return true;
  const auto mappings = MappingTexts::read_maps(pid);
  return mappings && std::any_of(mappings->all().begin(), mappings->all().end(),
                                 [at](const MappingText& mapping) {
                                   return mapping.start <= at.value && at.value < mapping.end &&
                                          mapping.name.starts_with(kPageSetName);
                                 });
}

// Whether touching that memory, as the kernel does for the thread, would wait for this loop, which
// itself waits for the thread: memory that nodes share, not here just now.
bool waits_for_loop(pid_t tid, uint64_t address, size_t bytes) {
  return address != 0 && touch_would_fault(tid, RemoteAddr{address}, bytes, true, is_page_set);
}

template <class T>
bool transfer(pid_t tid, uint64_t address, T& value, bool write) {
  if (waits_for_loop(tid, address, sizeof value)) return false;
  iovec local{&value, sizeof value};
  iovec remote{reinterpret_cast<void*>(address), sizeof value};
  const ssize_t moved = write ? process_vm_writev(tid, &local, 1, &remote, 1, 0)
                              : process_vm_readv(tid, &local, 1, &remote, 1, 0);
  return moved == static_cast<ssize_t>(sizeof value);
}

// Adds to what the kernel has just written at `address` in the thread's memory.
void add_in_memory(pid_t tid, uint64_t address, const struct rusage& more) {
  struct rusage usage {};
  if (!transfer(tid, address, usage, false)) return;
  add_usage(usage, more);
  transfer(tid, address, usage, true);
}

void add_ticks_in_memory(pid_t tid, uint64_t address, const struct rusage& more) {
  const long ticks_per_second = sysconf(_SC_CLK_TCK);
  const auto ticks = [&](const timeval& time) {
    return time.tv_sec * ticks_per_second + time.tv_usec * ticks_per_second / 1'000'000;
  };
  struct tms times {};
  if (!transfer(tid, address, times, false)) return;
  times.tms_cutime += ticks(more.ru_utime);
  times.tms_cstime += ticks(more.ru_stime);
  transfer(tid, address, times, true);
}

// A wait4 or waitid with a place for the child's usage.
struct Wait {
  pid_t process = 0;
  int number = 0;
  uint64_t info_address = 0;  // waitid: of the siginfo that names the child
  uint64_t usage_address = 0;
  uint64_t status_address = 0;  // wait4
};

bool writes_where_loop_is_waited_for(pid_t tid, const Wait& wait) {
  return waits_for_loop(tid, wait.info_address, sizeof(siginfo_t)) ||
         waits_for_loop(tid, wait.usage_address, sizeof(struct rusage)) ||
         waits_for_loop(tid, wait.status_address, sizeof(int));
}

Wait wait_of(const Call& call, pid_t process) {
  if (call.number() == SYS_wait4) return {process, SYS_wait4, 0, call.arg(3), call.arg(1)};
  return {process, SYS_waitid, call.arg(2), call.arg(4), 0};
}

// True while the thread sleeps in this system call.
bool is_in_call(pid_t tid, int number) {
  UniqueFd file(open(fmt::format("/proc/{}/syscall", tid).c_str(), O_RDONLY | O_CLOEXEC));
  char text[32] = {};
  return file && read(file.get(), text, sizeof text - 1) > 0 && atoi(text) == number;
}

// Which child the finished wait reported; 0 for none.
pid_t waited_child(pid_t tid, const Wait& wait, int64_t result) {
  if (wait.number == SYS_wait4) return result > 0 ? static_cast<pid_t>(result) : 0;
  siginfo_t info{};
  if (result != 0 || wait.info_address == 0) return 0;
  return transfer(tid, wait.info_address, info, false) ? info.si_pid : 0;
}

}  // namespace

struct RemoteUsage::Impl {
  // A wait in the kernel whose thread is traced: it stops when it comes back.
  struct Attended {
    SeizedThread thread;
    Wait wait;
  };

  explicit Impl(ChildReaper& children) : reaper(children), accounts(tree) {}

  void on_children_usage(Call call);
  void on_wait(Call call);
  void attend(Call call, const Wait& wait);
  void watch(SeizedThread thread, const Wait& wait);
  void on_stop(pid_t tid, const ChildEvent& event);
  void finish(const SeizedThread& thread, const Wait& wait);
  void disturb_blocked_waits(const std::vector<pid_t>& ancestors);

  ChildReaper& reaper;
  SessionTree tree;
  UsageAccounts accounts;
  std::map<pid_t, Attended> attended;  // by thread
  std::map<pid_t, Wait> blocked;       // went on in the kernel, unattended; may be over long since
};

void RemoteUsage::Impl::on_children_usage(Call call) {
  auto status = read_process_status(call.tid());
  auto more = status ? accounts.of_children(status->pid) : std::nullopt;
  if (!more) return call.go_on();
  const pid_t tid = call.tid();
  const bool in_ticks = call.number() == SYS_times;
  const uint64_t address = call.arg(in_ticks ? 0 : 1);
  if (waits_for_loop(tid, address, sizeof(struct rusage))) return call.go_on();
  auto thread = SeizedThread::seize_and_interrupt(tid);
  call.go_on();
  if (!thread || thread->wait() == SeizedThread::Stop::kGone) return;
  if (thread->result() < 0 || address == 0) return;
  if (in_ticks)
    add_ticks_in_memory(tid, address, *more);
  else
    add_in_memory(tid, address, *more);
}

void RemoteUsage::Impl::on_wait(Call call) {
  const pid_t tid = call.tid();
  if (attended.contains(tid)) return call.go_on();  // made again under our eyes
  auto status = read_process_status(tid);
  if (!status) return call.go_on();
  const Wait wait = wait_of(call, status->pid);
  if (accounts.concerns_waits_of(status->pid) && !writes_where_loop_is_waited_for(tid, wait))
    return attend(std::move(call), wait);
  blocked[tid] = wait;
  call.go_on();
}

// With the interrupt pending, the kernel looks for a child once and comes back: with one, or with a
// call that it will make again. In the second case the thread is traced into its next attempt.
void RemoteUsage::Impl::attend(Call call, const Wait& wait) {
  const pid_t tid = call.tid();
  auto thread = SeizedThread::seize_and_interrupt(tid);
  call.go_on();
  if (!thread) {
    log_debug("usage", "thread {}: {}", tid, thread.error().message());
    return;
  }
  const SeizedThread::Stop stop = thread->wait();
  if (stop == SeizedThread::Stop::kGone) return;
  if (!will_restart(thread->result())) return finish(*thread, wait);
  // A signal that waits for the thread is taken first: then the call is met again at its restart.
  if (!thread->resume() || thread->wait() != SeizedThread::Stop::kSystemCall) return;
  if (thread->resume()) watch(std::move(*thread), wait);
}

void RemoteUsage::Impl::watch(SeizedThread thread, const Wait& wait) {
  const pid_t tid = thread.tid();
  attended.emplace(tid, Attended{std::move(thread), wait});
  reaper.watch_tracee(tid, [this, tid](const ChildEvent& event) { on_stop(tid, event); });
}

// The attended wait has come to its end, whatever ended it: let go.
void RemoteUsage::Impl::on_stop(pid_t tid, const ChildEvent& event) {
  auto node = attended.extract(tid);
  if (node.empty()) return;
  Attended& entry = node.mapped();
  if (event.is_end()) return entry.thread.forget();
  reaper.unwatch_tracee(tid);
  entry.thread.took(event.status);
  finish(entry.thread, entry.wait);
}

void RemoteUsage::Impl::finish(const SeizedThread& thread, const Wait& wait) {
  if (!thread.comes_from(wait.number)) return;
  const pid_t child = waited_child(thread.tid(), wait, thread.result());
  if (child == 0) return;
  if (auto more = accounts.of_waited_child(wait.process, child))
    add_in_memory(thread.tid(), wait.usage_address, *more);
}

// Waits that began before there was anything to add are made to begin again, or attended to the end
// that they are just coming to.
void RemoteUsage::Impl::disturb_blocked_waits(const std::vector<pid_t>& ancestors) {
  if (blocked.empty()) return;
  for (pid_t process : ancestors)
    std::erase_if(blocked, [&](const auto& entry) {
      const auto& [tid, wait] = entry;
      if (wait.process != process) return false;
      if (is_in_call(tid, wait.number) && !attended.contains(tid))
        if (auto thread = SeizedThread::seize_and_interrupt(tid)) watch(std::move(*thread), wait);
      return true;
    });
}

RemoteUsage::RemoteUsage(SyscallBroker& broker, ChildReaper& reaper)
    : impl_(std::make_unique<Impl>(reaper)) {
  for (int number : {SYS_getrusage, SYS_times})
    broker.set_handler(
        number, [impl = impl_.get()](Call call) { impl->on_children_usage(std::move(call)); });
  for (int number : {SYS_wait4, SYS_waitid})
    broker.set_handler(number, [impl = impl_.get()](Call call) { impl->on_wait(std::move(call)); });
}
RemoteUsage::~RemoteUsage() = default;

void RemoteUsage::body_ended(pid_t shadow, const struct rusage& usage) {
  impl_->disturb_blocked_waits(impl_->accounts.child_ends(shadow, usage));
}

std::optional<struct rusage> RemoteUsage::of_children(pid_t pid) {
  return impl_->accounts.of_children(pid);
}

std::optional<struct rusage> RemoteUsage::of_waited_child(pid_t pid, pid_t child) {
  return impl_->accounts.of_waited_child(pid, child);
}

std::optional<struct rusage> RemoteUsage::close(pid_t pid) {
  return impl_->accounts.close(pid);
}

}  // namespace krg
