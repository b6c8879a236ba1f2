// SessionFs: the one FUSE file system of a node's session (krgfs). Each top-level directory is a
// Tree served by one part of krgd (proc, cpu, fd, ...), which is then bind-mounted where programs
// look for it.
//
// It speaks the FUSE protocol on /dev/fuse itself, from the event loop: requests are handed to the
// tree of the node they name, replies may come later, from the loop's thread. Nothing is cached by
// the kernel unless an Entry says so. Callers are session pids (of threads). Source: fuse(4),
// linux/fuse.h protocol 7.31 or later. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "krg/procmgr/mount_krgfs.h"
#include "krg/procmgr/node_context.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// Names a file inside a tree; chosen by the tree; the tree's root is 1. At most 56 bits.
using FileId = uint64_t;
inline constexpr FileId kTreeRoot = 1;

struct FsCaller {
  pid_t tid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  uint64_t unique = 0;  // names the request, for Tree::interrupt()
};
// What lookup and getattr answer. st_ino is filled in by SessionFs.
struct FsEntry {
  FileId id = 0;
  struct stat attributes {};
  double valid_s = 0;  // how long the kernel may keep name and attributes
};
struct FsDirEntry {
  std::string name;
  mode_t type = S_IFREG;
};
struct FsOpened {
  uint64_t handle = 0;
  bool stream = false;  // no file position: reads and writes go on where the stream is
  bool direct_io = true;
  bool flush = false;  // close(2) calls flush() and waits for it
};

// A file made and opened by one request.
struct FsCreated {
  FsEntry entry;
  FsOpened opened;
};
// What setattr changes: the members that are there.
struct FsChange {
  std::optional<mode_t> mode;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<timespec> accessed, modified;
  bool times_are_now = false;  // as utimes(2) without times asks: whoever may write may do so
};
// What statfs(2) tells, in bytes.
struct FsSpace {
  uint64_t total = 0, available = 0;
  uint64_t files = 0, files_available = 0;
};

// An answer to one request, given exactly once, now or later; dropped, it answers EIO.
template <class T>
class FsReply {
 public:
  explicit FsReply(std::function<void(Result<T>)> send) : send_(std::move(send)) {}
  FsReply(FsReply&& other) noexcept : send_(std::exchange(other.send_, nullptr)) {}
  FsReply& operator=(FsReply&&) = delete;
  ~FsReply() {
    if (send_) send_(errno_error("request dropped", EIO));
  }
  void operator()(Result<T> answer) { std::exchange(send_, nullptr)(std::move(answer)); }

 private:
  std::function<void(Result<T>)> send_;
};

// One top-level directory. Every default answers ENOSYS or ENOENT as a read-only empty file system
// would.
class FsTree {
 public:
  virtual ~FsTree() = default;
  virtual void lookup(const FsCaller&, FileId parent, std::string_view name,
                      FsReply<FsEntry> reply);
  virtual void getattr(const FsCaller&, FileId file, FsReply<FsEntry> reply);
  // The kernel keeps a link's target for as long as it knows the FileId, and cuts it at the st_size
  // that lookup() told: a link whose target changes needs a new FileId.
  virtual void readlink(const FsCaller&, FileId file, FsReply<std::string> reply);
  // The whole directory; SessionFs cuts it into pieces.
  virtual void readdir(const FsCaller&, FileId directory, FsReply<std::vector<FsDirEntry>> reply);
  virtual void open(const FsCaller&, FileId file, int flags, FsReply<FsOpened> reply);
  // `flags`: the open file's current O_ flags (O_NONBLOCK matters for streams). An empty string is
  // end of file.
  virtual void read(const FsCaller&, FileId file, uint64_t handle, uint64_t offset, size_t size,
                    int flags, FsReply<std::string> reply);
  virtual void write(const FsCaller&, FileId file, uint64_t handle, uint64_t offset,
                     std::string_view data, int flags, FsReply<size_t> reply);
  // `by_descriptor`: one that is open for writing; else the caller's right to write counts.
  virtual void truncate(const FsCaller&, FileId file, uint64_t size, bool by_descriptor,
                        FsReply<FsEntry> reply);
  virtual void setattr(const FsCaller&, FileId file, const FsChange& change,
                       FsReply<FsEntry> reply);
  // fallocate(2) without a mode: the file is `end` bytes long at least.
  virtual void extend(const FsCaller&, FileId file, uint64_t end, FsReply<int> reply);
  // The umask has been applied to every mode.
  virtual void create(const FsCaller&, FileId parent, std::string_view name, mode_t mode, int flags,
                      FsReply<FsCreated> reply);
  // Anything but a regular file that open(2) makes: a directory, a link to `target`, a FIFO, ….
  virtual void make(const FsCaller&, FileId parent, std::string_view name, mode_t mode,
                    std::string_view target, FsReply<FsEntry> reply);
  virtual void link(const FsCaller&, FileId file, FileId parent, std::string_view name,
                    FsReply<FsEntry> reply);
  // `directory`: rmdir(2), not unlink(2).
  virtual void unlink(const FsCaller&, FileId parent, std::string_view name, bool directory,
                      FsReply<int> reply);
  // `flags`: of renameat2(2).
  virtual void rename(const FsCaller&, FileId from, std::string_view name, FileId to,
                      std::string_view new_name, unsigned flags, FsReply<int> reply);
  virtual void statfs(const FsCaller&, FsReply<FsSpace> reply);
  // Current poll(2) events; when `wake` is not null it is called once, later, when they may have
  // changed. The default is "always ready", as for a regular file.
  virtual void poll(const FsCaller&, FileId file, uint64_t handle, std::function<void()> wake,
                    FsReply<uint32_t> reply);
  virtual void flush(const FsCaller&, FileId file, uint64_t handle, FsReply<int> reply);
  virtual void release(FileId file, uint64_t handle);
  virtual void forget(FileId file);
  // The caller of request `unique` got a signal: that request should answer EINTR soon if it still
  // waits.
  virtual void interrupt(uint64_t unique);
};

class SessionFs {
 public:
  explicit SessionFs(NodeContext& node);
  explicit SessionFs(EventLoop& loop);
  ~SessionFs();
  SessionFs(const SessionFs&) = delete;
  SessionFs& operator=(const SessionFs&) = delete;

  // REQUIRES: before serve(). The tree outlives this object.
  void add_tree(std::string name, FsTree& tree);
  // Starts serving a file system that is mounted already.
  Status serve(KrgfsMount mount);
  // False where /dev/fuse could not be had: nothing is served, and what needs it is not offered.
  bool is_serving() const;
  // The root directory (O_PATH), for openat(2) from a worker thread: opening a file of krgfs in the
  // loop's own thread waits for itself. REQUIRES: is_serving().
  int root() const;
  // The st_dev of krgfs, so that a descriptor can be recognised as one of ours; 0 when not serving.
  dev_t device() const;
  // The FileId of tree `name` behind a krgfs st_ino, or 0 when it belongs to another tree.
  FileId file_of(std::string_view name, ino_t inode) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // replies that come late hold it weakly
};

}  // namespace krg
