// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <map>

#include "image/capture_parts.h"
#include "image/known_mappings.h"
#include "image/served_memory.h"
#include "krg/procmgr/process_family.h"
#include "process_spec.h"
#include "touch.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr uint64_t kMostVdsoBytes = 1u << 20;

// The kernel makes these itself wherever a program is.
bool is_kernels(std::string_view name) {
  return name.starts_with("[vdso") || name.starts_with("[vvar");
}

// A file's own contents, which the mapping may write.
bool is_written_file(const MappingText& m) {
  return m.is_shared() && m.has("mw") && m.inode != 0 && !m.is_deleted() && m.name.starts_with('/');
}

// Why it cannot be taken along; empty: it can. `may_stay`: it goes on where its files are the same.
std::string obstacle(const MappingText& m, bool may_stay) {
  if (is_served(m)) return "memory that a userfaultfd serves";
  if (m.has("ht")) return "huge pages of hugetlbfs";
  if (m.has("ss")) return "a shadow stack";
  if (m.has("io") || m.has("pf")) return fmt::format("a mapping of a device ({})", m.name);
  if (m.is_shared() && m.is_deleted() && m.name.starts_with("/dev/zero"))
    return "anonymous shared memory, mapped when it had neither CAN_MIGRATE nor DISTANT_FORK";
  if (is_written_file(m) && !may_stay && !m.name.starts_with("/dev/"))
    return fmt::format("a mapping that writes {} (krgrun --share-files={} lets it move)", m.name,
                       m.name.substr(0, m.name.rfind('/')));
  if (m.is_shared() && (m.inode == 0 || m.has("mw")) && !(may_stay && is_written_file(m)))
    return m.name.empty() ? "memory that it shares with other processes"
                          : fmt::format("memory that it shares with other processes ({})", m.name);
  if (m.is_deleted())
    return m.is_shared() ? fmt::format("a mapping of a deleted file ({})", m.name) : std::string();
  if (m.inode == 0 && !is_programs_own(m.name)) return fmt::format("a mapping of {}", m.name);
  if (m.inode != 0 && (!m.name.starts_with('/') || m.name.find('\\') != std::string_view::npos))
    return fmt::format("a mapping of {}", m.name);
  return {};
}

// Of System V: "/SYSV0000002a", its inode being its identifier.
bool is_segment(const MappingText& m) {
  return m.is_shared() && m.name.starts_with("/SYSV") && m.name.ends_with(kDeletedSuffix);
}

// Memory that processes of this system share: without a name, or in /dev/shm.
bool is_native_memory(const MappingText& m) {
  if (is_segment(m)) return true;
  if (!m.is_shared() || m.inode == 0 || m.has("ht") || m.name.starts_with(kPageSetName))
    return false;
  if (!m.is_deleted()) return m.name.starts_with("/dev/shm/") && m.has("mw");
  return m.name.starts_with("/dev/zero") || m.name.starts_with("/memfd:") ||
         m.name.starts_with("/dev/shm/");
}

// By its name, which it gets again, or by what it is here.
ImageFile shared_file(const MappingText& m) {
  if (m.is_deleted() || is_segment(m))
    return {shared_memory_name(m), m.offset + (m.end - m.start), 0};
  auto file = identify_file(std::string(m.name));
  return {shared_memory_name(m), file ? file->bytes : 0, 0};
}

uint32_t advice_of(const MappingText& m) {
  static constexpr std::pair<std::string_view, uint32_t> kNames[] = {
      {"gd", ImageMapping::kGrowsDown},   {"lo", ImageMapping::kLocked},
      {"nr", ImageMapping::kNoReserve},   {"dc", ImageMapping::kDontFork},
      {"wf", ImageMapping::kWipeOnFork},  {"hg", ImageMapping::kHugePages},
      {"nh", ImageMapping::kNoHugePages}, {"mg", ImageMapping::kMergeable},
      {"dd", ImageMapping::kDontDump},    {"sr", ImageMapping::kSequential},
      {"rr", ImageMapping::kRandom},      {"dp", ImageMapping::kDroppable}};
  uint32_t advice = m.is_shared() ? uint32_t{ImageMapping::kShared} : 0;
  for (const auto& [name, bit] : kNames)
    if (m.has(name)) advice |= bit;
  return advice;
}

uint32_t protection_of(const MappingText& m) {
  uint32_t protection = PROT_NONE;
  if (m.permissions[0] == 'r') protection |= PROT_READ;
  if (m.permissions[1] == 'w') protection |= PROT_WRITE;
  if (m.permissions[2] == 'x') protection |= PROT_EXEC;
  return protection;
}

class Files {
 public:
  explicit Files(std::vector<ImageFile>& files) : files_(files) {}

  Result<uint32_t> index_of(const ImageFile& shared) {
    for (uint32_t i = 0; i < files_.size(); ++i) {
      if (files_[i].path != shared.path) continue;
      files_[i].bytes = std::max(files_[i].bytes, shared.bytes);
      return i;
    }
    files_.push_back(shared);
    return static_cast<uint32_t>(files_.size() - 1);
  }

