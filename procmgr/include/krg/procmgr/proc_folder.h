// ProcFolder: a folder that another part adds to the session's /proc (ProcView::add_folder), with
// texts made on demand. Paths are below the folder, without a slash at either end; "" is the folder
// itself.
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "krg/procmgr/session_fs.h"

namespace krg {

class ProcFolder {
 public:
  virtual ~ProcFolder() = default;
  virtual std::string name() const = 0;
  // S_IFDIR or S_IFREG; nothing where there is no such entry.
  virtual std::optional<mode_t> type(const std::string& path) const = 0;
  virtual std::vector<FsDirEntry> list(const std::string& path) const = 0;
  // Answers once, now or later.
  virtual void text(const std::string& path, std::function<void(Result<std::string>)> done) = 0;
};

}  // namespace krg
