// StreamTree: the krgfs tree "fd": the files through which processes of this node use descriptions
// that stay at another node. One inode an import; only krgd can look one up by name, programs reach
// it through the descriptor that they were given (or /dev/fd/N of it).
//
// Owner: Descriptors. Threads: the loop's thread, except open_import().
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "flock_keeper.h"
#include "krg/procmgr/session_fs.h"
#include "stream_messages.h"

namespace krg {

// A description at its home, as an importing node knows it.
struct StreamSource {
  NodeId home;
  HomeId id;
  // Read and written by offset, without a position at home: a regular file that may only be read,
  // or that one process alone has.
  bool seekable = false;
  bool pollable = true;  // false: a regular file, always ready
};

class StreamTree : public FsTree, public FlockKeeper {
 public:
  static constexpr const char* kName = "fd";

  StreamTree(NodeContext& node, SessionFs& fs) : node_(node), fs_(fs) { handle_messages(); }

  // Makes an inode for `source`, of which this node holds a reference already; the inode owns it.
  FileId add_import(const StreamSource& source);
  // A stream for `source`, opened already: from a small stock that workers refill, so that an
  // import does not wait for the file system. Takes over this node's reference. None when the stock
  // has none for these flags.
  std::optional<UniqueFd> take_from_stock(const StreamSource& source, int flags);
  // Opens the import for a process. Any thread but the loop's: it waits for the loop.
  Result<UniqueFd> open_import(FileId import, bool seekable, int flags) const;
  // The import was not opened after all: gives its reference back.
  void drop_import(FileId import);
  // What an open krgfs file of this tree is a copy of.
  std::optional<StreamSource> source_of(ino_t inode) const;
  size_t open_files() const { return handles_.size() - in_stock_; }
  // The attributes that `file` has at its home, its type too. Errors: ESTALE; EIO when the home is
  // lost.
  void ask_home(FileId file, std::function<void(Result<struct stat>)> done);

  void lookup(const FsCaller& caller, FileId parent, std::string_view name,
              FsReply<FsEntry> reply) override;
  void getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) override;
  void open(const FsCaller& caller, FileId file, int flags, FsReply<FsOpened> reply) override;
  void read(const FsCaller& caller, FileId file, uint64_t handle, uint64_t offset, size_t size,
            int flags, FsReply<std::string> reply) override;
  void write(const FsCaller& caller, FileId file, uint64_t handle, uint64_t offset,
             std::string_view data, int flags, FsReply<size_t> reply) override;
  void truncate(const FsCaller& caller, FileId file, uint64_t size, bool by_descriptor,
                FsReply<FsEntry> reply) override;
  void poll(const FsCaller& caller, FileId file, uint64_t handle, std::function<void()> wake,
            FsReply<uint32_t> reply) override;
  void flock(const FsCaller& caller, ino_t inode, uint64_t handle, const FlockRequest& asked,
             FsReply<int> reply) override;
  void drop_flock(ino_t inode, uint64_t owner) override { flocks_.release(inode, owner); }
  // Whether a process of this node has locked a file of another tree by flock(2).
  bool is_flocked(ino_t inode) const { return flocks_.is_locked(inode); }
  void release(FileId file, uint64_t handle) override;
  void interrupt(uint64_t unique) override;

 private:
  static constexpr size_t kStock = 4;  // of each access mode
  // By then the program runs whose descriptors were taken from the stock.
  static constexpr std::chrono::microseconds kRefillDelay{500};
  struct Spare {
    FileId file;
    UniqueFd fd;
  };
  struct Import {
    StreamSource source;
    bool opened = false;            // by krgd: later opens are a program's own
    std::vector<uint64_t> handles;  // open now
  };
  struct Handle {
    StreamSource source;
    std::function<void()> wake;  // of who waits in poll
  };

  void handle_messages();
  void flock_here(const FsCaller& caller, ino_t inode, const FlockRequest& asked,
                  FsReply<int> reply);
  void wake_pollers(Handle& handle);
  void refill_soon(int access_mode);
  void refill(int access_mode);
  uint64_t add_handle(FileId file, const StreamSource& source);
  void reopen(FileId file, int flags, FsReply<FsOpened> reply);
  void ask_attributes(FileId file, int64_t truncate, std::function<void(Result<struct stat>)> done);
  const StreamSource* live_source(FileId file) const;
  void close_at_home(const StreamSource& source);
  static FsOpened opened_as(uint64_t handle, const StreamSource& source);

  NodeContext& node_;
  SessionFs& fs_;
  std::map<int, std::vector<Spare>> stock_;  // by access mode; of no source yet
  std::map<int, EventLoop::Timer> refills_;  // by access mode: armed or under way
  size_t in_stock_ = 0;                      // opened or being opened for it
  std::map<FileId, Import> imports_;
  std::unordered_map<uint64_t, Handle> handles_;
  FlockTable flocks_;                                      // of files of other trees, by inode
  std::unordered_map<uint64_t, StreamSource> operations_;  // by unique: under way at their homes
  FileId next_import_ = kTreeRoot + 1;
  uint64_t next_handle_ = 1;
};

}  // namespace krg
