// SPDX-License-Identifier: GPL-2.0-or-later
#include "phase_fetcher.h"

#include <algorithm>
#include <span>
#include <utility>

#include "krg/shmem/memory_abi.h"

namespace krg {
namespace {

// Requests leave in so many messages that the first pages are on their way while the next ones are
// looked up.
constexpr size_t kFetchedTogether = 256;

PageAccess access_of(bool write) {
  return write ? PageAccess::kWrite : PageAccess::kRead;
}

}  // namespace

size_t PhaseFetcher::begin(uint32_t thread, uint64_t phase, size_t pages) {
  const PageHolder& holder = *parts_.holder;
  const auto touches = memory_.begin(thread, phase, [&](PageIndex page, bool write) {
    return page.value < pages && holder.access(page) < access_of(write) &&
           !parts_.writers.has(page);
  });
  for (size_t i = 0; i < touches.size(); i += kFetchedTogether) {
    const auto end = std::min(touches.size(), i + kFetchedTogether);
    ask({touches.begin() + static_cast<ptrdiff_t>(i),
         touches.begin() + static_cast<ptrdiff_t>(end)});
  }
  return touches.size();
}

// Neighbours that are to be read are a run.
void PhaseFetcher::ask(const std::vector<PhaseMemory::Touch>& touches) {
  const Kddm::Together together(parts_.kddm);
  PageIndex first{0};
  size_t count = 0;
  const auto end_run = [&] {
    if (count > 0) parts_.kddm.prefetch(parts_.set, ObjectId{first.value}, count);
    count = 0;
  };
  for (const PhaseMemory::Touch& touch : touches) {
    if (parts_.holder->is_asked(touch.page)) continue;
    expected_[touch.page.value] = touch.at;
    if (touch.write) {
      end_run();
      parts_.holder->ask(touch.page, PageAccess::kWrite, PageHolder::Why::kAhead);
      continue;
    }
    if (count > 0 && first.value + count != touch.page.value) end_run();
    if (count++ == 0) first = touch.page;
  }
  end_run();
}

void PhaseFetcher::on_fetched(const ProgramFault& fault, PageIndex page, bool write) {
  if (!memory_.is_used()) return;
  const uint64_t distance = (page.value - fault.page.value) * kPageBytes;
  const ProgramPage at{fault.at.space, RemoteAddr{fault.at.address.value + distance}};
  if (parts_.spaces.shows(at, page)) memory_.on_fetched(fault.thread, {at, page, write});
}

void PhaseFetcher::came(PageIndex first, size_t count) {
  if (expected_.empty()) return;
  for (uint64_t page = first.value; page < first.value + count; ++page) {
    if (!expected_.contains(page)) continue;
    if (here_.empty())
      parts_.loop.post([this, open = std::weak_ptr(parts_.holder)] {
        if (open.expired()) return;
        parts_.writers.acquire([this, open] {
          if (!open.expired()) show();
        });
      });
    here_.push_back({page});
  }
}

// They may have gone again; other mappings may be where they belonged.
void PhaseFetcher::show() {
  struct Run {
    ProgramPage at;
    size_t count;
    PageAccess access;
    bool is_mapped;
  };
  Run run{};
  const auto end_run = [&] {
    const size_t count = std::exchange(run.count, 0);
    if (count == 0) return;
    if (!run.is_mapped) return parts_.spaces.map(run.at, count, run.access == PageAccess::kWrite);
    if (run.access == PageAccess::kWrite) parts_.spaces.allow_writing(run.at, count);
  };
  std::sort(here_.begin(), here_.end());
  for (PageIndex page : std::exchange(here_, {})) {
    if (parts_.writers.has(page) || parts_.writers.is_fresh(page)) continue;
    const auto found = expected_.extract(page.value);
    if (found.empty()) continue;
    const ProgramPage at = found.mapped();
    const PageAccess access = parts_.holder->access(page);
    if (access == PageAccess::kNone || !parts_.spaces.shows(at, page)) continue;
    const bool is_mapped = parts_.spaces.is_mapped(at);
    const bool goes_on = run.count > 0 && run.at.space == at.space && run.access == access &&
                         run.is_mapped == is_mapped &&
                         run.at.address + run.count * kPageBytes == at.address;
    if (!goes_on) {
      end_run();
      run = {at, 0, access, is_mapped};
    }
    ++run.count;
  }
  end_run();
}

}  // namespace krg
