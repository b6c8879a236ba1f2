// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_files.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "in_worker.h"
#include "krg/runtime/log.h"
#include "shared_messages.h"

namespace krg {
namespace {

// Page sets of shared files among all sets of the cluster.
constexpr uint64_t kFirstSet = uint64_t{0x5348} << 48;
constexpr size_t kMostPagesWritten = 64;

size_t pages_of(uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes;
}

}  // namespace

std::shared_ptr<SharedFile> SharedFiles::find(FileId file) const {
  auto found = files_.find(file);
  return found == files_.end() ? nullptr : found->second;
}

Status SharedFiles::resize(FileId id, uint64_t bytes, uint64_t covered,
                           std::shared_ptr<MappedFile> mapped) {
  const size_t wanted = pages_of(std::max(bytes, covered));
  auto file = find(id);
  if (file) {
    if (auto done = file->pages->resize(wanted); !done) return done;
    file->bytes = bytes;
    return {};
  }
  if (wanted == 0) return {};
  auto pages = PageSet::create(node_.loop, kddm_, SetId{kFirstSet | id}, wanted,
                               {.linker = mapped, .group = group_});
  if (!pages) return pages.error();
  file = std::make_shared<SharedFile>(
      SharedFile{id, bytes, std::move(*pages), false, std::move(mapped)});
  file->pages->on_idle([this, weak = std::weak_ptr(file)] {
    if (auto idle = weak.lock()) release_if_idle(*idle);
  });
  files_.emplace(id, std::move(file));
  return {};
}

// It may be the page set itself that tells us so: it goes in a turn of its own.
void SharedFiles::drop(FileId id) {
  auto found = files_.find(id);
  if (found == files_.end()) return;
  node_.loop.post([file = std::move(found->second)] {});
  files_.erase(found);
}

// Run by run, each read as it is on all nodes.
struct SharedFiles::WritingBack {
  std::shared_ptr<SharedFile> file;
  std::vector<uint64_t> pages;
  std::function<void(Status)> done;
  size_t next = 0;
};

void SharedFiles::write_back(FileId id, std::function<void(Status)> done) const {
  auto file = find(id);
  if (!file || !file->mapped) return done({});
  auto job = std::make_shared<WritingBack>(WritingBack{file, {}, std::move(done)});
  for (const auto& [page, digest] : file->mapped->pages()) job->pages.push_back(page);
  write_next_run(job);
}

void SharedFiles::write_next_run(const std::shared_ptr<WritingBack>& job) const {
  const auto& pages = job->pages;
  if (job->next == pages.size() || pages[job->next] >= job->file->pages->pages())
    return job->done({});
  const uint64_t first = pages[job->next];
  size_t count = 0;
  while (job->next < pages.size() && pages[job->next] == first + count &&
         first + count < job->file->pages->pages() && count < kMostPagesWritten) {
    ++count;
    ++job->next;
  }
  job->file->pages->read(first * kPageBytes, count * kPageBytes,
                         [this, job, first, count](Result<std::string> read) {
                           if (!read) return job->done(read.error());
                           write_run(job, first, count, std::move(*read));
                         });
}

void SharedFiles::write_run(const std::shared_ptr<WritingBack>& job, uint64_t first, size_t count,
                            std::string contents) const {
  auto& known = job->file->mapped->pages();
  std::vector<MappedFile::Digest> digests;
  for (uint64_t page = first; page < first + count; ++page) digests.push_back(known[page]);
  in_worker(
      node_.workers,
      [file = job->file->mapped, first, bytes = std::move(contents), digests] {
        return file->write(first, bytes, digests);
      },
      [this, job, first](const Result<std::vector<MappedFile::Digest>>& written) {
        if (!written) return job->done(written.error());
        uint64_t page = first;
        for (MappedFile::Digest digest : *written) job->file->mapped->pages()[page++] = digest;
        write_next_run(job);
      });
}

bool SharedFiles::any_mapped() const {
  return std::any_of(files_.begin(), files_.end(),
                     [](const auto& entry) { return entry.second->mapped != nullptr; });
}

FileId SharedFiles::find_mapped(const MappedFile::Name& name) const {
  for (const auto& [id, file] : files_)
    if (file->mapped && file->mapped->name() == name) return id;
  return 0;
}

FileId SharedFiles::mapped_at(RemoteAddr address, uint64_t bytes) const {
  for (const auto& [id, file] : files_)
    if (file->mapped && !file->pages->mapped_in(address, bytes).empty()) return id;
  return 0;
}

void SharedFiles::read(FileId id, uint64_t offset, size_t bytes,
                       std::function<void(Result<std::string>)> done) const {
  auto file = find(id);
  if (!file || offset >= file->bytes) return done(std::string{});
  const size_t count = std::min<uint64_t>(bytes, file->bytes - offset);
  file->pages->read(offset, count, [file, done = std::move(done)](Result<std::string> read) {
    done(std::move(read));
  });
}

void SharedFiles::write(FileId id, uint64_t offset, std::string_view bytes,
                        std::function<void(Status)> done) const {
  auto file = find(id);
  if (!file) return done(errno_error({}, EIO));
  file->pages->write(offset, bytes,
                     [file, done = std::move(done)](Status written) { done(std::move(written)); });
}

void SharedFiles::hold(SharedFile& file) {
  if (std::exchange(file.is_held, true)) return;
  SharedNotice held;
  held.what = SharedNotice::kHeld;
  held.file = file.id;
  if (auto sent = node_.messenger.send(kSharedHome, held); !sent)
    log_warn("shm", "file {}: {}", file.id, sent.error().message());
}

void SharedFiles::release_if_idle(SharedFile& file) {
  if (file.pages->mapping_count() > 0 || !std::exchange(file.is_held, false)) return;
  SharedNotice released;
  released.file = file.id;
  if (auto sent = node_.messenger.send(kSharedHome, released); !sent)
    log_warn("shm", "file {}: {}", file.id, sent.error().message());
}

std::shared_ptr<void> SharedFiles::counted_use(FileId file) {
  return std::shared_ptr<void>(this, [this, file](void*) {
    SharedNotice released;
    released.file = file;
    if (auto sent = node_.messenger.send(kSharedHome, released); !sent)
      log_warn("shm", "file {}: {}", file, sent.error().message());
  });
}

Result<UniqueFd> SharedFiles::memory(FileId id, bool writes) const {
  auto file = find(id);
  if (!file) return errno_error("shared memory that is gone", ENOENT);
  const std::string path = fmt::format("/proc/self/fd/{}", file->pages->memory());
  UniqueFd memory(open(path.c_str(), (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (!memory) return errno_error(path);
  return memory;
}

FileId SharedFiles::file_of_memory(uint64_t inode) const {
  for (const auto& [id, file] : files_) {
    struct stat found {};
    if (fstat(file->pages->memory(), &found) == 0 && found.st_ino == inode) return id;
  }
  return 0;
}

Status SharedFiles::serve(FileId id, UniqueFd userfaultfd, pid_t pid, RemoteAddr at,
                          uint64_t offset, uint64_t bytes) {
  auto file = find(id);
  if (!file) return errno_error("shared memory that is gone", ENOENT);
  hold(*file);
  auto attached = file->pages->attach(std::move(userfaultfd), pid, at,
                                      PageIndex{offset / kPageBytes}, pages_of(bytes));
  if (!attached) release_if_idle(*file);
  return attached;
}

bool SharedFiles::any_held() const {
  return std::any_of(files_.begin(), files_.end(),
                     [](const auto& entry) { return entry.second->is_held; });
}

std::optional<PlaceInSet> SharedFiles::at(pid_t pid, RemoteAddr address) const {
  for (const auto& [id, file] : files_)
    if (auto found = file->pages->locate(pid, address))
      return PlaceInSet{file, file->pages.get(), found->page.value * kPageBytes + found->offset};
  return {};
}

bool SharedFiles::is_mapped_by(pid_t pid) const {
  return std::any_of(files_.begin(), files_.end(),
                     [pid](const auto& entry) { return entry.second->pages->is_attached(pid); });
}

std::shared_ptr<SharedFile> SharedFiles::beginning_at(pid_t pid, RemoteAddr address) const {
  for (const auto& [id, file] : files_) {
    auto location = file->pages->locate(pid, address);
    if (location && location->page.value == 0 && location->offset == 0) return file;
  }
  return nullptr;
}

int SharedFiles::memory_of(SetId set) const {
  auto file = find(FileId{set.value ^ kFirstSet});
  return file ? file->pages->memory() : -1;
}

void SharedFiles::let_go(SetId set, PageIndex page) const {
  if (auto file = find(FileId{set.value ^ kFirstSet})) file->pages->let_go(page);
}

void SharedFiles::update(SetId set, uint64_t offset, std::function<uint32_t(uint32_t)> change,
                         std::function<void(Result<uint32_t>)> done) const {
  auto file = find(FileId{set.value ^ kFirstSet});
  if (!file) return done(errno_error("shared memory that is gone", ENOENT));
  file->pages->update(
      offset, std::move(change),
      [file, done = std::move(done)](Result<uint32_t> was) { done(std::move(was)); });
}

std::optional<SharedFiles::Place> SharedFiles::locate(pid_t pid, RemoteAddr address) const {
  for (const auto& [id, file] : files_)
    if (auto location = file->pages->locate(pid, address))
      return Place{file->pages->id(), *location};
  return {};
}

}  // namespace krg
