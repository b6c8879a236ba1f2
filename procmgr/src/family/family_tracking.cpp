// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/family_tracking.h"

#include <algorithm>
#include <map>
#include <string>

#include "family/written_pages.h"
#include "image/process_image.h"
#include "krg/procmgr/process_table.h"
#include "krg/runtime/log.h"

namespace krg {
namespace {

// The same program in the same memory: an exec gets a new memory, laid out at random, which the
// auxiliary vector tells (getauxval(3)).
struct Incarnation {
  uint64_t start_time = 0;
  std::string auxv;
  bool operator==(const Incarnation&) const = default;
};

pid_t pid_of(const ProcessImage& image) {
  return image.threads.front().tid;
}
Incarnation incarnation_of(const ProcessImage& image) {
  return {process_start_time(pid_of(image)), image.auxv};
}

}  // namespace

struct FamilyTracking::Impl {
  struct Process {
    Incarnation incarnation;
    uint64_t capture = 0;
    std::unique_ptr<WrittenPages> written;
  };
  WrittenBy told_by = WrittenPages::best_way();
  uint64_t last_capture = 0;
  std::map<pid_t, Process> processes;
};

FamilyTracking::FamilyTracking() : impl_(std::make_unique<Impl>()) {}
FamilyTracking::~FamilyTracking() = default;

bool FamilyTracking::works() const {
  return impl_->told_by != WrittenBy::kNothing;
}

uint64_t FamilyTracking::next_capture() {
  return ++impl_->last_capture;
}

const WrittenPages* FamilyTracking::since(uint64_t capture, const ProcessImage& image) const {
  const auto found = impl_->processes.find(pid_of(image));
  if (found == impl_->processes.end() || found->second.capture != capture ||
      found->second.incarnation != incarnation_of(image))
    return nullptr;
  return found->second.written.get();
}

void FamilyTracking::begin(uint64_t capture, FrozenProcess& process, const ProcessImage& image) {
  if (!works()) return;
  Incarnation incarnation = incarnation_of(image);
  Impl::Process& known = impl_->processes[pid_of(image)];
  if (!known.written || known.incarnation != incarnation) {
    known = {};
    auto begun = WrittenPages::begin(process, impl_->told_by);
    if (begun) known.written = std::move(*begun);
    if (!begun) log_warn("checkpoint", "process {}: {}", process.pid(), begun.error().message());
  }
  known.incarnation = std::move(incarnation);
  const Status reset = known.written ? known.written->reset() : errno_error("", ENOTSUP);
  known.capture = capture;
  if (!reset) impl_->processes.erase(pid_of(image));
}

void FamilyTracking::clean_up() {
  std::erase_if(impl_->processes, [](const auto& entry) {
    return process_start_time(entry.first) != entry.second.incarnation.start_time;
  });
}

}  // namespace krg
