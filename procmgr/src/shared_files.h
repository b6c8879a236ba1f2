// SharedFiles: this node's view of the contents of the session's shared files (/dev/shm and System
// V segments): a page set for each, the same on every node, opened and resized when the home says
// so.
//
// Owner: SharedMemory. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>

#include "krg/procmgr/session_fs.h"
#include "krg/procmgr/shared_memory.h"
#include "krg/shmem/page_set.h"
#include "mapped_file.h"
#include "set_memory.h"

namespace krg {

// The contents of one file on this node; there are none before it has had a first byte.
struct SharedFile {
  FileId id = 0;
  uint64_t bytes = 0;
  std::unique_ptr<PageSet> pages;
  bool is_held = false;                          // the home knows that mappings use it
  std::shared_ptr<MappedFile> mapped = nullptr;  // an ordinary file
};

class SharedFiles {
 public:
  SharedFiles(NodeContext& node, Kddm& kddm) : node_(node), kddm_(kddm) {}
  SharedFiles(const SharedFiles&) = delete;
  SharedFiles& operator=(const SharedFiles&) = delete;

  // Nothing while the file is empty, or unknown.
  std::shared_ptr<SharedFile> find(FileId file) const;
  // As the home says, on all nodes alike. Errors: what PageSet says.
  // `covered`: how far mappings reach, which may be beyond the end.
  // `mapped`: the ordinary file whose contents it has.
  Status resize(FileId file, uint64_t bytes, uint64_t covered,
                std::shared_ptr<MappedFile> mapped = nullptr);
  // What this node has brought from the ordinary file is written there. Errors: of pwrite(2); a
  // lost page.
  void write_back(FileId file, std::function<void(Status)> done) const;
  // The file that is this ordinary one; 0: none. And one that any program has mapped there.
  bool any_mapped() const;
  FileId find_mapped(const MappedFile::Name& name) const;
  FileId mapped_at(RemoteAddr address, uint64_t bytes) const;
  // The file is gone everywhere.
  void drop(FileId file);

  // read(2) and write(2) inside of the file as it is here.
  void read(FileId file, uint64_t offset, size_t bytes,
            std::function<void(Result<std::string>)> done) const;
  void write(FileId file, uint64_t offset, std::string_view bytes,
             std::function<void(Status)> done) const;

  // The file is about to be mapped here: the home is told, and told again when no mapping is left.
  void hold(SharedFile& file);
  void release_if_idle(SharedFile& file);
  // One use by this node that the home has counted: it is told when this goes.
  std::shared_ptr<void> counted_use(FileId file);
  // The file's memory as a program may have it: one that may only read cannot mprotect itself the
  // right to write. Errors: ENOENT, of open(2).
  Result<UniqueFd> memory(FileId file, bool writes) const;
  // The file whose memory on this node is that inode; 0: none.
  FileId file_of_memory(uint64_t inode) const;
  // Serves a mapping of the file's memory from `offset` on. Errors: what PageSet::attach() says;
  // ENOENT.
  Status serve(FileId file, UniqueFd userfaultfd, pid_t pid, RemoteAddr at, uint64_t offset,
               uint64_t bytes);
  // Whether `pid` has mapped any file.
  bool is_mapped_by(pid_t pid) const;
  // The file and place that `address` of `pid` maps.
  struct Place {
    SetId set;
    PageSet::Location location;
  };
  std::optional<Place> locate(pid_t pid, RemoteAddr address) const;
  // The memory file of that set; -1: none.
  int memory_of(SetId set) const;
  void let_go(SetId set, PageIndex page) const;
  // See PageSet::update(). Errors: ENOENT, too.
  void update(SetId set, uint64_t offset, std::function<uint32_t(uint32_t)> change,
              std::function<void(Result<uint32_t>)> done) const;
  // The file whose first byte `pid` has mapped there.
  std::shared_ptr<SharedFile> beginning_at(pid_t pid, RemoteAddr address) const;
  std::optional<PlaceInSet> at(pid_t pid, RemoteAddr address) const;
  // Whether programs have any mapped.
  bool any_held() const;
  size_t size() const { return files_.size(); }

 private:
  struct WritingBack;
  void write_next_run(const std::shared_ptr<WritingBack>& job) const;
  void write_run(const std::shared_ptr<WritingBack>& job, uint64_t first, size_t count,
                 std::string contents) const;

  NodeContext& node_;
  Kddm& kddm_;
  // One process may map several files.
  const std::shared_ptr<UserfaultfdGroup> group_ =
      node_.page_sets ? node_.page_sets : make_userfaultfd_group();
  std::map<FileId, std::shared_ptr<SharedFile>> files_;
};

// No mapping is larger, none begins farther from the start.
inline constexpr uint64_t kMaxSharedMapping = uint64_t{1} << 40;

// The node that keeps names, attributes and who uses what. Without node 0 there is no cluster.
inline constexpr NodeId kSharedHome{0};

}  // namespace krg
