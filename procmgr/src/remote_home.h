// RemoteHome: the descriptions of this node that processes of other nodes use, and who holds them.
// An entry lives while an export of it is under way (the guard) or a node holds references; a
// node's death drops its references.
//
// Owner: Descriptors. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "home_file.h"
#include "home_flocks.h"
#include "home_record_locks.h"
#include "stream_messages.h"

namespace krg {

class RemoteHome {
 public:
  RemoteHome(NodeContext& node, HomeRecordLocks& locks);
  ~RemoteHome();
  RemoteHome(const RemoteHome&) = delete;
  RemoteHome& operator=(const RemoteHome&) = delete;

  // Keeps a description for other nodes; the entry starts with its guard only.
  HomeId add(std::unique_ptr<HomeFile> file);
  // The same for a node that asked for it, which has a reference then.
  HomeId add_held_by(NodeId node, std::unique_ptr<HomeFile> file);
  // Keeps a descriptor alive while it is exported, without serving I/O on it; and entry `kept`.
  HomeId add_guard(UniqueFd fd, HomeId kept = {});
  // A copy of the description itself, for a process of this very node. Errors: ESTALE.
  Result<UniqueFd> native_copy(HomeId id) const;
  // Nullptr when it is gone or only a guard.
  HomeFile* find(HomeId id) const;
  // The entry of the description of that descriptor; 0: there is none that is served.
  HomeId of_description(int fd) const;
  // The descriptor that add_guard() was given; -1 when it is gone.
  int guarded(HomeId id) const;
  // The nodes that hold references.
  std::vector<NodeId> holders(HomeId id) const;
  // The export `guard` is settled: whoever imported it holds references of its own by now.
  void export_done(HomeId guard);
  // A node holds one reference less.
  void drop_reference(NodeId from, HomeId id);

  // Entries that live; for tests and for telling leaks.
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::unique_ptr<HomeFile> file;  // none: a guard
    UniqueFd guarded;
    bool exporting = true;
    std::map<NodeId, unsigned> references;
    HomeId kept;          // a guard's
    unsigned guards = 0;  // that keep it
  };

  void handle_input_output();
  void handle_references();
  HomeId insert(Entry entry, HomeId id);
  void acquire(NodeId from, HomeId id, Messenger::Reply reply);
  void drop_node(NodeId failed);
  void erase_if_unused(HomeId id);
  void stat(const StreamStat& message, Messenger::Reply reply);
  void ioctl(const StreamIoctl& message, std::string_view in, Messenger::Reply reply) const;
  void reopen(NodeId from, const StreamReopen& message, Messenger::Reply reply);
  void handle_locks();
  void record_lock(NodeId from, const StreamRecordLock& message, Messenger::Reply reply);
  // Unless somebody else has moved it.
  static void set_offset(const HomeFile& file, int64_t from, int64_t to);
  void take_offset_back(NodeId from, const StreamOffsetBack& message, Messenger::Reply reply);

  NodeContext& node_;
  std::map<HomeId, Entry> entries_;
  HomeId next_{1};
  HomeFlocks flocks_;
  HomeRecordLocks& record_locks_;
};

// Makes the HomeFile that suits a description: a pipe, FIFO or terminal, or a regular file. Errors:
// ENOTSUP.
Result<std::unique_ptr<HomeFile>> make_home_file(NodeContext& node, UniqueFd real,
                                                 const struct stat& attributes, int flags);

}  // namespace krg
