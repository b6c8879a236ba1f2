// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/saved_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
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

// The last page's rest is zeros.
Status read_chunk(int fd, uint64_t at, std::vector<std::byte>& chunk, uint64_t bytes) {
  std::fill(chunk.begin(), chunk.end(), std::byte{0});
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t got = pread(fd, chunk.data() + done, bytes - done, static_cast<off_t>(at + done));
    if (got < 0) return errno_error("reading a file that is to be saved");
    if (got == 0) break;
    done += static_cast<uint64_t>(got);
  }
  return {};
}

void add_page(SavedFile& file, std::string& bytes, uint64_t at, const std::byte* page) {
  if (!file.pages.empty() && file.pages.back().end().value == at) {
    file.pages.back().bytes += kPage;
  } else {
    file.pages.push_back({.start = {at}, .bytes = kPage});
    file.copied.offsets.push_back(bytes.size());
  }
  bytes.append(reinterpret_cast<const char*>(page), kPage);
}

}  // namespace

Result<SavedFile> SavedFile::take(int fd, FamilyTracking* tracking, uint64_t base, uint64_t number,
                                  uint64_t& most) {
  struct stat found {};
  if (fstat(fd, &found) != 0) return errno_error("a file that is to be saved");
  SavedFile file;
  if (const auto* known = tracking && base ? tracking->file_since(base, found) : nullptr) {
    file.pages = *known;
    tracking->begin_file(number, found, file.pages);
    for (PageRange& range : file.pages) range.is_clean = 1;
    return file;
  }
  UniqueFd readable(open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC));
  if (!readable) return errno_error("reading a file that is to be saved");
  const auto size = static_cast<uint64_t>(found.st_size);
  std::vector<std::byte> chunk(kChunk);
  std::string bytes;
  for (uint64_t at = 0, end = 0; next_data(readable.get(), size, at, end);)
    for (; at < end; at += kChunk) {
      const uint64_t part = std::min(kChunk, end - at);
      if (auto read = read_chunk(readable.get(), at, chunk, part); !read) return read.error();
      for (uint64_t page = 0; page < part; page += kPage)
        if (!is_zero_page(chunk.data() + page))
          add_page(file, bytes, at + page, chunk.data() + page);
      if (bytes.size() > most) return cannot_move("much in files that are to be saved");
    }
  most -= bytes.size();
  file.copied.ranges = file.pages;
  auto buffer = PageBuffer::copy_of(bytes);
  if (!buffer) return buffer.error();
  file.copied.bytes = std::move(*buffer);
  if (tracking) tracking->begin_file(number, found, file.pages);
  return file;
}

}  // namespace krg
