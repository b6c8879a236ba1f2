// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/made_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/shm.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>

#include "family/made_files.h"
#include "family/range_pieces.h"
#include "krg/procmgr/mount_krgfs.h"
#include "krg/runtime/write_at.h"
#include "text_scan.h"

namespace krg {
namespace {

constexpr mode_t kPermissions = 07777, kMissingFolder = 0777;
constexpr std::chrono::minutes kLongestWrite{2};

// The path of a mapped file that is memory `id`.
constexpr std::string_view kOfNodes = "nodes:";
std::string name_of(uint64_t id) {
  return fmt::format("{}{}{}", kSharedMemoryPrefix, kOfNodes, id);
}
std::optional<uint64_t> id_of(std::string_view name) {
  if (!name.starts_with(kSharedMemoryPrefix)) return std::nullopt;
  name.remove_prefix(kSharedMemoryPrefix.size());
  if (!name.starts_with(kOfNodes)) return std::nullopt;
  return to_number<uint64_t>(name.substr(kOfNodes.size()));
}

Status make_folders(const std::string& path) {
  constexpr size_t kRoot = sizeof "/dev/shm/" - 1;
  for (size_t end = path.find('/', kRoot); end != std::string::npos; end = path.find('/', end + 1))
    if (mkdir(path.substr(0, end).c_str(), kMissingFolder) != 0 && errno != EEXIST)
      return errno_error(path.substr(0, end));
  return {};
}

// One of that name that is left over is replaced.
Status make_named(const SavedMemory& memory, UniqueFd& file) {
  const std::string first = "/dev/shm/" + memory.names.front();
  for (const std::string& name : memory.names) {
    const std::string path = "/dev/shm/" + name;
    if (auto made = make_folders(path); !made) return made;
    struct stat old {};
    const bool is_there = lstat(path.c_str(), &old) == 0;
    if (is_there && S_ISDIR(old.st_mode) && S_ISDIR(memory.mode)) continue;
    if (is_there && unlink(path.c_str()) != 0) return errno_error(path);
    int done = 0;
    if (path != first)
      done = link(first.c_str(), path.c_str());
    else if (S_ISDIR(memory.mode))
      done = mkdir(path.c_str(), memory.mode & kPermissions);
    else if (S_ISLNK(memory.mode))
      done = symlink(memory.target.c_str(), path.c_str());
    else if (S_ISFIFO(memory.mode))
      done = mkfifo(path.c_str(), memory.mode & kPermissions);
    else
      file = UniqueFd(done = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (done < 0) return errno_error(path);
  }
  // An ordinary user's files are that user's in any case.
  if (lchown(first.c_str(), memory.uid, memory.gid) != 0 && geteuid() == 0)
    return errno_error(first);
  if (!S_ISLNK(memory.mode) && chmod(first.c_str(), memory.mode & kPermissions) != 0)
    return errno_error(first);
  if (file && ftruncate(file.get(), static_cast<off_t>(memory.bytes)) != 0)
    return errno_error(first);
  return {};
}

Status at_offset(const UniqueFd& opened, const FamilyFile& file) {
  if (file.offset != 0 && lseek(opened.get(), file.offset, SEEK_SET) < 0)
    return errno_error("the position in " + file.path);
  return {};
}

}  // namespace

MadeMemory::~MadeMemory() = default;

bool MadeMemory::has_segments() const {
  return std::any_of(family_.memories.begin(), family_.memories.end(),
                     [](const SavedMemory& memory) { return memory.is_segment != 0; });
}

// ---- a kernel's own ----

void MadeMemory::make_native(ProcessImage& image) const {
  for (ImageMapping& m : image.mappings) {
    if (m.kind != ImageMapping::Kind::kShared) continue;
    const auto known = std::find_if(family_.memories.begin(), family_.memories.end(),
                                    [&](const auto& one) { return one.id == m.shared_file; });
    if (known == family_.memories.end()) continue;  // whoever installs it refuses it
    const bool is_segment = known->is_segment != 0;
    ImageFile file{is_segment ? segment_memory_name(known->object.id) : name_of(known->id),
                   known->bytes, 0};
    const auto same = std::find_if(image.files.begin(), image.files.end(),
                                   [&](const ImageFile& one) { return one.path == file.path; });
    m.kind = ImageMapping::Kind::kFile;
    m.file = static_cast<uint32_t>(same - image.files.begin());
    if (is_segment) m.name = file.path;
    if (!is_segment) m.advice &= ~uint32_t{ImageMapping::kMayWrite};
    if (same == image.files.end()) image.files.push_back(std::move(file));
  }
}

Status MadeMemory::make_native(SavedIpc& ipc) {
  return run_in_mount_namespace(node_.session_mount_ns, [&]() -> Status {
    for (const SavedMemory& memory : family_.memories) {
      if (memory.is_segment) {
        SavedSegment segment{.object = memory.object, .contents = {}};
        segment.bytes = memory.bytes;
        segment.is_removed = memory.is_removed;
        segment.is_attached = 1;
        ipc.segments.push_back(std::move(segment));
        continue;
      }
      UniqueFd& file = native_[memory.id];
      if (!memory.names.empty()) {
        if (auto made = make_named(memory, file); !made) return made;
        continue;
      }
      auto made = make_memory(memory.bytes);
      if (!made) return made.error();
      file = std::move(*made);
    }
    return {};
  });
}

Result<std::optional<UniqueFd>> MadeMemory::open_native(const std::string& path) const {
  const auto id = id_of(path);
  const auto made = id ? native_.find(*id) : native_.end();
  if (made == native_.end()) return std::optional<UniqueFd>();
  auto again = open_again(made->second.get(), O_RDWR);
  if (!again) return again.error();
  return std::optional<UniqueFd>(std::move(*again));
}

Result<UniqueFd> MadeMemory::open_native(const FamilyFile& file) const {
  const SavedMemory& memory = family_.memories.at(file.pipe);
  const auto made = native_.find(memory.id);
  if (made == native_.end() || !made->second) return errno_error(file.path, ENOTSUP);
  auto opened = open_again(made->second.get(), file.flags);
  if (!opened) return opened;
  if (auto set = at_offset(*opened, file); !set) return set.error();
  return opened;
}

// ---- shared ----

void MadeMemory::make_shared(std::function<void(Status)> done) {
  if (!shared_ || family_.memories.empty()) return done({});
  shared_->restore(family_.memories,
                   [this, done = std::move(done)](Result<SharedMemory::Restored> restored) {
                     if (!restored) return done(restored.error());
                     restored_ = std::move(*restored);
                     write_known_contents(done);
                   });
}

void MadeMemory::write_known_contents(const std::function<void(Status)>& done) {
  auto outcome = std::make_shared<Status>();
  const auto all = std::shared_ptr<void>(nullptr, [outcome, done](void*) { done(*outcome); });
  for (const SavedMemory& memory : family_.memories) {
    if (memory.contents.empty()) continue;
    shared_->write(restored_->numbers().at(memory.id), 0, memory.contents,
                   [all, outcome](const Status& written) {
                     if (!written) *outcome = written;
                   });
  }
}

void MadeMemory::rename(ProcessImage& image) const {
  if (!restored_) return;
  for (ImageMapping& mapping : image.mappings) {
    if (mapping.kind != ImageMapping::Kind::kShared) continue;
    const auto known = restored_->numbers().find(mapping.shared_file);
    mapping.shared_file = known == restored_->numbers().end() ? 0 : known->second;
  }
}

Result<UniqueFd> MadeMemory::open_shared(const FamilyFile& file) const {
  const uint64_t id = family_.memories.at(file.pipe).id;
  const auto number = restored_->numbers().find(id);
  if (number == restored_->numbers().end()) return errno_error(file.path, ENOENT);
  auto opened = shared_->open_file(number->second, file.flags);
  if (!opened) return opened;
  if (auto set = at_offset(*opened, file); !set) return set.error();
  return opened;
}

void MadeMemory::add_uses(const ProcessImage& image) {
  for (const SharedUse& use : shared_memories(image))
    if (std::find(uses_.begin(), uses_.end(), use) == uses_.end()) uses_.push_back(use);
}

Result<std::vector<UniqueFd>> MadeMemory::descriptors() const {
  std::vector<UniqueFd> all;
  for (const SharedUse& use : uses_) {
    auto memory = shared_->memory(use.file, use.writes);
    if (!memory) return memory.error();
    all.push_back(std::move(*memory));
  }
  if (uses_.empty() || shared_->userfaultfd_device() < 0) return all;
  UniqueFd device(fcntl(shared_->userfaultfd_device(), F_DUPFD_CLOEXEC, 0));
  if (!device) return errno_error("/dev/userfaultfd");
  all.push_back(std::move(device));
  return all;
}

Status MadeMemory::install(FrozenProcess& process, const ProcessImage& image, int first) const {
  if (uses_.empty()) return {};
  const int device =
      shared_->userfaultfd_device() < 0 ? -1 : first + static_cast<int>(uses_.size());
  return install_shared_memory(process, image, *shared_, uses_, first, device);
}

// ---- contents ----

Status MadeMemory::write(uint32_t number, std::span<const PageRange> ranges,
                         std::span<const std::byte> contents) {
  const SavedMemory& memory = family_.memories.at(number);
  if (is_shared()) return write_shared(memory, ranges, contents);
  if (memory.is_segment) return write_segment(memory, ranges, contents);
  const auto made = native_.find(memory.id);
  if (made == native_.end() || !made->second) return errno_error("shared memory", EBADF);
  return write_native(memory, made->second.get(), ranges, contents);
}

Status MadeMemory::write_native(const SavedMemory& memory, int fd,
                                std::span<const PageRange> ranges,
                                std::span<const std::byte> contents) const {
  return for_each_piece(memory.bytes, ranges, contents,
                        [fd](uint64_t at, std::span<const std::byte> bytes) {
                          return write_at(fd, at, bytes, "shared memory");
                        });
}

Status MadeMemory::write_segment(const SavedMemory& memory, std::span<const PageRange> ranges,
                                 std::span<const std::byte> contents) const {
  void* const attached = shmat(memory.object.id, nullptr, 0);
  if (attached == reinterpret_cast<void*>(-1))
    return errno_error(fmt::format("System V segment {}", memory.object.id));
  auto done =
      for_each_piece(memory.bytes, ranges, contents,
                     [attached](uint64_t at, std::span<const std::byte> bytes) -> Status {
                       std::memcpy(static_cast<char*>(attached) + at, bytes.data(), bytes.size());
                       return {};
                     });
  shmdt(attached);
  return done;
}

// The loop has the pages, and need not wait for us.
Status MadeMemory::write_shared(const SavedMemory& memory, std::span<const PageRange> ranges,
                                std::span<const std::byte> contents) const {
  const auto number = restored_->numbers().find(memory.id);
  if (number == restored_->numbers().end()) return errno_error("shared memory", ENOENT);
  struct Writing {
    std::vector<PageRange> ranges;
    std::string contents;
    std::promise<Status> outcome = {};
    Status first_error = {};
  };
  auto writing = std::make_shared<Writing>(
      Writing{{ranges.begin(), ranges.end()},
              std::string(reinterpret_cast<const char*>(contents.data()), contents.size())});
  auto outcome = writing->outcome.get_future();
  node_.loop.post([shared = shared_, file = number->second, writing] {
    const auto all = std::shared_ptr<void>(
        nullptr, [writing](void*) { writing->outcome.set_value(writing->first_error); });
    std::string_view rest = writing->contents;
    for (const PageRange& range : writing->ranges) {
      shared->write(file, range.start.value, rest.substr(0, range.bytes),
                    [all, writing](const Status& written) {
                      if (!written) writing->first_error = written;
                    });
      rest.remove_prefix(range.bytes);
    }
  });
  if (outcome.wait_for(kLongestWrite) != std::future_status::ready)
    return errno_error("shared memory", ETIMEDOUT);
  return outcome.get();
}

void MadeMemory::keep() {
  if (restored_) restored_->keep();
}

void MadeMemory::release() {
  restored_.reset();
}

}  // namespace krg
