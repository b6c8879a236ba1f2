// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_frames.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "krg/runtime/check.h"
#include "krg/shmem/page_set.h"

namespace krg {

constexpr size_t kLeastMapping = 2u << 20;  // room for growth
// Far fewer milliseconds than after which other nodes take this one for dead.
constexpr unsigned kMemoryWaits = 2'000;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr int kZeros = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

namespace {
bool is_short_of_memory(int error) {
  return error == ENOMEM || error == ENOSPC || error == EINTR;
}

// Descriptors are numbered from below: a new one tells how many are in use.
bool leaves_descriptors(int newest) {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) != 0 || static_cast<rlim_t>(newest) < limit.rlim_cur / 2;
}

}  // namespace

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

Mapping::~Mapping() {
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
}

Result<PageFrames> PageFrames::create(size_t pages) {
  UniqueFd memfd(memfd_create("krg-pages", MFD_CLOEXEC));
  if (!memfd) return errno_error("memfd_create");
  if (!leaves_descriptors(memfd.get())) return errno_error("memory for pages", EMFILE);
  PageFrames frames(std::move(memfd));
  if (Status sized = frames.resize(pages); !sized) return sized.error();
  return frames;
}

Status PageFrames::resize(size_t pages) {
  size_t reserved = 0;
  for (const Mapping& mapping : mappings_) reserved += mapping.bytes().size();
  if (const size_t wanted = pages * kPageBytes; wanted > reserved) {
    // At least as much again as there is, so that there are few mappings.
    const size_t more = std::max({wanted - reserved, reserved, kLeastMapping});
    void* at = mmap(nullptr, more, kReadWrite, kZeros, -1, 0);
    if (at == MAP_FAILED) return errno_error("mmap of a page set's memory");
    mappings_.emplace_back(at, more);
  }
  if (pages < pages_)
    if (Status hidden = show(pages, pages_, false); !hidden) return hidden;
  if (ftruncate(memfd_.get(), static_cast<off_t>(pages * kPageBytes)) != 0)
    return errno_error("ftruncate of a page set's memory");
  if (pages > pages_)
    if (Status shown = show(pages_, pages, true); !shown) return shown;
  pages_ = pages;
  allocated_.resize(pages);
  return {};
}

Status PageFrames::show(size_t first_page, size_t end_page, bool memfd) {
  const size_t first = first_page * kPageBytes, end = end_page * kPageBytes;
  size_t start = 0;  // of the mapping, in the file
  for (const Mapping& mapping : mappings_) {
    const size_t size = mapping.bytes().size();
    const size_t from = std::clamp(first, start, start + size);
    const size_t to = std::clamp(end, start, start + size);
    if (from < to) {
      void* at = mmap(mapping.bytes().data() + (from - start), to - from, kReadWrite,
                      memfd ? MAP_SHARED | MAP_FIXED : kZeros | MAP_FIXED,
                      memfd ? memfd_.get() : -1, memfd ? static_cast<off_t>(from) : 0);
      if (at == MAP_FAILED) return errno_error("mmap of a page set's memory");
    }
    start += size;
  }
  return {};
}

std::span<std::byte> PageFrames::page(PageIndex page) const {
  check(page.value < pages_, "a page lies in its set");
  size_t offset = page.value * kPageBytes;
  for (const Mapping& mapping : mappings_) {
    if (offset < mapping.bytes().size()) return mapping.bytes().subspan(offset, kPageBytes);
    offset -= mapping.bytes().size();
  }
  check(false, "all pages are mapped");
  return {};
}

bool PageFrames::allocate(PageIndex first, size_t count) {
  const int allocated = fallocate(memfd_.get(), 0, static_cast<off_t>(first.value * kPageBytes),
                                  static_cast<off_t>(count * kPageBytes));
  check(allocated == 0 || is_short_of_memory(errno), "pages can be allocated");
  if (allocated != 0) return false;
  note_allocated(first, count, true);
  return true;
}

bool PageFrames::are_allocated(PageIndex first, size_t count) const {
  const auto begin = allocated_.begin() + static_cast<ptrdiff_t>(first.value);
  return std::all_of(begin, begin + static_cast<ptrdiff_t>(count), [](bool is) { return is; });
}

void PageFrames::note_allocated(PageIndex first, size_t count, bool are) {
  const size_t begin = std::min<size_t>(first.value, pages_);
  const size_t end = std::min<size_t>(first.value + count, pages_);
  std::fill(allocated_.begin() + static_cast<ptrdiff_t>(begin),
            allocated_.begin() + static_cast<ptrdiff_t>(end), are);
}

void wait_for_memory(unsigned& waits, const char* why) {
  check(++waits < kMemoryWaits, why);
  usleep(1000);
}

void PageFrames::write(PageIndex first, std::span<const std::byte> bytes) {
  auto at = static_cast<off_t>(first.value * kPageBytes);
  unsigned waits = 0;
  while (!bytes.empty()) {
    const ssize_t written = pwrite(memfd_.get(), bytes.data(), bytes.size(), at);
    if (written <= 0) {
      check(is_short_of_memory(errno), "there is memory for pages");
      wait_for_memory(waits, "there is memory for pages");
      continue;
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
    at += written;
  }
}

void PageFrames::punch(PageIndex first, size_t count) {
  note_allocated(first, count, false);
  const int punched = fallocate(memfd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                static_cast<off_t>(first.value * kPageBytes),
                                static_cast<off_t>(count * kPageBytes));
  check(punched == 0, "a hole can be punched into a memfd");
}

}  // namespace krg
