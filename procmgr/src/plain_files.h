// PlainFiles: reads files below one directory of this node (the session's procfs, sysfs) the way a
// given user may: what that user could not read here is refused. Every function may block and
// belongs into a worker. Copies share the directory; any number of threads may use one.
//
// Paths are relative, never leave the directory and never follow a link (openat2(2)).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>

#include <memory>
#include <string>
#include <vector>

#include "act_as.h"
#include "krg/procmgr/session_fs.h"
#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// More than any text of procfs that is read whole; longer ones are refused with EFBIG.
inline constexpr size_t kMaxPlainFileBytes = 32u << 20;

class PlainFiles {
 public:
  // Errors: what open says of the directory.
  static Result<PlainFiles> open(const std::string& directory);

  Result<std::string> read(FileUser user, const std::string& path) const;
  Result<size_t> write(FileUser user, const std::string& path, std::string_view data) const;
  Result<struct stat> attributes(FileUser user, const std::string& path) const;
  Result<std::string> link_target(FileUser user, const std::string& path) const;
  // Without "." and "..".
  Result<std::vector<FsDirEntry>> list(FileUser user, const std::string& path) const;

 private:
  explicit PlainFiles(UniqueFd directory)
      : directory_(std::make_shared<const UniqueFd>(std::move(directory))) {}
  Result<UniqueFd> open_below(const std::string& path, int flags) const;

  std::shared_ptr<const UniqueFd> directory_;
};

}  // namespace krg
