// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/shared_again.h"

#include <algorithm>
#include <map>
#include <set>

#include "image/image_files.h"
#include "krg/shmem/page_set.h"

namespace krg {
namespace {

constexpr std::string_view kFolder = "/dev/shm/";

class Sharing {
 public:
  explicit Sharing(ProcessFamily& family) : family_(family) {
    for (const FamilyFile& file : family.files)
      if (file.kind == FamilyFile::Kind::kDeleted) stay_.insert(file.memory);
    for (const SavedMemory& memory : family.memories) next_ = std::max(next_, memory.id + 1);
  }

  void add_segments() {
    for (SavedSegment& segment : family_.ipc.segments) {
      SavedMemory& memory = add(segment_memory_name(segment.object.id));
      memory.is_segment = 1;
      memory.is_removed = segment.is_removed;
      memory.object = segment.object;
      memory.bytes = segment.bytes;
      memory.covered = whole_pages(segment.bytes);
      memory.contents = std::move(segment.contents);
    }
    family_.ipc.segments.clear();
  }

  // Whether anything of it is shared.
  bool add_image(ProcessImage& image) {
    std::vector<bool> is_shared(image.files.size());
    for (ImageMapping& m : image.mappings) {
      if (m.kind != ImageMapping::Kind::kFile || !is_memory(image.files[m.file].path)) continue;
      is_shared[m.file] = true;
      const ImageFile& file = image.files[m.file];
      SavedMemory& memory = memory_of(file, image.spec);
      m.kind = ImageMapping::Kind::kShared;
      m.shared_file = memory.id;
      m.name.clear();
      m.advice |= ImageMapping::kMayWrite;  // else no userfaultfd serves it
      memory.covered = std::max(memory.covered, m.offset + m.bytes);
    }
    drop_files(image, is_shared);
    return std::find(is_shared.begin(), is_shared.end(), true) != is_shared.end();
  }

  void add_open_files() {
    for (FamilyFile& file : family_.files) {
      const auto known = known_.find(std::string(kSharedMemoryPrefix) + file.path);
      if (file.kind != FamilyFile::Kind::kPath || known == known_.end()) continue;
      file.kind = FamilyFile::Kind::kMemory;
      file.pipe = static_cast<uint32_t>(known->second);
      SavedMemory& memory = family_.memories[known->second];
      memory.mode = S_IFREG | file.mode;
    }
  }

 private:
  bool is_memory(const std::string& path) const {
    return path.starts_with(kSharedMemoryPrefix) && !stay_.contains(path);
  }

  SavedMemory& add(const std::string& name) {
    known_[name] = family_.memories.size();
    SavedMemory& memory = family_.memories.emplace_back();
    memory.id = next_++;
    memory.mode = S_IFREG | 0600;
    return memory;
  }

  SavedMemory& memory_of(const ImageFile& file, const ExecSpec& owner) {
    if (const auto known = known_.find(file.path); known != known_.end()) {
      SavedMemory& memory = family_.memories[known->second];
      if (!memory.is_segment) memory.bytes = std::max(memory.bytes, file.bytes);
      return memory;
    }
    SavedMemory& memory = add(file.path);
    memory.uid = owner.attributes.uids[1];
    memory.gid = owner.attributes.gids[1];
    memory.bytes = file.bytes;
    const std::string_view path = std::string_view(file.path).substr(kSharedMemoryPrefix.size());
    if (path.starts_with(kFolder)) memory.names.emplace_back(path.substr(kFolder.size()));
    return memory;
  }

  ProcessFamily& family_;
  std::set<std::string> stay_;
  std::map<std::string, size_t> known_;  // by path: index of the family's memories
  uint64_t next_ = 1;
};

}  // namespace

Result<std::set<pid_t>> share_again(ProcessFamily& family) {
  std::set<pid_t> sharing_members;
  Sharing sharing(family);
  sharing.add_segments();
  for (FamilyMember& member : family.members) {
    if (member.has_ended()) continue;
    auto image = ProcessImage::parse(member.image);
    if (!image) return image.error();
    if (!sharing.add_image(*image)) continue;
    member.image = image->serialize();
    sharing_members.insert(member.pid);
  }
  sharing.add_open_files();
  return sharing_members;
}

}  // namespace krg
