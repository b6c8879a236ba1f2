// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <string_view>
#include <utility>

#include "block_checksum.h"
#include "krg/checkpoint/part_file.h"
#include "krg/checkpoint/sealed_file.h"
#include "krg/runtime/unique_fd.h"
#include "krg/runtime/write_at.h"
#include "part_tables.h"

namespace krg {
namespace {

constexpr std::string_view kUnfinished = ".tmp";  // who opens the folder next removes it
constexpr int kCompressionLevel = 1;
constexpr uint64_t kFlushBytes = 16u << 20;  // how far the disk may be behind
constexpr uint64_t kSmallPart = 64u << 20;   // the disk gets each block of it at once

// Where things are that are written without HDF5.
struct Places {
  uint64_t blocks = 0, pages = 0;
};

template <class Row>
bool put_table(hid_t file, const char* name, const H5Handle& type, const std::vector<Row>& rows) {
  H5Handle space = h5_space(rows.size());
  H5Handle made(
      H5Dcreate2(file, name, type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
      H5Dclose);
  if (!made) return false;
  return rows.empty() ||
         H5Dwrite(made.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, rows.data()) >= 0;
}

// A dataset whose place is there at once, and whose contents come later. Its place in the file.
uint64_t put_reserved(hid_t file, const char* name, hid_t type, const H5Handle& space) {
  H5Handle how(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_layout(how.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(how.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(how.get(), H5D_FILL_TIME_NEVER);
  H5Handle made(H5Dcreate2(file, name, type, space.get(), H5P_DEFAULT, how.get(), H5P_DEFAULT),
                H5Dclose);
  const haddr_t at = made ? H5Dget_offset(made.get()) : HADDR_UNDEF;
  return at == HADDR_UNDEF ? 0 : at;
}

std::vector<ProcessRow> process_rows(const ProcessFamily& family) {
  std::vector<ProcessRow> rows;
  for (const FamilyMember& m : family.members) {
    ProcessRow& row = rows.emplace_back();
    row = {m.pid, m.parent, m.group, m.session, m.wait_status, static_cast<uint32_t>(m.fds.size()),
           {}};
    m.name.copy(row.name.data(), row.name.size());
  }
  return rows;
}

std::vector<FileRow> file_rows(const ProcessFamily& family) {
  std::vector<FileRow> rows;
  for (const FamilyFile& f : family.files) {
    FileRow& row = rows.emplace_back();
    row = {static_cast<uint32_t>(f.kind), static_cast<uint32_t>(f.flags), f.offset, f.bytes, {}};
    f.path.copy(row.path.data(), row.path.size());
  }
  return rows;
}

bool put_bytes(hid_t file, const char* name, const std::string& bytes) {
  H5Handle space = h5_space(bytes.size());
  H5Handle made(
      H5Dcreate2(file, name, H5T_STD_U8LE, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
      H5Dclose);
  return made &&
         H5Dwrite(made.get(), H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()) >= 0;
}

uint64_t blocks_of(uint64_t page_bytes) {
  return std::max<uint64_t>(1, (page_bytes + kCheckpointBlock - 1) / kCheckpointBlock);
}

bool put_tables(hid_t file, const PartContents& what) {
  return h5_put(file, "format", std::string("krg-checkpoint")) &&
         h5_put(file, "format_version", kCheckpointFormat) &&
         h5_put(file, "version", what.version) && h5_put(file, "node", what.node) &&
         h5_put(file, "command", what.family.command) &&
         h5_put(file, "page_bytes", what.page_bytes) &&
         put_bytes(file, "family", what.family.serialize()) &&
         put_table(file, "processes", process_row_type(), process_rows(what.family)) &&
         put_table(file, "files", file_row_type(), file_rows(what.family)) &&
         put_table(file, "ranges", range_row_type(), what.ranges);
}

uint64_t put_pages(hid_t file, uint64_t page_bytes) {
  const hsize_t shape[2] = {std::max<uint64_t>(1, page_bytes / kCheckpointPage), kCheckpointPage};
  return put_reserved(file, "pages", H5T_STD_U8LE,
                      H5Handle(H5Screate_simple(2, shape, nullptr), H5Sclose));
}

// Pages lie behind the tables, or, where these come later, before them: then their place is the
// same for all contents.
enum class PagesLie { kBehindTables, kBeforeTables };

// Everything but blocks and pages.
Result<Places> make_tables(const std::string& path, const PartContents& what, PagesLie lie) {
  const Error failed = errno_error(path + ": its tables cannot be written", errno ? errno : EIO);
  H5Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose),
      access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_userblock(creation.get(), kSealBytes);
  H5Pset_alignment(access.get(), kCheckpointBlock, kCheckpointPage);
  H5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), H5Fclose);
  if (!file) return errno_error(path, errno ? errno : EIO);
  Places places;
  if (lie == PagesLie::kBeforeTables) places.pages = put_pages(file.get(), what.page_bytes);
  if (!put_tables(file.get(), what)) return failed;
  places.blocks = put_reserved(file.get(), "blocks", block_row_type().get(),
                               h5_space(blocks_of(what.page_bytes)));
  if (lie == PagesLie::kBehindTables) places.pages = put_pages(file.get(), what.page_bytes);
  if (places.blocks == 0 || places.pages == 0 || !file.close()) return failed;
  return places;
}

// The tables of a new file go to an old one, over its pages.
Status take_over(const std::string& fresh, const std::string& spare, const Places& places,
                 uint64_t page_bytes) {
  UniqueFd from(open(fresh.c_str(), O_RDONLY | O_CLOEXEC)),
      to(open(spare.c_str(), O_RDWR | O_CLOEXEC));
  struct stat made {};
  if (!from || !to || fstat(from.get(), &made) != 0) return errno_error(spare);
  if (ftruncate(to.get(), made.st_size) != 0) return errno_error(spare);
  const auto size = static_cast<uint64_t>(made.st_size), end = places.pages + page_bytes;
  std::vector<char> piece(kCheckpointBlock);
  for (auto [at, until] :
       {std::pair(uint64_t{0}, places.pages), std::pair(std::min(end, size), size)})
    while (at < until) {
      const size_t wanted = std::min<uint64_t>(piece.size(), until - at);
      const ssize_t got = pread(from.get(), piece.data(), wanted, static_cast<off_t>(at));
      if (got <= 0) return errno_error(fresh);
      if (auto put = write_at(
              to.get(), at, std::as_bytes(std::span(piece)).first(static_cast<size_t>(got)), spare);
          !put)
        return put;
      at += static_cast<uint64_t>(got);
    }
  if (rename(spare.c_str(), fresh.c_str()) != 0) return errno_error(spare);
  return {};
}

bool is_page_aligned(uint64_t value) {
  return value % kCheckpointPage == 0;
}

// File systems of disks, where a write past the kernel's cache is one less copy of all, and several
// at once go on beside each other. (Others have servers, to which their cache writes better.)
bool is_written_past_cache(int fd) {
  struct statfs found {};
  return fstatfs(fd, &found) == 0 &&
         (found.f_type == EXT4_SUPER_MAGIC || found.f_type == XFS_SUPER_MAGIC);
}

// Places on the disk for all pages: ext4 lets only one at a time write to holes.
Status reserve(int fd, const Places& places, uint64_t page_bytes) {
  if (fallocate(fd, 0, static_cast<off_t>(places.pages), static_cast<off_t>(page_bytes)) != 0 &&
      errno != EOPNOTSUPP && errno != ENOSYS)
    return errno_error("fallocate");
  return {};
}

}  // namespace

struct PartWriter::Impl {
  static Result<std::unique_ptr<PartWriter>> create(const std::string& path,
                                                    const PartContents& contents,
                                                    const Options& options, PagesLie lie);
  bool put_past_cache(uint64_t at, std::span<const std::byte> bytes) const;

  std::string path;
  UniqueFd fd, past_cache;
  Options options;
  Places places;
  uint64_t page_bytes = 0, id = 0;
  std::vector<BlockRow> blocks;
  std::atomic<uint64_t> stored{0};
};

PartWriter::PartWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PartWriter::~PartWriter() = default;

Result<std::unique_ptr<PartWriter>> PartWriter::create(const std::string& path,
                                                       const PartContents& contents,
                                                       const Options& options) {
  return Impl::create(path, contents, options, PagesLie::kBehindTables);
}

Result<std::unique_ptr<PartWriter>> PartWriter::begin(const std::string& path, uint64_t page_bytes,
                                                      const Options& options) {
  PartContents none;
  none.page_bytes = page_bytes;
  return Impl::create(unfinished(path), none, options, PagesLie::kBeforeTables);
}

std::string PartWriter::unfinished(const std::string& path) {
  return path + std::string(kUnfinished);
}

// The tables are made in a file of the part's name, and go to the one that has the pages.
Status PartWriter::complete(const PartContents& contents) {
  const std::string from =
      std::exchange(impl_->path, impl_->path.substr(0, impl_->path.size() - kUnfinished.size()));
  auto places = make_tables(impl_->path, contents, PagesLie::kBeforeTables);
  if (!places) return places.error();
  if (places->pages != impl_->places.pages)
    return errno_error(impl_->path + ": its pages would lie elsewhere", EIO);
  if (auto taken = take_over(impl_->path, from, *places, contents.page_bytes); !taken) return taken;
  impl_->places = *places;
  impl_->page_bytes = contents.page_bytes;
  impl_->id = contents.id;
  impl_->blocks.resize(blocks_of(contents.page_bytes));
  if (!impl_->past_cache) return {};
  auto reserved = reserve(impl_->fd.get(), *places, contents.page_bytes);
  return reserved ? Status() : errno_error(impl_->path, reserved.error().errno_or(ENOSPC));
}

Result<std::unique_ptr<PartWriter>> PartWriter::Impl::create(const std::string& path,
                                                             const PartContents& contents,
                                                             const Options& options, PagesLie lie) {
  quiet_h5();
  errno = 0;
  auto places = make_tables(path, contents, lie);
  if (!places) return places.error();
  if (!options.spare.empty())
    if (auto taken = take_over(path, options.spare, *places, contents.page_bytes); !taken)
      return taken.error();
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->fd = UniqueFd(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!impl->fd) return errno_error(path);
  impl->options = options;
  impl->places = *places;
  impl->page_bytes = contents.page_bytes;
  impl->id = contents.id;
  impl->blocks.resize(blocks_of(contents.page_bytes));
  if (contents.page_bytes > 0 && !options.compress && is_written_past_cache(impl->fd.get())) {
    if (auto reserved = reserve(impl->fd.get(), *places, contents.page_bytes); !reserved)
      return errno_error(path, reserved.error().errno_or(ENOSPC));
    impl->past_cache = UniqueFd(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_DIRECT));
  }
  return std::unique_ptr<PartWriter>(new PartWriter(std::move(impl)));
}

Status PartWriter::write(uint64_t index, std::span<const std::byte> block) {
  check(index, block);
  if (!impl_->options.compress) return store(index, block);
  std::vector<char> packed(block.size());
  const size_t size =
      ZSTD_compress(packed.data(), packed.size(), block.data(), block.size(), kCompressionLevel);
  // One that is not a page smaller takes as much of the disk.
  if (ZSTD_isError(size) || size + kCheckpointPage > block.size()) return store(index, block);
  BlockRow& row = impl_->blocks.at(index);
  row.stored = static_cast<uint32_t>(size);
  row.encoding = 1;
  return store(index, std::as_bytes(std::span(packed)).first(size));
}

bool PartWriter::waits_for_disk() const {
  return static_cast<bool>(impl_->past_cache);
}

void PartWriter::check(uint64_t index, std::span<const std::byte> block) {
  impl_->blocks.at(index) = {.checksum = block_checksum(block),
                             .stored = static_cast<uint32_t>(block.size()),
                             .encoding = 0};
}

Status PartWriter::store(uint64_t index, std::span<const std::byte> bytes) {
  const uint64_t at = impl_->places.pages + index * kCheckpointBlock;
  if (!impl_->put_past_cache(at, bytes)) {
    if (auto put = write_at(impl_->fd.get(), at, bytes, impl_->path); !put) return put;
    // The disk works while the next blocks are read.
    const uint64_t flushed = impl_->page_bytes <= kSmallPart ? kCheckpointBlock : kFlushBytes;
    if ((index + 1) % (flushed / kCheckpointBlock) == 0)
      sync_file_range(impl_->fd.get(), static_cast<off_t>(at + kCheckpointBlock - flushed),
                      static_cast<off_t>(flushed), SYNC_FILE_RANGE_WRITE);
  }
  impl_->stored += bytes.size();
  return {};
}

// Whether all was written so; what was not is for write_at(), which tells what is wrong.
bool PartWriter::Impl::put_past_cache(uint64_t at, std::span<const std::byte> bytes) const {
  if (!past_cache || !is_page_aligned(at) || !is_page_aligned(bytes.size()) ||
      !is_page_aligned(reinterpret_cast<uint64_t>(bytes.data())))
    return false;
  return pwrite(past_cache.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)) ==
         static_cast<ssize_t>(bytes.size());
}

Status PartWriter::finish() {
  const int fd = impl_->fd.get();
  const auto fail = [this](const Error& error) {
    return errno_error(impl_->path, error.errno_or(EIO));
  };
  if (auto put =
          write_at(fd, impl_->places.blocks, std::as_bytes(std::span(impl_->blocks)), "blocks");
      !put)
    return fail(put.error());
  // The last block may be compressed, and a file without pages has a place for one.
  struct stat found {};
  const uint64_t least =
      impl_->places.pages + std::max<uint64_t>(impl_->page_bytes, kCheckpointPage);
  if (fstat(fd, &found) != 0 || (static_cast<uint64_t>(found.st_size) < least &&
                                 ftruncate(fd, static_cast<off_t>(least)) != 0))
    return errno_error(impl_->path);
  Seal seal{.kind = Seal::Kind::kPart,
            .id = impl_->id,
            .bulk_offset = impl_->places.pages,
            .bulk_bytes = impl_->page_bytes};
  if (auto sealed = put_seal(fd, seal); !sealed) return fail(sealed.error());
  if (fsync(fd) != 0) return errno_error(impl_->path);
  return {};
}

uint64_t PartWriter::stored_bytes() const {
  return impl_->stored;
}

}  // namespace krg
