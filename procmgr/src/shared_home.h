// SharedHome: the node that keeps the session's /dev/shm: it answers what the others ask about
// names and attributes (SharedNames), gives every node a file's new size before the one who asked
// goes on, and tells them when a file is gone.
//
// Owner: SharedMemory, on kSharedHome. Threads: the loop's thread. Invariant: the changes of one
// file's size happen one after the other. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <deque>
#include <map>
#include <set>

#include "shared_files.h"
#include "shared_names.h"

namespace krg {

// A longer file is refused (EFBIG).
inline constexpr uint64_t kMaxSharedBytes = uint64_t{1} << 40;

class SharedHome {
 public:
  SharedHome(NodeContext& node, SharedFiles& files);
  SharedHome(const SharedHome&) = delete;
  SharedHome& operator=(const SharedHome&) = delete;

  // Files that never had a name, for System V segments: they live until they are dropped and nobody
  // uses them any more.
  FileId add_nameless(const SharedCaller& caller) { return names_.add_nameless(caller); }
  void drop_nameless(FileId file);
  void extend(FileId file, uint64_t size, std::function<void(Status)> done);
  // Mappings may reach `size` bytes, however long the file is.
  void cover(FileId file, uint64_t size, std::function<void(Status)> done);
  SharedNames& names() { return names_; }
  // Whether it is an ordinary file, of --share-files.
  bool is_ordinary(FileId file) const { return mapped_.contains(file); }
  // Told when names were changed directly.
  void tell_gone();
  void use(FileId file, NodeId node) { names_.use(file, node); }
  void on_gone(std::function<void(FileId)> gone) { on_gone_ = std::move(gone); }

  size_t file_count() const { return names_.size(); }

 private:
  using Reply = Messenger::Reply;
  using Resized = std::function<void(Result<SharedAttributes>)>;
  struct Resize {
    SharedOp how;  // kTruncate, kExtend, kAppend, kCover
    uint64_t amount;
    Resized done;
  };
  struct Question {
    NodeId from;
    SharedRequest request;
    std::string name, second;
    SharedCaller caller;
  };

  void handle(const Question& question, Reply reply);
  void open(const Question& question, Reply reply);
  void change_size(const Question& question, Reply reply);
  void make_anonymous(const Question& question, Reply reply);
  void map_file(const Question& question, Reply reply);
  void write_back(FileId file, std::function<void(Status)> done);
  void finish_unused_files();
  Result<SharedAttributes> change_names(const Question& question);
  void resize(FileId file, Resize resize);
  void begin(FileId file);
  void tell_size(FileId file, uint64_t old, uint64_t size, uint64_t covered);
  void clear_tail(FileId file, uint64_t old, uint64_t size);
  void finish(FileId file, Status outcome);

  NodeContext& node_;
  SharedFiles& files_;
  SharedNames names_;
  std::function<void(FileId)> on_gone_;
  // Ordinary files that programs have mapped. This node itself uses each once, until what was
  // changed has been written back and nobody else uses it.
  std::map<FileId, MappedFile::Name> mapped_;
  std::set<FileId> finishing_;
  std::map<FileId, std::deque<Resize>> resizes_;  // the first one is under way
};

}  // namespace krg
