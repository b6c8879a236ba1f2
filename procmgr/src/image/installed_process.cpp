// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <ctime>

#include "image/image_installer.h"
#include "image/install_parts.h"
#include "krg/procmgr/shadow_host.h"
#include "krg/shmem/page_set.h"
#include "stop_state.h"

namespace krg {
namespace {

constexpr uint64_t kSetMdwe = 65;  // prctl(2), not in every header

// What the call looks at when it begins, and where it tells what is left of it.
uint64_t touched_by_sleep(const user_regs_struct& registers) {
  return registers.orig_rax == SYS_futex       ? registers.rdi
         : registers.orig_rax == SYS_nanosleep ? registers.rsi
                                               : registers.r10;
}

}  // namespace

std::vector<RemoteAddr> pages_before_thaw(const ProcessImage& image) {
  std::vector<RemoteAddr> pages;
  const auto add = [&](uint64_t at, uint64_t bytes) {
    for (uint64_t page = at / kPageBytes; page <= (at + bytes - 1) / kPageBytes; ++page)
      pages.push_back(RemoteAddr{page * kPageBytes});
  };
  for (const ImageThread& thread : image.threads) {
    if (thread.rseq != 0) add(thread.rseq, thread.rseq_bytes);
    if (thread.sleep_left_ns >= 0 && touched_by_sleep(thread.registers) != 0)
      add(touched_by_sleep(thread.registers), sizeof(timespec));
  }
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages;
}

Status InstalledProcess::touch_first_pages() const {
  for (RemoteAddr page : pages_before_thaw(image_)) {
    const auto first = process_->read_value<char>(page);
    if (!first) return first.error();
    if (auto touched = process_->write_value(page, *first); !touched) return touched;
  }
  return {};
}

InstalledProcess::~InstalledProcess() {
  if (!process_ || has_thawed_) return;
  process_->on_end(nullptr);
  home_ ? home_->take_back(*process_) : process_->kill();
}

Status InstalledProcess::hold_huge_pages_back() {
  holds_huge_pages_back_ = true;
  return done_by_call("huge pages", process_->call(SYS_prctl, {PR_SET_THP_DISABLE, 1, 0, 0, 0}));
}

Status InstalledProcess::finish() {
  FrozenProcess& process = *process_;
  if (holds_huge_pages_back_ && image_.no_huge_pages == 0)
    process.call(SYS_prctl, {PR_SET_THP_DISABLE, 0, 0, 0, 0});
  if (!origin_keeps_signals_) {
    auto queued = queue_signals(process, image_.pending);
    if (!queued) return queued;
  } else {
    image_.threads.front().pending.clear();
  }
  if (auto done = finish_threads(process, image_); !done) return done;
  if (auto done = start_timers(process, image_); !done) return done;
  if (image_.dumpable <= 1) process.call(SYS_prctl, {PR_SET_DUMPABLE, image_.dumpable});
  if (image_.no_new_code != 0) process.call(SYS_prctl, {kSetMdwe, image_.no_new_code, 0, 0, 0});
  process.drop_scratch();
  // Before it is let go: it is stopped before its first instruction. What its shadow was stopped
  // by, its parent knows of.
  if (image_.stop_signal != 0)
    after_thaw_ = is_about_to_go_on(process.pid()) ? AfterThaw::kGoesOn : AfterThaw::kStops;
  if (after_thaw_ == AfterThaw::kStops && process.main().stop_signal() == 0)
    ::kill(process.pid(), SIGSTOP);
  for (const auto& thread : process.threads())
    if (auto settled = thread->settle(); !settled) return settled;
  return {};
}

Result<std::shared_ptr<FrozenProcess>> InstalledProcess::complete() {
  process_->on_end(nullptr);
  has_thawed_ = true;
  if (auto finished = finish(); !finished) {
    process_->kill();
    return finished.error();
  }
  return std::move(process_);
}

Status InstalledProcess::thaw() {
  auto process = complete();
  if (!process) return process.error();
  (*process)->thaw();
  return {};
}

}  // namespace krg
