// Probes of what shared memory and incremental checkpoints are made of.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "check/probes.h"
#include "krg/runtime/unique_fd.h"
#include "krg/shmem/memory_abi.h"

namespace krg {
namespace {

constexpr size_t kPageBytes = 4096;

struct NamedFeature {
  uint64_t bit;
  const char* name;
};
// What the coherence protocol cannot do without (all of kernel 5.19) ...
constexpr NamedFeature kNeeded[] = {
    {UFFD_FEATURE_MISSING_SHMEM, "MISSING_SHMEM"},
    {UFFD_FEATURE_MINOR_SHMEM, "MINOR_SHMEM"},
    {UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "WP_HUGETLBFS_SHMEM"},
    {UFFD_FEATURE_EXACT_ADDRESS, "EXACT_ADDRESS"},
};
// ... and what makes it better.
constexpr NamedFeature kWanted[] = {
    {kUffdWpUnpopulated, "WP_UNPOPULATED"},
    {kUffdPoison, "POISON"},
    {kUffdWpAsync, "WP_ASYNC"},
    {kUffdMove, "MOVE"},
};

Finding name_missing(uint64_t features) {
  std::string needed, wanted;
  for (const auto& feature : kNeeded)
    if (!(features & feature.bit)) needed += fmt::format(" {}", feature.name);
  for (const auto& feature : kWanted)
    if (!(features & feature.bit)) wanted += fmt::format(" {}", feature.name);
  if (!needed.empty()) return lacking("without" + needed + wanted);
  return wanted.empty() ? found("all features") : limited("without" + wanted);
}

UniqueFd open_userfaultfd(int flags) {
  return UniqueFd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags)));
}

// Asks for `features`; the features of the kernel, or nothing with errno set.
uint64_t enable(int userfaultfd, uint64_t features) {
  uffdio_api api{UFFD_API, features, 0};
  return ::ioctl(userfaultfd, UFFDIO_API, &api) == 0 ? api.features : 0;
}

// One page's life as the coherence protocol leads it: on a memfd mapping registered for all three
// kinds of fault, a page that was written through another mapping is mapped write-protected by
// CONTINUE, and then reads as written.
Finding serve_one_page(int userfaultfd) {
  UniqueFd memory(::memfd_create("krg-check", MFD_CLOEXEC));
  if (!memory || ::ftruncate(memory.get(), kPageBytes) != 0) return lacking_errno("memfd_create");
  void* program = ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (program == MAP_FAILED) return lacking_errno("mmap");
  const uint64_t address = reinterpret_cast<uint64_t>(program);
  uffdio_register range{
      {address, kPageBytes},
      UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP,
      0};
  if (::ioctl(userfaultfd, UFFDIO_REGISTER, &range) != 0) return lacking_errno("UFFDIO_REGISTER");
  if (::pwrite(memory.get(), "krg", 3, 0) != 3) return lacking_errno("write to the memfd");
  uffdio_continue install{{address, kPageBytes}, 0, 0};
  if (::ioctl(userfaultfd, UFFDIO_CONTINUE, &install) != 0) return lacking_errno("UFFDIO_CONTINUE");
  uffdio_writeprotect protect{{address, kPageBytes}, UFFDIO_WRITEPROTECT_MODE_WP};
  if (::ioctl(userfaultfd, UFFDIO_WRITEPROTECT, &protect) != 0)
    return lacking_errno("UFFDIO_WRITEPROTECT");
  if (std::memcmp(program, "krg", 3) != 0) return lacking("an installed page reads as another");
  return found("");
}

