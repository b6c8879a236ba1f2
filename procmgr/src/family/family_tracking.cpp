// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/family_tracking.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <string>
#include <utility>

#include "family/left_out.h"
#include "family/written_pages.h"
#include "image/process_image.h"
#include "krg/procmgr/process_table.h"
#include "krg/runtime/log.h"
#include "spread/saved_pages.h"
#include "whole_file.h"

namespace krg {
namespace {

// The same program in the same memory: an exec gets a new memory, laid out at random, which the
// auxiliary vector tells (getauxval(3)).
struct Incarnation {
  uint64_t start_time = 0;
  std::string auxv;
  bool operator==(const Incarnation&) const = default;
};

constexpr int64_t kFileClockTick_ns = 20'000'000;
constexpr size_t kMostFiles = 4096;  // that are known

int64_t to_ns(const timespec& time) {
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}
bool is_same_time(const timespec& a, const timespec& b) {
  return to_ns(a) == to_ns(b);
}

pid_t pid_of(const ProcessImage& image) {
  return image.threads.front().tid;
}
Incarnation incarnation_of(const ProcessImage& image) {
  return {process_start_time(pid_of(image)), image.auxv};
}
Incarnation incarnation_of(pid_t pid) {
  return {process_start_time(pid),
          read_whole_file(fmt::format("/proc/{}/auxv", pid)).value_or(std::string())};
}

}  // namespace

struct FamilyTracking::Impl {
  struct Process {
    Incarnation incarnation;
    uint64_t capture = 0;
    std::shared_ptr<WrittenPages> written;  // null: whoever took it has it
    std::vector<PageRange> left_out;        // of that capture
  };
  WrittenBy told_by = WrittenPages::best_way();

  // As it is from now on; without what watches it where that cannot be.
  Process& known(FrozenProcess& process, Incarnation incarnation);
  std::map<pid_t, Process> processes;

  struct File {
    uint64_t capture = 0;
    timespec changed{}, modified{};
    off_t bytes = 0;
    std::vector<PageRange> pages;
  };
  std::map<std::pair<dev_t, ino_t>, File> files;

  struct Memory {
    uint64_t capture = 0;
    size_t nodes = 0;
    PageMarks pages;
  };
  std::map<uint64_t, Memory> memories;  // by file

  struct Shared {
    uint64_t capture = 0;
    std::shared_ptr<const PageDigests> pages;
  };
  std::map<pid_t, Shared> shared;
};

FamilyTracking::FamilyTracking() : impl_(std::make_unique<Impl>()) {}
FamilyTracking::~FamilyTracking() = default;

bool FamilyTracking::works() const {
  return impl_->told_by != WrittenBy::kNothing;
}

WrittenPages* FamilyTracking::since(uint64_t capture, const ProcessImage& image,
                                    std::span<const PageRange> left_out) {
  const auto found = impl_->processes.find(pid_of(image));
  if (found == impl_->processes.end() || found->second.capture != capture ||
      found->second.incarnation != incarnation_of(image) || !found->second.written ||
      !is_left_out(found->second.left_out, left_out))
    return nullptr;
  found->second.capture = 0;
  return found->second.written.get();
}

void FamilyTracking::begin(uint64_t capture, FrozenProcess& process, const ProcessImage& image,
                           std::vector<PageRange> left_out) {
  if (!works()) return;
  Impl::Process& known = impl_->known(process, incarnation_of(image));
  const Status reset = known.written ? known.written->reset() : errno_error("", ENOTSUP);
  known.capture = capture;
  known.left_out = std::move(left_out);
  if (!reset) impl_->processes.erase(pid_of(image));
}

FamilyTracking::Impl::Process& FamilyTracking::Impl::known(FrozenProcess& process,
                                                           Incarnation incarnation) {
  Process& known = processes[process.pid()];
  if (!known.written || known.incarnation != incarnation) {
    known = {};
    auto begun = WrittenPages::begin(process, told_by);
    if (begun) known.written = std::move(*begun);
    if (!begun) log_warn("checkpoint", "process {}: {}", process.pid(), begun.error().message());
  }
  known.incarnation = std::move(incarnation);
  return known;
}

std::shared_ptr<WrittenPages> FamilyTracking::take_watch(FrozenProcess& process) {
  if (impl_->told_by != WrittenBy::kWriteProtection) return nullptr;
  Impl::Process& known = impl_->known(process, incarnation_of(process.pid()));
  known.capture = 0;
  return std::exchange(known.written, nullptr);
}

void FamilyTracking::begin_live(uint64_t capture, pid_t pid, std::shared_ptr<WrittenPages> watch,
                                std::vector<PageRange> left_out) {
  const auto known = impl_->processes.find(pid);
  if (known == impl_->processes.end() || known->second.written) return;  // another has it now
  known->second.written = std::move(watch);
  known->second.capture = capture;
  known->second.left_out = std::move(left_out);
}

const std::vector<PageRange>* FamilyTracking::file_since(uint64_t capture,
                                                         const struct stat& file) const {
  const auto found = impl_->files.find({file.st_dev, file.st_ino});
  if (found == impl_->files.end()) return nullptr;
  const Impl::File& known = found->second;
  const bool is_same = known.capture == capture && known.bytes == file.st_size &&
                       is_same_time(known.changed, file.st_ctim) &&
                       is_same_time(known.modified, file.st_mtim);
  return is_same ? &known.pages : nullptr;
}

std::optional<PageMarks> FamilyTracking::memory_since(uint64_t capture, uint64_t file,
                                                      size_t nodes) {
  auto known = impl_->memories.extract(file);
  if (known.empty() || known.mapped().capture != capture || known.mapped().nodes != nodes)
    return std::nullopt;
  return std::move(known.mapped().pages);
}

void FamilyTracking::begin_memory(uint64_t capture, uint64_t file, size_t nodes, PageMarks pages) {
  impl_->memories[file] = {capture, nodes, std::move(pages)};
}

std::shared_ptr<const PageDigests> FamilyTracking::shared_since(uint64_t capture, pid_t pid) const {
  const auto known = impl_->shared.find(pid);
  return known == impl_->shared.end() || known->second.capture != capture ? nullptr
                                                                          : known->second.pages;
}

void FamilyTracking::begin_shared(uint64_t capture, pid_t pid,
                                  std::shared_ptr<const PageDigests> now) {
  impl_->shared[pid] = {capture, std::move(now)};
}

// One that was written a moment ago may be written again without a new time: the kernel's clock for
// files ticks.
void FamilyTracking::begin_file(uint64_t capture, const struct stat& file,
                                std::vector<PageRange> pages) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const std::pair key(file.st_dev, file.st_ino);
  if (to_ns(now) - std::max(to_ns(file.st_mtim), to_ns(file.st_ctim)) < kFileClockTick_ns)
    return void(impl_->files.erase(key));
  impl_->files[key] = {capture, file.st_ctim, file.st_mtim, file.st_size, std::move(pages)};
}

void FamilyTracking::clean_up() {
  while (impl_->files.size() > kMostFiles) impl_->files.erase(impl_->files.begin());
  while (impl_->memories.size() > kMostFiles) impl_->memories.erase(impl_->memories.begin());
  std::erase_if(impl_->shared,
                [](const auto& entry) { return process_start_time(entry.first) == 0; });
  std::erase_if(impl_->processes, [](const auto& entry) {
    return process_start_time(entry.first) != entry.second.incarnation.start_time;
  });
}

}  // namespace krg
