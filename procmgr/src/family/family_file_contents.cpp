// What FamilyFiles saves of the contents of files: of those without a name always, of others where
// it is asked for. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "family/family_files.h"
#include "family/pipe_ends.h"

namespace krg {
namespace {

constexpr uint64_t kMostSaved = 2ULL << 30;  // bytes of files that are copied while all stand
constexpr uint64_t kMostApart = 1u << 20;    // larger ones are among the pages

Result<std::string> contents_of_file(const StolenFd& fd) {
  UniqueFd opened(
      open(fmt::format("/proc/self/fd/{}", fd.copy.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!opened) return errno_error("reading a file without a name");
  std::string bytes(static_cast<size_t>(fd.attributes.st_size), '\0');
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t got =
        pread(opened.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (got <= 0) return errno_error("a file without a name", got < 0 ? errno : EIO);
    done += static_cast<size_t>(got);
  }
  return bytes;
}

}  // namespace

void FamilyFiles::add_mapped(const ProcessImage& image) {
  for (const ImageFile& file : image.files)
    if (struct stat found{};
        file.modified_ns == ImageFile::kMayChange && stat(file.path.c_str(), &found) == 0)
      mapped_.insert({found.st_dev, found.st_ino});
    else if (file.path.starts_with(kSharedMemoryPrefix))
      mapped_memories_.insert(file.path);
}

// One that several descriptions are of has its contents once, of the first.
Status FamilyFiles::describe_deleted(const StolenFd& fd, FamilyFile& file) {
  file.kind = FamilyFile::Kind::kDeleted;
  file.memory = shared_memory_name(fd.attributes.st_dev, fd.attributes.st_ino);
  if (!deleted_.insert(file.memory).second) return {};
  if (file.bytes > kMostApart) {
    file.is_saved = 1;
    return {};
  }
  auto contents = contents_of_file(fd);
  if (!contents) return contents.error();
  file.contents = std::move(*contents);
  return {};
}

Result<std::map<uint32_t, SavedFile>> FamilyFiles::save(const SavedSince& since, bool with_paths,
                                                        FamilyDescription& described) const {
  std::map<uint32_t, SavedFile> saved;
  std::set<std::pair<dev_t, ino_t>> known;
  uint64_t most = kMostSaved;
  for (uint32_t i = 0; i < described.files.size(); ++i) {
    FamilyFile& file = described.files[i];
    const Open& open = opens_[described.numbers[i]];
    const std::pair key(open.fd.attributes.st_dev, open.fd.attributes.st_ino);
    if (with_paths && file.kind == FamilyFile::Kind::kPath && file.is_regular && writes(open.fd) &&
        known.insert(key).second)
      file.is_saved = 1;
    if (!file.is_saved) continue;
    const bool is_mapped = mapped_.contains(key) || mapped_memories_.contains(file.memory);
    auto taken = SavedFile::take(open.fd.copy.get(), is_mapped ? SavedSince() : since, most);
    if (!taken) return Error{taken.error().code, file.path + ": " + taken.error().context};
    saved.emplace(i, std::move(*taken));
  }
  return saved;
}

}  // namespace krg
