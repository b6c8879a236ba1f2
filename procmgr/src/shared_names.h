// SharedNames: the names and attributes of the session's /dev/shm, by the rules of POSIX: who may
// look up, open, make, remove and change what, and when a file is gone (no name is left and no node
// uses it). Pure: contents, messages and other nodes are none of its business.
//
// Owner: SharedHome, on the one node that keeps the tree. Threads: the loop's thread.
// Invariants: the root is kTreeRoot; a FileId is never used twice; a directory has one name.
// Limit: kMaxSharedFiles. Source: path_resolution(7), open(2), unlink(2), rename(2), chmod(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "krg/procmgr/session_fs.h"
#include "krg/runtime/types.h"
#include "shared_messages.h"

namespace krg {

inline constexpr size_t kMaxSharedFiles = 1u << 18;

// In whose name something is done. User 0 may do everything.
struct SharedCaller {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

class SharedNames {
 public:
  using Clock = std::function<timespec()>;
  // The root belongs to `owner`, and everybody may make files in it (mode 1777).
  SharedNames(uid_t owner, gid_t group, Clock now);

  // Errors of all: ENOENT for a file that is gone; ENOTDIR; EACCES and EPERM as POSIX has it.
  Result<SharedAttributes> attributes(FileId file) const;
  Result<SharedAttributes> lookup(const SharedCaller& caller, FileId parent,
                                  std::string_view name) const;
  Result<std::vector<FsDirEntry>> list(const SharedCaller& caller, FileId directory) const;
  Result<std::string> link_target(FileId file) const;
  // Whether the caller may open it as `flags` say.
  Result<SharedAttributes> open(const SharedCaller& caller, FileId file, int flags) const;
  // open(2) with O_CREAT. Errors: EEXIST (O_EXCL), ENOSPC over the limit.
  Result<SharedAttributes> create(const SharedCaller& caller, FileId parent, std::string_view name,
                                  mode_t mode, int flags);
  // A directory, a symbolic link to `target`, a FIFO, a socket. Errors: EPERM for devices.
  Result<SharedAttributes> make(const SharedCaller& caller, FileId parent, std::string_view name,
                                mode_t mode, std::string_view target);
  Result<SharedAttributes> link(const SharedCaller& caller, FileId file, FileId parent,
                                std::string_view name);
  Status unlink(const SharedCaller& caller, FileId parent, std::string_view name, bool directory);
  // Errors: EINVAL for flags other than RENAME_NOREPLACE, and into itself.
  Status rename(const SharedCaller& caller, FileId from, std::string_view name, FileId to,
                std::string_view new_name, unsigned flags);
  Result<SharedAttributes> change(const SharedCaller& caller, FileId file, const FsChange& change);
  Status may_write(const SharedCaller& caller, FileId file) const;
  void set_size(FileId file, uint64_t size);
  void touch(FileId file);  // its contents were written

  // A file that nobody finds by name, until it is dropped (then as if unlinked).
  FileId add_nameless(const SharedCaller& caller);
  void drop_nameless(FileId file);

  // A node's open descriptions and mappings of a file: it stays while there are any.
  void use(FileId file, NodeId node);
  void unuse(FileId file, NodeId node);
  unsigned uses(FileId file) const;
  void node_failed(NodeId node);
  // Files that are gone since the last call.
  std::vector<FileId> take_gone();

  // All but the root, folders before what is in them. `names`: where it is found from the root.
  struct Listed {
    SharedAttributes attributes;
    std::vector<std::string> names;
    std::string target;
  };
  std::vector<Listed> all() const;

  size_t size() const { return files_.size(); }
  uint64_t bytes() const;  // the sum of all sizes

 private:
  struct File {
    SharedAttributes attributes;
    FileId parent = 0;                                 // of a directory
    std::map<std::string, FileId, std::less<>> names;  // of a directory
    std::string target;                                // of a symbolic link
    std::map<NodeId, unsigned> users;
  };

  Result<const File*> directory(FileId id) const;
  Result<File*> writable_directory(const SharedCaller& caller, FileId id);
  Status may_remove(const SharedCaller& caller, const File& parent, const File& file) const;
  Result<File*> add(const SharedCaller& caller, FileId parent, std::string_view name, mode_t mode);
  Status replace(const File& old, const File& by) const;
  void add_names_in(const File& folder, const std::string& path,
                    std::map<FileId, std::vector<std::string>>& names) const;
  bool is_below(FileId directory, FileId ancestor) const;
  void drop_name(File& parent, std::string_view name);
  void forget_if_gone(FileId id);

  const Clock now_;
  std::map<FileId, File> files_;
  std::vector<FileId> gone_;
  FileId next_ = kTreeRoot + 1;
};

}  // namespace krg
