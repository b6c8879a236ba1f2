// StreamTree: the krgfs tree "fd": the files through which processes of this node use descriptions
// that stay at another node. One inode an import; only krgd can look one up by name, programs reach
// it through the descriptor that they were given (or /dev/fd/N of it).
//
// Owner: Descriptors. Threads: the loop's thread, except open_import().
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "flock_keeper.h"
#include "home_record_locks.h"
#include "ioctl_taker.h"
#include "krg/procmgr/session_fs.h"
#include "shared_locks.h"
#include "shared_offset.h"
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
  bool cached = true;    // what is read by offset; false: others may write it between two locks
  // The home's offset when it was imported, which others share (shared_offset.h); seekable, not
  // cached.
  std::optional<int64_t> shared_offset = {};
  bool is_inotify = false;
  bool is_master = false;             // of a pseudo-terminal, which takes ioctl(2)
  std::optional<pid_t> process = {};  // of a pidfd; 0: one that has ended
};

class StreamTree : public FsTree, public FlockKeeper, public IoctlTaker {
 public:
  static constexpr const char* kName = "fd";

  // `locks`: of this node.
  StreamTree(NodeContext& node, SessionFs& fs, HomeRecordLocks& locks)
      : node_(node), fs_(fs), record_locks_(locks), shared_locks_(node) {
    handle_messages();
  }

