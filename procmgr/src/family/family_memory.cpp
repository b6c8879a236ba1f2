// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_memory.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include "image/known_mappings.h"
#include "image/page_list.h"
#include "image/task_memory.h"
#include "process_spec.h"
#include "text_scan.h"

namespace krg {
namespace {

constexpr uint64_t kPage = 4096, kChunk = 1u << 20;

// Pages behind the end of the memory read as none.
Status read_chunk(const TaskMemory& task, RemoteAddr at, std::span<std::byte> into) {
  const MemoryPiece whole{at, into.size()};
  if (task.read({&whole, 1}, into)) return {};
  std::fill(into.begin(), into.end(), std::byte{0});
  for (uint64_t done = 0; done < into.size(); done += kPage) {
    const MemoryPiece page{at + done, kPage};
    auto read = task.read({&page, 1}, into.subspan(done, kPage));
    if (!read && read.error().errno_or(0) == ESRCH) return read;
  }
  return {};
}

}  // namespace

const std::byte* CopiedPages::find(RemoteAddr at) const {
  auto after = std::upper_bound(ranges.begin(), ranges.end(), at,
                                [](RemoteAddr a, const PageRange& r) { return a < r.start; });
  if (after == ranges.begin() || (after - 1)->end() <= at) return nullptr;
  const auto index = static_cast<size_t>(after - 1 - ranges.begin());
  return bytes.get() + offsets[index] + (at.value - ranges[index].start.value);
}

const std::byte* CopiedPages::find_all(std::span<const PageRange> wanted) const {
  const std::byte* first = wanted.empty() ? nullptr : find(wanted.front().start);
  if (!first) return nullptr;
  const std::byte* next = first;
  for (const PageRange& range : wanted) {
    if (find(range.start) != next) return nullptr;
    next += range.bytes;
  }
  return first;
}

Status CopiedPages::read(std::span<const PageRange> wanted, std::span<std::byte> into) const {
  for (const PageRange& range : wanted) {
    const std::byte* known = find(range.start);
    if (!known) return errno_error("copied pages", EFAULT);
    std::copy_n(known, range.bytes, into.begin());
    into = into.subspan(range.bytes);
  }
  return {};
}

void FoundPages::add(uint64_t address, const std::byte* page) {
  addresses_.push_back(address);
  bytes_.append(reinterpret_cast<const char*>(page), kPage);
}

Result<CopiedPages> FoundPages::copy() && {
  std::vector<size_t> order(addresses_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [this](size_t a, size_t b) { return addresses_[a] < addresses_[b]; });
  auto buffer = PageBuffer::make(bytes_.size());
  if (!buffer) return buffer.error();
  CopiedPages pages;
  pages.bytes = std::move(*buffer);
  for (size_t i = 0; i < order.size(); ++i) {
    const uint64_t at = addresses_[order[i]];
    std::memcpy(pages.bytes.get() + i * kPage, bytes_.data() + order[i] * kPage, kPage);
    if (!pages.ranges.empty() && pages.ranges.back().end().value == at) {
      pages.ranges.back().bytes += kPage;
      continue;
    }
    pages.ranges.push_back({.start = {at}, .bytes = kPage});
    pages.offsets.push_back(i * kPage);
  }
  addresses_.clear();
  bytes_ = {};
  return pages;
}

void FamilyMemory::add(uint32_t member, const ProcessImage& image) {
  for (const ImageMapping& m : image.mappings) {
    if (m.kind != ImageMapping::Kind::kFile) continue;
    const std::string& name = image.files[m.file].path;
    if (!name.starts_with(kSharedMemoryPrefix)) continue;
    // Of a segment that is only read somebody else has the contents (family_ipc.h).
    if (segment_of_memory(name) >= 0 && !(m.protection & PROT_WRITE)) continue;
    pieces_.push_back({.name = name,
                       .offset = m.offset,
                       .bytes = m.bytes,
                       .start = m.start,
                       .member = member,
                       .pid = image.threads.front().tid,
                       .is_writable = (m.protection & PROT_WRITE) != 0});
  }
}

Status FamilyMemory::check_others(const std::function<bool(pid_t)>& may_have) const {
  std::set<std::string> names;
  for (const Piece& piece : pieces_) names.insert(piece.name);
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir("/proc"), closedir);
  while (const dirent* entry = directory ? readdir(directory.get()) : nullptr) {
    auto pid = to_number<pid_t>(std::string_view(entry->d_name));
    if (!pid || *pid <= 1 || may_have(*pid)) continue;
    auto maps = MappingTexts::read_maps(*pid);
    if (!maps) continue;
    for (const MappingText& m : maps->all())
      if (m.is_shared() && names.contains(shared_memory_name(m)))
        return cannot_move(fmt::format(
            "memory that it shares with process {}, which is outside of the family", *pid));
  }
  return {};
}

Status FamilyMemory::read(const Piece& piece, std::vector<bool>& taken, FoundPages& found) {
  auto task = TaskMemory::open(piece.pid);
  if (!task) return task.error();
  std::vector<std::byte> chunk(std::min(kChunk, piece.bytes));
  for (uint64_t done = 0; done < piece.bytes; done += chunk.size()) {
    const auto part = std::span(chunk).first(std::min<uint64_t>(chunk.size(), piece.bytes - done));
    const uint64_t first = (piece.offset + done) / kPage, count = part.size() / kPage;
    if (taken.size() < first + count) taken.resize(first + count);
    const auto begin = taken.begin() + static_cast<long>(first);
    if (std::find(begin, begin + static_cast<long>(count), false) ==
        begin + static_cast<long>(count))
      continue;
    if (auto read = read_chunk(*task, piece.start + done, part); !read) return read;
    for (uint64_t i = 0; i < count; ++i) {
      const std::byte* page = part.data() + i * kPage;
      if (taken[first + i] || is_zero_page(page)) continue;
      if (!piece.is_writable) return cannot_move("shared memory that none of them may write");
      taken[first + i] = true;
      found.add(piece.start.value + done + i * kPage, page);
    }
  }
  return {};
}

Result<std::vector<CopiedPages>> FamilyMemory::copy(uint32_t members,
                                                    const std::function<bool(pid_t)>& may_have) {
  std::vector<CopiedPages> copied(members);
  if (pieces_.empty()) return copied;
  if (auto alone = check_others(may_have); !alone) return alone.error();
  std::stable_sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) {
    return std::pair(!a.is_writable, a.start) < std::pair(!b.is_writable, b.start);
  });
  std::map<std::string, std::vector<bool>> taken;
  std::vector<FoundPages> found(members);
  uint64_t total = 0;
  for (const Piece& piece : pieces_) {
    FoundPages& of_member = found[piece.member];
    const size_t before = of_member.bytes();
    if (auto read = FamilyMemory::read(piece, taken[piece.name], of_member); !read)
      return read.error();
    total += of_member.bytes() - before;
    if (total > kMostSharedBytes) return cannot_move("much memory that members share");
  }
  for (uint32_t member = 0; member < members; ++member) {
    auto pages = std::move(found[member]).copy();
    if (!pages) return pages.error();
    copied[member] = std::move(*pages);
  }
  return copied;
}

}  // namespace krg
