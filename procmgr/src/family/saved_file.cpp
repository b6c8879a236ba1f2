// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/saved_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "image/page_list.h"
#include "krg/runtime/unique_fd.h"
#include "process_spec.h"

namespace krg {
namespace {

constexpr uint64_t kPage = 4096, kChunk = 1u << 20;

// The next range of the file that is no hole, in whole pages.
bool next_data(int fd, uint64_t size, uint64_t& at, uint64_t& end) {
  const off_t data = lseek(fd, static_cast<off_t>(at), SEEK_DATA);
  if (data < 0) return false;  // no more
  const off_t hole = lseek(fd, data, SEEK_HOLE);
  at = static_cast<uint64_t>(data) / kPage * kPage;
  end = hole < 0 ? size : std::min<uint64_t>(static_cast<uint64_t>(hole), size);
  return at < end;
}

// A file in memory has no new times when it is written through a mapping.
bool has_times(int fd) {
  struct statfs found {};
  return fstatfs(fd, &found) == 0 && found.f_type != TMPFS_MAGIC && found.f_type != HUGETLBFS_MAGIC;
}

uint64_t data_bytes(int fd, uint64_t size) {
  uint64_t bytes = 0;
  for (uint64_t at = 0, end = 0; next_data(fd, size, at, end); at = end)
    bytes += (end - at + kPage - 1) / kPage * kPage;
  return bytes;
}

// The last page's rest is zeros.
Status read_pages(int fd, uint64_t at, std::byte* into, uint64_t bytes) {
  uint64_t done = 0;
  while (done < bytes) {
    const ssize_t got = pread(fd, into + done, bytes - done, static_cast<off_t>(at + done));
    if (got < 0) return errno_error("reading a file that is to be saved");
    if (got == 0) break;
    done += static_cast<uint64_t>(got);
  }
  std::fill(into + done, into + (bytes + kPage - 1) / kPage * kPage, std::byte{0});
  return {};
}

// Those of them that are not zeros stay in the copies, one behind the other.
uint64_t keep_pages(SavedFile& file, uint64_t held, uint64_t at, uint64_t bytes) {
  std::byte* const copies = file.copied.bytes.get();
  const std::byte* page = copies + held;
  for (const uint64_t end = at + bytes; at < end; at += kPage, page += kPage) {
    if (is_zero_page(page)) continue;
    if (!file.pages.empty() && file.pages.back().end().value == at) {
      file.pages.back().bytes += kPage;
    } else {
      file.pages.push_back({.start = {at}, .bytes = kPage});
      file.copied.offsets.push_back(held);
    }
    if (copies + held != page) std::memcpy(copies + held, page, kPage);
    held += kPage;
  }
  return held;
}

Status copy_pages(SavedFile& file, int fd, uint64_t size, uint64_t room) {
  auto buffer = PageBuffer::make(room);
  if (!buffer) return buffer.error();
  file.copied.bytes = std::move(*buffer);
  uint64_t held = 0;
  for (uint64_t at = 0, end = 0; next_data(fd, size, at, end);)
    for (; at < end; at += kChunk) {
      const uint64_t part = std::min(kChunk, end - at);
      // Only where the file has got more data meanwhile, through a mapping.
      if (held + (part + kPage - 1) / kPage * kPage > room)
        return errno_error("a file that is written while it is saved", EAGAIN);
      if (auto read = read_pages(fd, at, file.copied.bytes.get() + held, part); !read) return read;
      held = keep_pages(file, held, at, part);
    }
  file.copied.ranges = file.pages;
  return {};
}

}  // namespace

Result<SavedFile> SavedFile::take(int fd, SavedSince since, uint64_t& most) {
  struct stat found {};
  if (fstat(fd, &found) != 0) return errno_error("a file that is to be saved");
  SavedFile file;
  FamilyTracking* const tracking = has_times(fd) ? since.tracking : nullptr;
  const auto* known = tracking && since.base ? tracking->file_since(since.base, found) : nullptr;
  if (known) {
    file.pages = *known;
    tracking->begin_file(since.number, found, file.pages);
    for (PageRange& range : file.pages) range.is_clean = 1;
    return file;
  }
  UniqueFd readable(open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC));
  if (!readable) return errno_error("reading a file that is to be saved");
  const auto size = static_cast<uint64_t>(found.st_size);
  const uint64_t room = data_bytes(readable.get(), size);
  if (room > most) return cannot_move("much in files that are to be saved");
  if (auto copied = copy_pages(file, readable.get(), size, room); !copied) return copied.error();
  most -= room;
  if (tracking) tracking->begin_file(since.number, found, file.pages);
  return file;
}

}  // namespace krg
