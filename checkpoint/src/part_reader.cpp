// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>

#include "block_checksum.h"
#include "krg/checkpoint/part_file.h"
#include "krg/checkpoint/sealed_file.h"
#include "krg/runtime/unique_fd.h"
#include "part_tables.h"

namespace krg {
namespace {

constexpr hsize_t kMostRows = 1u << 28;

// Error: it is not there, or not of that type.
template <class Row>
Result<std::vector<Row>> read_rows(hid_t file, const char* name, hid_t type) {
  const Error missing = text_error(fmt::format("no table {}", name));
  H5Handle data(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
  if (!data) return missing;
  H5Handle space(H5Dget_space(data.get()), H5Sclose);
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  if (count < 0 || static_cast<hsize_t>(count) > kMostRows) return missing;
  std::vector<Row> rows(static_cast<size_t>(count));
  if (count > 0 && H5Dread(data.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows.data()) < 0)
    return missing;
  return rows;
}

constexpr long kCachestat = 451;  // cachestat(2), Linux 6.5

// Whether the kernel has most of that of a file in memory, or does not tell.
bool is_cached(int fd, uint64_t at, uint64_t bytes) {
  const struct { uint64_t offset, bytes; } range{at, bytes};
  struct {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
  } pages{};
  return syscall(kCachestat, fd, &range, &pages, 0) != 0 ||
         pages.cached * kCheckpointPage >= bytes / 2;
}

bool is_aligned(uint64_t value) {
  return value % kCheckpointPage == 0;
}

}  // namespace

struct PartReader::Impl {
  std::string path;
  UniqueFd fd;
  UniqueFd past_cache;  // O_DIRECT, where the file system has that
  PartContents contents;
  Seal seal;
  std::vector<BlockRow> blocks;

  Status read_tables();
  Status check_ranges() const;
  ssize_t read_some(uint64_t at, std::span<std::byte> into, size_t wanted) const;
  uint64_t bytes_of(uint64_t index) const;  // a block's
  Error damaged(uint64_t index) const;
};

PartReader::PartReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PartReader::~PartReader() = default;

Status PartReader::Impl::read_tables() {
  quiet_h5();
  H5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file) return text_error("HDF5 cannot read it");
  auto version = h5_number(file.get(), "version"), node = h5_number(file.get(), "node"),
       page_bytes = h5_number(file.get(), "page_bytes");
  if (!version) return version.error();
  if (!node) return node.error();
  if (!page_bytes) return page_bytes.error();
  contents.version = static_cast<uint32_t>(*version);
  contents.node = static_cast<uint32_t>(*node);
  contents.page_bytes = *page_bytes;
  contents.id = seal.id;
  auto family = read_rows<char>(file.get(), "family", H5T_NATIVE_UINT8);
  if (!family) return family.error();
  auto parsed = ProcessFamily::parse({family->data(), family->size()});
  if (!parsed) return parsed.error();
  contents.family = std::move(*parsed);
  auto ranges = read_rows<PartRange>(file.get(), "ranges", range_row_type().get());
  if (!ranges) return ranges.error();
  contents.ranges = std::move(*ranges);
  auto rows = read_rows<BlockRow>(file.get(), "blocks", block_row_type().get());
  if (!rows) return rows.error();
  blocks = std::move(*rows);
  if (contents.page_bytes != seal.bulk_bytes ||
      blocks.size() !=
          std::max<uint64_t>(1, (contents.page_bytes + kCheckpointBlock - 1) / kCheckpointBlock))
    return text_error("its tables contradict each other");
  return check_ranges();
}

Status PartReader::Impl::check_ranges() const {
  for (const PartRange& range : contents.ranges)
    if (range.member >= contents.family.owner_of_memory(contents.family.memories.size()) ||
        range.version > contents.version || range.bytes % kCheckpointPage != 0 ||
        range.offset % kCheckpointPage != 0 ||
        (range.version == contents.version &&
         (range.offset > contents.page_bytes || range.bytes > contents.page_bytes - range.offset)))
      return text_error("its tables contradict each other");
  return {};
}

Result<std::unique_ptr<PartReader>> PartReader::open(const std::string& path) {
  auto seal = check_seal(path);
  if (!seal) return seal.error();
  if (seal->kind != Seal::Kind::kPart) return text_error(path + ": it is no part of a checkpoint");
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->seal = *seal;
  impl->fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!impl->fd) return errno_error(path);
  impl->past_cache = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  if (auto read = impl->read_tables(); !read)
    return Error{read.error().code, path + ": " + read.error().context};
  return std::unique_ptr<PartReader>(new PartReader(std::move(impl)));
}

