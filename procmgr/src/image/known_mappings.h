// MappingTexts: the mappings of a process as procfs shows them. What they are takes a tenth of a
// millisecond to read (/proc/PID/maps), how the kernel was told to treat them (VmFlags, in smaps)
// 40 ms for each GiB that it has, because the kernel counts its pages: so that is read before a
// process stands still, or of its parent, and compared with what it maps then.
// Threads: any; a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/result.h"

namespace krg {

// What ends the name of a file that has none any more, in procfs's links and mappings.
inline constexpr std::string_view kDeletedSuffix = " (deleted)";

// Of memory without a file only what programs made themselves: not [vdso], [vvar] and the like.
bool is_programs_own(std::string_view mapping_name);

struct MappingText {
  uint64_t start = 0, end = 0, offset = 0, inode = 0, device = 0;
  char permissions[5] = "";
  std::string_view name;
  std::vector<std::string_view> flags;  // VmFlags

  bool has(std::string_view flag) const {
    return std::find(flags.begin(), flags.end(), flag) != flags.end();
  }
  bool is_shared() const { return permissions[3] == 's'; }
  bool is_deleted() const { return inode != 0 && name.ends_with(kDeletedSuffix); }
  // Whether this is what `before` has become since: it may have grown.
  bool continues(const MappingText& before) const;
};

// What the memory that it shows is called among members of a family that share it
// (krg/procmgr/process_family.h).
std::string shared_memory_name(const MappingText& m);

class MappingTexts {
 public:
  MappingTexts() = default;
  // Errors: ESRCH.
  static Result<MappingTexts> read_maps(pid_t pid);
  static Result<MappingTexts> read_smaps(pid_t pid);

  const std::vector<MappingText>& all() const { return all_; }
  // Gives each mapping the flags that it had then. False: one was not there.
  bool take_flags_of(const MappingTexts& before);

  // Native memory that it shares with other processes is described instead of refused
  // (family/family_memory.h).
  bool takes_shared = false;

 private:
  static Result<MappingTexts> read(pid_t pid, const char* file);

  std::vector<std::shared_ptr<const std::string>> texts_;  // what the mappings' parts lie in
  std::vector<MappingText> all_;
};

}  // namespace krg
