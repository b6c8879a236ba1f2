// SharedSaving: the home's part in checkpoints of programs that share memory over nodes: which
// files of that memory are a family's, and the same ones made again in another cluster. What is in
// them is none of its business (PageSet::visit(), write()).
//
// What nobody uses is nobody's: a family that is alone in its system has all of it.
//
// Owner: SharedMemory, on kSharedHome. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ipc/ipc_owners.h"
#include "krg/procmgr/saved_memory.h"
#include "segment_home.h"
#include "shared_home.h"

namespace krg {

class SharedSaving {
 public:
  SharedSaving(NodeContext& node, SharedHome& home, SharedFiles& files, SharedSegments& segments);
  SharedSaving(const SharedSaving&) = delete;
  SharedSaving& operator=(const SharedSaving&) = delete;

 private:
  struct Restoring;
  using RestoringPtr = std::shared_ptr<Restoring>;
  struct Whose {
    TakesIpc takes;
    bool is_alone = false;
    std::set<FileId> held;
  };

  void save(std::string_view payload, Messenger::Reply& reply) const;
  Result<std::vector<SavedMemory>> save(const Whose& whose) const;
  Result<bool> is_wanted(const SharedNames::Listed& one, const SegmentState* segment,
                         const Whose& whose) const;
  void restore_next(const RestoringPtr& job);
  void fail(const RestoringPtr& job, const Error& why);
  Result<FileId> make(const SavedMemory& memory);
  Result<FileId> make_segment(const SavedMemory& memory);
  Result<FileId> make_named(const SavedMemory& memory);
  Status make_room(FileId folder, const std::string& name, mode_t mode);
  Result<FileId> folder_of(const std::string& path);
  void settle(const SavedMemory& memory, FileId file);
  void drop(const std::vector<SavedMemory>& memories);

  SharedHome& home_;
  SharedFiles& files_;
  SharedSegments& segments_;
};

}  // namespace krg