  // Makes an inode for `source`, of which this node holds a reference already; the inode owns it.
  // `owner`: the process that it is made for, whose locks end when it is closed.
  FileId add_import(const StreamSource& source, pid_t owner);
  // A stream for `source`, opened already: from a small stock that workers refill, so that an
  // import does not wait for the file system. Takes over this node's reference. None when the stock
  // has none for these flags.
  std::optional<UniqueFd> take_from_stock(const StreamSource& source, int flags, pid_t owner);
  // Opens the import for a process. Any thread but the loop's: it waits for the loop.
  Result<UniqueFd> open_import(FileId import, bool cached, int flags) const;
  // The import was not opened after all: gives its reference back.
  void drop_import(FileId import);
  // What an open krgfs file of this tree is a copy of.
  std::optional<StreamSource> source_of(ino_t inode) const;
  // The same of descriptor `number` of a thread of this node.
  std::optional<StreamSource> source_of(pid_t tid, int number) const;
  // A process that has it is about to leave with it: its end here will be no end of its locks. And
  // that it stays.
  void leaves(ino_t inode, pid_t owner);
  void stays(ino_t inode);
  // Tells the home where processes here have sought to in a file with a shared offset, of which
  // `descriptor` is one of krgd's. Result: from where, as far as known, to where.
  SharedOffset::Seek settle_offset(FileId file, int descriptor, bool may_be_reading);
  // What settles all of this node's, called before a process here can tell others by a stream that
  // it has sought.
  void set_settling(std::function<void()> settle_offsets) {
    settle_offsets_ = std::move(settle_offsets);
  }
  FileId import_of(ino_t inode) const { return fs_.file_of(kName, inode); }
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
  void ioctl(const FsCaller& caller, const IoctlRequest& asked,
             FsReply<std::string> reply) override;
  void flock(const FsCaller& caller, ino_t inode, uint64_t handle, const FlockRequest& asked,
             FsReply<int> reply) override;
  void drop_flock(ino_t inode, uint64_t owner) override;
  void record_lock(const FsCaller& caller, ino_t inode, uint64_t handle,
                   const RecordLockRequest& asked, FsReply<RecordLock> reply) override;
  void drop_record_locks(ino_t inode) override;
  // What F_GETLK tells a process of this node about a file of krgfs that it has open, with the
  // holder's pid wherever that is: the kernel passes on only those of this node.
  void find_lock(pid_t process, ino_t inode, const RecordLock& wanted,
                 std::function<void(Result<RecordLock>)> done);
  // Whether a process of this node has locked a file of another tree by flock(2).
  bool is_flocked(ino_t inode) const;
  // The same by fcntl(2).
  bool is_record_locked(ino_t inode) const;
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
    pid_t owner = 0;                // of the first handle
    bool opened = false;            // by krgd: later opens are a program's own
    std::vector<uint64_t> handles;  // open now
  };
  struct Handle {
    StreamSource source;
    std::function<void()> wake;   // of who waits in poll
    std::set<pid_t> owners = {};  // whose locks end when it is closed
    std::set<pid_t> left = {};    // those that have left with it, or are about to
    std::optional<SharedOffset> offset = {};
  };
  // A file of another tree, locked by fcntl(2): the kernel keeps such locks for krgd, of a file
  // that has no other use.
  struct LockedFile {
    std::shared_ptr<UniqueFd> file;
    std::set<LockOwner> owners;
  };

  void handle_messages();
  void flock_here(const FsCaller& caller, ino_t inode, const FlockRequest& asked,
                  FsReply<int> reply);
  SharedLocks::CountOpen descriptors_of(ino_t inode) const;
  void record_lock_here(const FsCaller& caller, ino_t inode, const RecordLockRequest& asked,
                        const LockOwner& owner, FsReply<RecordLock> reply);
  void record_lock_at_home(const FsCaller& caller, const StreamSource& source,
                           const RecordLockRequest& asked, const LockOwner& owner,
                           FsReply<RecordLock> reply);
  // The number by which a file's locks are kept for all nodes; 0: they are this node's.
  FileId shared_file(ino_t inode) const;
  void find_owner(pid_t caller, uint64_t owner, std::function<void(LockOwner)> done);
  void let_go_at_home(const Handle& handle);
  void wake_pollers(Handle& handle);
  bool read_at_shared_offset(const FsCaller& caller, FileId file, uint64_t handle, int64_t offset,
                             size_t size, FsReply<std::string>& reply);
  void move_offset(const SharedOffset& offset, pid_t tid, int number);
  void refill_soon(int access_mode);
  void refill(int access_mode);
  uint64_t add_handle(FileId file, const StreamSource& source, pid_t owner = 0);
  void reopen(FileId file, int flags, FsReply<FsOpened> reply);
  void ask_attributes(FileId file, int64_t truncate, std::function<void(Result<struct stat>)> done);
  // Asks the source's home for an operation, which interrupt() may cancel until it is answered.
  template <class M>
  void carry_out_at_home(const FsCaller& caller, const StreamSource& source, M message,
                         std::string_view data, std::function<void(Result<std::string>)> done) {
    message.home = source.id;
    message.operation = caller.unique;
    operations_.emplace(caller.unique, source);
    node_.messenger.request(
        source.home, message, data,
        [this, unique = caller.unique, done = std::move(done)](Result<std::string> answer) {
          operations_.erase(unique);
          done(std::move(answer));
        });
  }
  const StreamSource* live_source(FileId file) const;
  void close_at_home(const StreamSource& source);
  static FsOpened opened_as(uint64_t handle, const StreamSource& source);

  NodeContext& node_;
  SessionFs& fs_;
  std::function<void()> settle_offsets_ = [] {};
  std::map<int, std::vector<Spare>> stock_;  // by access mode; of no source yet
  std::map<int, EventLoop::Timer> refills_;  // by access mode: armed or under way
  size_t in_stock_ = 0;                      // opened or being opened for it
  std::map<FileId, Import> imports_;
  std::unordered_map<uint64_t, Handle> handles_;
  FlockTable flocks_;  // of files of other trees, by inode
  HomeRecordLocks& record_locks_;
  SharedLocks shared_locks_;
  std::map<ino_t, LockedFile> locked_files_;
  std::map<uint64_t, bool> finding_owners_;  // by request: whether it is interrupted
  std::map<std::pair<pid_t, uint64_t>, LockOwner> known_owners_;  // by process and FUSE's owner
  std::unordered_map<uint64_t, StreamSource> operations_;  // by unique: under way at their homes
  FileId next_import_ = kTreeRoot + 1;
  uint64_t next_handle_ = 1;
  uint64_t next_finding_ = 1;  // odd: what the kernel calls its requests is even
};

}  // namespace krg