Finding scan_written_pages() {
  UniqueFd faults = open_userfaultfd(UFFD_USER_MODE_ONLY);
  if (!faults || !enable(faults.get(), kUffdWpAsync | kUffdWpUnpopulated))
    return lacking("userfaultfd without WP_ASYNC (kernel 6.7)");
  constexpr size_t kPages = 8;
  auto* pages = static_cast<char*>(::mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
  if (pages == MAP_FAILED) return lacking_errno("mmap");
  const uint64_t start = reinterpret_cast<uint64_t>(pages);
  const uint64_t bytes = kPages * kPageBytes;
  uffdio_register range{{start, bytes}, UFFDIO_REGISTER_MODE_WP, 0};
  uffdio_writeprotect protect{{start, bytes}, UFFDIO_WRITEPROTECT_MODE_WP};
  if (::ioctl(faults.get(), UFFDIO_REGISTER, &range) != 0 ||
      ::ioctl(faults.get(), UFFDIO_WRITEPROTECT, &protect) != 0)
    return lacking_errno("write protection by userfaultfd");
  pages[3 * kPageBytes] = 1;

  UniqueFd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  PageRegion regions[kPages]{};
  PagemapScan scan{};
  scan.size = sizeof scan;
  scan.start = start;
  scan.end = start + bytes;
  scan.regions = reinterpret_cast<uint64_t>(regions);
  scan.region_count = kPages;
  scan.category_mask = scan.return_mask = kPageIsWritten;
  const int count = ::ioctl(pagemap.get(), kPagemapScan, &scan);
  if (count < 0) return lacking_errno("PAGEMAP_SCAN");
  if (count != 1 || regions[0].start != start + 3 * kPageBytes ||
      regions[0].end != start + 4 * kPageBytes)
    return lacking("PAGEMAP_SCAN did not name the one page that was written");
  return found("written pages are found by PAGEMAP_SCAN");
}

// The older way (proc_pid_pagemap(5), bit 55): what kernels before 6.7 have.
bool soft_dirty_works() {
  constexpr uint64_t kSoftDirty = uint64_t{1} << 55;
  auto* page = static_cast<volatile char*>(
      ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (page == MAP_FAILED) return false;
  page[0] = 1;
  UniqueFd clear(::open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC));
  UniqueFd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  const auto offset = static_cast<off_t>(reinterpret_cast<uint64_t>(page) / kPageBytes * 8);
  uint64_t before = 0, after = 0;
  if (!clear || ::write(clear.get(), "4", 1) != 1 ||
      ::pread(pagemap.get(), &before, sizeof before, offset) != sizeof before)
    return false;
  page[0] = 2;
  if (::pread(pagemap.get(), &after, sizeof after, offset) != sizeof after) return false;
  return !(before & kSoftDirty) && (after & kSoftDirty);
}

}  // namespace

Finding probe_userfaultfd() {
  return run_in_child([] {
    UniqueFd first = open_userfaultfd(UFFD_USER_MODE_ONLY);
    if (!first) return lacking_errno("userfaultfd");
    const uint64_t features = enable(first.get(), 0);
    if (features == 0) return lacking_errno("UFFDIO_API");
    Finding finding = name_missing(features);
    if (finding.state == ProbeState::kLacking) return finding;
    // A userfaultfd takes its features once: another one for the trial.
    UniqueFd second = open_userfaultfd(UFFD_USER_MODE_ONLY);
    uint64_t needed = 0;
    for (const auto& feature : kNeeded) needed |= feature.bit;
    if (!enable(second.get(), needed)) return lacking_errno("UFFDIO_API");
    Finding served = serve_one_page(second.get());
    return served.state == ProbeState::kOk ? finding : served;
  });
}

Finding probe_userfaultfd_kernel_faults() {
  return run_in_child([] {
    if (UniqueFd(open_userfaultfd(0))) return found("by userfaultfd(2)");
    // USERFAULTFD_IOC_NEW (kernel 6.1): whoever may open the device gets the full thing.
    UniqueFd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
    if (device && UniqueFd(::ioctl(device.get(), USERFAULTFD_IOC_NEW, O_CLOEXEC)))
      return found("by /dev/userfaultfd");
    return limited("only faults of user code: a system call into a missing page gets EFAULT");
  });
}

Finding probe_dirty_pages() {
  return run_in_child(scan_written_pages);
}

Finding probe_soft_dirty() {
  return run_in_child([] {
    return soft_dirty_works() ? found("written pages are found by soft-dirty bits")
                              : lacking("CONFIG_MEM_SOFT_DIRTY is not set");
  });
}

}  // namespace krg
