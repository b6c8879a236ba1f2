// TtyTree: the tree "tty" of krgfs with one symbolic link, "tty", that is bound over /dev/tty: it
// leads a process to its controlling terminal: a body to the pseudo-terminal that mirrors the one
// at home, any other to the real /dev/tty.
//
// Threads: the loop's thread. Owned by ControllingTerminals.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <string>

#include "krg/procmgr/session_fs.h"

namespace krg {

class TtyTree : public FsTree {
 public:
  // Tells where the link leads this caller, now or later.
  using Target = std::function<void(const FsCaller&, FsReply<std::string>)>;
  explicit TtyTree(Target target) : target_(std::move(target)) {}

  void lookup(const FsCaller& caller, FileId parent, std::string_view name,
              FsReply<FsEntry> reply) override;
  void getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) override;
  void readlink(const FsCaller& caller, FileId file, FsReply<std::string> reply) override;

 private:
  Target target_;
};

}  // namespace krg
