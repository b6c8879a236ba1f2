// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/written_pages.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "image/install_parts.h"
#include "krg/shmem/memory_abi.h"

namespace krg {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kOpenFlags = O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY;

bool enable(int userfaultfd) {
  uffdio_api api{.api = UFFD_API, .features = kUffdWpAsync | kUffdWpUnpopulated, .ioctls = 0};
  return ioctl(userfaultfd, UFFDIO_API, &api) == 0;
}

// Pages with content that were written. Others are not protected: they would need page tables. (Of
// memory without a file none is a file's, which would be asked of each page itself: 40 ms a GiB.)
PagemapScan scan_of(uint64_t start, uint64_t end, uint64_t excluded) {
  return {.size = sizeof(PagemapScan),
          .flags = 0,
          .start = start,
          .end = end,
          .walk_end = 0,
          .regions = 0,
          .region_count = 0,
          .max_pages = 0,
          .category_inverted = excluded,
          .category_mask = excluded | kPageIsWritten,
          .category_anyof_mask = kPageIsPresent | kPageIsSwapped,
          .return_mask = kPageIsWritten};
}

bool has_own_pages(int pagemap, const PrivateMapping& mapping) {
  PageRegion region{};
  PagemapScan scan = scan_of(mapping.start, mapping.end, kPageIsFile | kPageIsZero);
  scan.category_mask = scan.category_inverted;
  scan.regions = reinterpret_cast<uint64_t>(&region);
  scan.region_count = scan.max_pages = 1;
  return ioctl(pagemap, kPagemapScan, &scan) > 0;
}

Status clear_soft_dirty(pid_t pid) {
  UniqueFd file(open(fmt::format("/proc/{}/clear_refs", pid).c_str(), O_WRONLY | O_CLOEXEC));
  if (!file || write(file.get(), "4", 1) != 1) return errno_error("soft-dirty bits");
  return {};
}

bool is_soft_dirty(const void* page) {
  UniqueFd pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  uint64_t entry = 0;
  const auto at = static_cast<off_t>(reinterpret_cast<uint64_t>(page) / kPage * sizeof entry);
  return pagemap && pread(pagemap.get(), &entry, sizeof entry, at) == sizeof entry &&
         (entry >> 55 & 1) != 0;
}

}  // namespace

bool WrittenPages::has_write_protection() {
  UniqueFd trial(static_cast<int>(syscall(SYS_userfaultfd, kOpenFlags)));
  return trial && enable(trial.get());
}

bool WrittenPages::has_soft_dirty() {
  void* memory = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  auto* page = static_cast<volatile char*>(memory);
  page[0] = 1;
  bool works = clear_soft_dirty(getpid()) && !is_soft_dirty(memory);
  page[0] = 2;
  works = works && is_soft_dirty(memory);
  munmap(memory, kPage);
  return works;
}

WrittenBy WrittenPages::best_way() {
  if (has_write_protection()) return WrittenBy::kWriteProtection;
  return has_soft_dirty() ? WrittenBy::kSoftDirty : WrittenBy::kNothing;
}

Result<std::unique_ptr<WrittenPages>> WrittenPages::begin(FrozenProcess& process,
                                                          WrittenBy told_by) {
  UniqueFd userfaultfd;
  if (told_by == WrittenBy::kWriteProtection) {
    const int64_t number = process.call(SYS_userfaultfd, {kOpenFlags});
    if (auto opened = done_by_call("userfaultfd", number); !opened) return opened.error();
    auto taken = take_descriptor(process.pid(), static_cast<int>(number));
    process.call(SYS_close, {static_cast<uint64_t>(number)});
    if (!taken) return taken.error();
    userfaultfd = std::move(*taken);
    if (!enable(userfaultfd.get())) return errno_error("userfaultfd");
  }
  return std::unique_ptr<WrittenPages>(
      new WrittenPages(process.pid(), told_by, std::move(userfaultfd)));
}

Status WrittenPages::reset() {
  if (std::exchange(is_taken_, false)) return {};
  const bool is_protecting = told_by_ == WrittenBy::kWriteProtection;
  Status done = is_protecting ? protect() : clear_soft_dirty(pid_);
  was_reset_ = true;
  return done;
}

Result<std::vector<PageRange>> WrittenPages::take() {
  Result<std::vector<PageRange>> pages = std::vector<PageRange>();
  if (told_by_ == WrittenBy::kWriteProtection) {
    pages = protect_content_ranges(
        pid_, [&](const PrivateMapping& mapping, int pagemap, bool is_watched) -> Status {
          if (is_watched || !watch(mapping, pagemap)) return {};
          return protect_one(mapping, pagemap);
        });
  } else {
    pages = content_ranges(pid_, told_by_);
    if (auto cleared = clear_soft_dirty(pid_); pages && !cleared) pages = cleared.error();
  }
  is_taken_ = was_reset_ = static_cast<bool>(pages);
  return pages;
}

// A file's pages are watched where the program has made them its own: faults on a mapping that is
// watched bring single pages.
bool WrittenPages::watch(const PrivateMapping& mapping, int pagemap) const {
  if (mapping.has_file && !has_own_pages(pagemap, mapping)) return false;
  const uffdio_range range{.start = mapping.start, .len = mapping.end - mapping.start};
  uffdio_register wanted{.range = range, .mode = UFFDIO_REGISTER_MODE_WP, .ioctls = 0};
  if (ioctl(userfaultfd_.get(), UFFDIO_REGISTER, &wanted) != 0) return false;
  if (!was_reset_) return true;
  // Pages may look protected and not be: such as mremap(2) has moved there (before Linux 6.14), and
  // those beside them. The kernel makes one mapping of both where it can, and one of pages that
  // were never touched is watched no more when it has been moved (at least to Linux 6.18).
  uffdio_writeprotect none{.range = range, .mode = 0};
  return ioctl(userfaultfd_.get(), UFFDIO_WRITEPROTECT, &none) == 0;
}

Status WrittenPages::protect() {
  auto pagemap = open_pagemap(pid_);
  if (!pagemap) return pagemap.error();
  auto mappings = private_mappings(pid_);
  if (!mappings) return mappings.error();
  for (const PrivateMapping& mapping : *mappings) {
    if (!watch(mapping, pagemap->get())) continue;
    auto done = protect_one(mapping, pagemap->get());
    // The process may run, and have something else there by now, which is not watched.
    if (!done && done.error().errno_or(0) == EPERM) continue;
    if (!done) return done;
  }
  return {};
}

// Kernels refuse categories that they do not know: guard regions came with Linux 6.15. Where no
// regions are asked for, they protect all that was not, whatever its category. Errors: EPERM: it is
// not watched.
Status WrittenPages::protect_one(const PrivateMapping& mapping, int pagemap) {
  std::array<PageRegion, 512> regions;
  uint64_t excluded = kPageIsZero | kPageIsGuard | (mapping.has_file ? kPageIsFile : 0);
  for (uint64_t at = mapping.start; at < mapping.end;) {
    PagemapScan scan = scan_of(at, mapping.end, excluded);
    scan.flags = kScanProtects;
    scan.regions = reinterpret_cast<uint64_t>(regions.data());
    scan.region_count = regions.size();
    if (ioctl(pagemap, kPagemapScan, &scan) < 0) {
      if (errno != EINVAL || !(excluded & kPageIsGuard)) return errno_error("PAGEMAP_SCAN");
      excluded &= ~kPageIsGuard;
      continue;
    }
    if (scan.walk_end <= at) break;  // the process has ended
    at = scan.walk_end;
  }
  return {};
}

}  // namespace krg