const PartContents& PartReader::contents() const {
  return impl_->contents;
}

uint64_t PartReader::block_count() const {
  return (impl_->contents.page_bytes + kCheckpointBlock - 1) / kCheckpointBlock;
}

// What is not in memory comes from the disk to its place: the kernel's cache, a copy of all, takes
// as long to fill as the disk to read on two processors. Otherwise as pread(2). Whole pages are
// asked for past the cache, so that there may be more than `wanted`, where `into` has room.
ssize_t PartReader::Impl::read_some(uint64_t at, std::span<std::byte> into, size_t wanted) const {
  const size_t pages = (wanted + kCheckpointPage - 1) / kCheckpointPage * kCheckpointPage;
  if (past_cache && is_aligned(at) && pages <= into.size() &&
      is_aligned(reinterpret_cast<uint64_t>(into.data())) && !is_cached(fd.get(), at, pages))
    if (const ssize_t got = pread(past_cache.get(), into.data(), pages, static_cast<off_t>(at));
        got > 0)
      return got;
  return pread(fd.get(), into.data(), wanted, static_cast<off_t>(at));
}

uint64_t PartReader::Impl::bytes_of(uint64_t index) const {
  return std::min(kCheckpointBlock, contents.page_bytes - index * kCheckpointBlock);
}

Error PartReader::Impl::damaged(uint64_t index) const {
  return text_error(fmt::format("{}: it is damaged (block {} of its pages)", path, index));
}

Result<std::span<const std::byte>> PartReader::fetch(uint64_t index,
                                                     std::span<std::byte> room) const {
  const BlockRow& row = impl_->blocks.at(index);
  const uint64_t bytes = impl_->bytes_of(index);
  if (row.stored > bytes || (row.encoding == 0 && row.stored != bytes) || row.encoding > 1)
    return impl_->damaged(index);
  const uint64_t at = impl_->seal.bulk_offset + index * kCheckpointBlock;
  for (size_t done = 0; done < row.stored;) {
    const ssize_t got = impl_->read_some(at + done, room.subspan(done), row.stored - done);
    if (got < 0) return errno_error(impl_->path);
    if (got == 0) return impl_->damaged(index);
    done += static_cast<size_t>(got);
  }
  return std::span<const std::byte>(room.first(row.stored));
}

Result<std::span<const std::byte>> PartReader::unpack(
    uint64_t index, std::span<const std::byte> stored,
    const std::function<std::span<std::byte>()>& room) const {
  const BlockRow& row = impl_->blocks.at(index);
  std::span<const std::byte> contents = stored;
  if (row.encoding == 1) {
    const auto into = room().first(impl_->bytes_of(index));
    const size_t size = ZSTD_decompress(into.data(), into.size(), stored.data(), stored.size());
    if (ZSTD_isError(size) || size != into.size()) return impl_->damaged(index);
    contents = into;
  }
  if (block_checksum(contents) != row.checksum) return impl_->damaged(index);
  return contents;
}

Result<size_t> PartReader::read(uint64_t index, std::span<std::byte> into) const {
  std::vector<std::byte> packed(impl_->blocks.at(index).encoding == 0 ? 0 : kCheckpointBlock);
  auto stored = fetch(index, packed.empty() ? into : std::span(packed));
  if (!stored) return stored.error();
  auto contents = unpack(index, *stored, [&] { return into; });
  if (!contents) return contents.error();
  return contents->size();
}

}  // namespace krg