  Result<uint32_t> index_of(std::string_view path) {
    for (uint32_t i = 0; i < files_.size(); ++i)
      if (files_[i].path == path) return i;
    auto file = identify_file(std::string(path));
    if (!file) return file.error();
    files_.push_back(std::move(*file));
    return static_cast<uint32_t>(files_.size() - 1);
  }

 private:
  std::vector<ImageFile>& files_;
};

}  // namespace

std::string shared_memory_name(uint64_t device, uint64_t inode) {
  return fmt::format("{}{:x}:{}", kSharedMemoryPrefix, device, inode);
}

std::string shared_memory_name(const MappingText& m) {
  if (is_segment(m)) return segment_memory_name(static_cast<int>(m.inode));
  if (m.is_deleted()) return shared_memory_name(m.device, m.inode);
  return std::string(kSharedMemoryPrefix).append(m.name);
}

Result<ImageFile> identify_file(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) return errno_error(path);
  if (!S_ISREG(found.st_mode)) return cannot_move("a mapping of " + path);
  return ImageFile{path, static_cast<uint64_t>(found.st_size),
                   found.st_mtim.tv_sec * 1'000'000'000 + found.st_mtim.tv_nsec};
}

std::vector<ImageMapping> kernel_mappings(const std::vector<ImageMapping>& all) {
  std::vector<ImageMapping> kernels;
  std::copy_if(all.begin(), all.end(), std::back_inserter(kernels),
               [](const ImageMapping& m) { return m.kind == ImageMapping::Kind::kKernel; });
  return kernels;
}

Result<std::vector<ImageMapping>> list_mappings(pid_t pid) {
  auto maps = MappingTexts::read_maps(pid);
  if (!maps) return maps.error();
  std::vector<ImageMapping> mappings;
  for (const MappingText& m : maps->all()) {
    if (m.name == "[vsyscall]") continue;
    ImageMapping& mapping = mappings.emplace_back();
    mapping.start = RemoteAddr{m.start};
    mapping.bytes = m.end - m.start;
    if (!is_kernels(m.name)) continue;
    mapping.kind = ImageMapping::Kind::kKernel;
    mapping.name = m.name;
  }
  return mappings;
}

Result<std::vector<ImageMapping>> read_mappings(pid_t pid, std::vector<ImageFile>& files,
                                                MappingTexts& before) {
  auto maps = MappingTexts::read_maps(pid);
  if (!maps) return maps.error();
  if (is_served(before) || !maps->take_flags_of(before)) {
    auto smaps = MappingTexts::read_smaps(pid);
    if (!smaps) return smaps.error();
    smaps->takes_shared = before.takes_shared;
    before = *smaps;
    maps = std::move(smaps);
  }
  Files known(files);
  std::vector<ImageMapping> mappings;
  for (const MappingText& m : maps->all()) {
    if (m.name == "[vsyscall]") continue;  // at the same place everywhere
    ImageMapping& mapping = mappings.emplace_back();
    mapping.start = RemoteAddr{m.start};
    mapping.bytes = m.end - m.start;
    mapping.protection = protection_of(m);
    if (is_kernels(m.name)) {
      mapping.kind = ImageMapping::Kind::kKernel;
      mapping.name = m.name;
      continue;
    }
    if (m.is_shared() && m.name.starts_with(kPageSetName)) {
      mapping.kind = ImageMapping::Kind::kShared;
      mapping.advice = advice_of(m) | (m.has("mw") ? uint32_t{ImageMapping::kMayWrite} : 0);
      mapping.shared_file = m.inode;
      mapping.offset = m.offset;
      continue;
    }
    const bool is_families = before.takes_shared && is_native_memory(m);
    if (std::string why = is_families ? "" : obstacle(m, before.takes_shared); !why.empty())
      return cannot_move(std::move(why));
    mapping.advice = advice_of(m);
    // No file leads to a deleted one's contents: they go along, and are its own from then on.
    if (!is_families && (m.inode == 0 || m.is_deleted())) continue;
    auto file = is_families ? known.index_of(shared_file(m)) : known.index_of(m.name);
    if (!file) return file.error();
    mapping.kind = ImageMapping::Kind::kFile;
    mapping.file = *file;
    if (!is_families && is_written_file(m)) files[*file].modified_ns = ImageFile::kMayChange;
    if (is_families && is_segment(m)) {
      mapping.name = shared_memory_name(m);
      if (m.has("mw")) mapping.advice |= ImageMapping::kMayWrite;
    }
    mapping.offset = m.offset;
  }
  return mappings;
}

const ImageMapping* find_vdso(const std::vector<ImageMapping>& mappings) {
  const auto vdso = std::find_if(mappings.begin(), mappings.end(),
                                 [](const ImageMapping& m) { return m.name == "[vdso]"; });
  return vdso == mappings.end() ? nullptr : &*vdso;
}

Result<std::string> read_vdso(const FrozenProcess& process,
                              const std::vector<ImageMapping>& mappings) {
  const ImageMapping* vdso = find_vdso(mappings);
  if (vdso == nullptr || vdso->bytes > kMostVdsoBytes) return std::string();
  std::string code(vdso->bytes, '\0');
  if (auto got = process.read(vdso->start, {code.data(), code.size()}); !got) return got.error();
  return code;
}

}  // namespace krg
