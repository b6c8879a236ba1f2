// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/sleep_book.h"

#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>

#include "image/frozen_process.h"
#include "image/process_image.h"
#include "kernel_values.h"

namespace krg {
namespace {

// A wait that should have ended so long ago was another one.
constexpr int64_t kLatest_ns = kNsPerSecond;

std::array<uint64_t, 4> arguments_of(const user_regs_struct& r) {
  return {r.rdi, r.rsi, r.rdx, r.r10};
}

}  // namespace

void SleepBook::note(const ProcessImage& image) {
  const int64_t now = monotonic_ns();
  std::erase_if(sleeps_,
                [&](const auto& sleep) { return sleep.second.ends_ns < now - kLatest_ns; });
  for (const ImageThread& thread : image.threads) {
    sleeps_.erase(thread.tid);
    if (thread.sleep_left_ns < 0) continue;
    Sleep sleep{thread.registers.orig_rax, {}, now + thread.sleep_left_ns};
    std::ranges::copy(arguments_of(thread.registers), sleep.arguments);
    sleeps_.emplace(thread.tid, sleep);
  }
}

void SleepBook::take_out(const FrozenProcess& process, ProcessImage& image) {
  const int64_t now = monotonic_ns();
  for (size_t i = 0; i < image.threads.size(); ++i) {
    ImageThread& thread = image.threads[i];
    const user_regs_struct& before = process.threads()[i]->registers();
    const auto found = sleeps_.extract(thread.tid);
    user_regs_struct& r = thread.registers;
    // The call that was made when it came here, not another like it.
    if (found.empty() || thread.sleep_left_ns >= 0) continue;
    if (before.orig_rax != SYS_restart_syscall && before.rax != SYS_restart_syscall) continue;
    const Sleep& sleep = found.mapped();
    if (!std::ranges::equal(arguments_of(r), sleep.arguments)) continue;
    if (sleep.ends_ns < now - kLatest_ns) continue;
    r.orig_rax = sleep.call;
    r.rax = static_cast<uint64_t>(kRestartBlock);
    thread.sleep_left_ns = std::max<int64_t>(sleep.ends_ns - now, 1);
  }
}

}  // namespace krg
