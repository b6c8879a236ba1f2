// SessionFs::Impl: what SessionFs keeps; session_fs.cpp answers what only looks,
// session_fs_changes.cpp what changes a tree. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <unordered_map>

#include "flock_keeper.h"
#include "fuse_channel.h"
#include "fuse_protocol.h"
#include "krg/procmgr/session_fs.h"

namespace krg {

struct SessionFs::Impl : std::enable_shared_from_this<Impl> {
  struct NamedTree {
    std::string name;
    FsTree* tree;
  };
  struct OpenDirectory {
    bool filled = false;
    std::vector<FsDirEntry> entries;
  };
  // The request being handled.
  struct Request {
    uint64_t unique;
    uint64_t node;
    FsCaller caller;
    size_t number;  // of the tree
    FsTree* tree;   // nullptr: the root
    FileId file;
  };

  explicit Impl(EventLoop& loop)
      : channel(loop, [this](const fuse_in_header& header, std::string_view body) {
          handle(header, body);
        }) {}

  FuseChannel channel;
  UniqueFd root;
  dev_t device = 0;
  std::vector<NamedTree> trees;
  std::unordered_map<uint64_t, uint64_t> lookups;  // by node: what the kernel will forget
  std::unordered_map<uint64_t, FsTree*> waiting;   // by unique: requests not answered yet
  std::unordered_map<uint64_t, OpenDirectory> directories;
  uint64_t next_directory = 1;
  FlockKeeper* flocks = nullptr;  // one of the trees

  // An FsReply that turns a good answer into a message by `answered`.
  template <class T, class Answered>
  FsReply<T> reply_to(const Request& request, Answered answered) {
    waiting.emplace(request.unique, request.tree);
    return FsReply<T>([weak = weak_from_this(), unique = request.unique,
                       answered = std::move(answered)](Result<T> answer) {
      auto self = weak.lock();
      if (!self) return;
      self->waiting.erase(unique);
      if (!answer) return self->channel.reply(unique, answer.error().errno_or(EIO));
      answered(*self, unique, std::move(*answer));
    });
  }
  FsReply<FsEntry> reply_entry(const Request& request, size_t number) {
    return reply_to<FsEntry>(request, [number](Impl& self, uint64_t unique, FsEntry entry) {
      self.answer_entry(unique, node_id(number, entry.id), entry);
    });
  }
  FsReply<int> reply_done(const Request& request) {
    return reply_to<int>(request,
                         [](Impl& self, uint64_t unique, int) { self.channel.reply(unique, 0); });
  }
  FsReply<RecordLock> reply_lock(const Request& request) {
    return reply_to<RecordLock>(request, [](Impl& self, uint64_t unique, const RecordLock& lock) {
      self.channel.reply_struct(unique, fuse_lk_out{to_protocol(lock)});
    });
  }
  FsReply<RecordLock> reply_locked(const Request& request) {
    return reply_to<RecordLock>(request, [](Impl& self, uint64_t unique, const RecordLock&) {
      self.channel.reply(unique, 0);
    });
  }
  FsReply<FsEntry> reply_attributes(const Request& request) {
    return reply_to<FsEntry>(request,
                             [node = request.node](Impl& self, uint64_t unique, FsEntry entry) {
                               self.answer_attributes(unique, node, entry);
                             });
  }

  // The kernel knows the node from here on, until it forgets it.
  fuse_entry_out enter(uint64_t node, const FsEntry& entry) {
    fuse_entry_out out{};
    out.nodeid = node;
    set_valid(entry.valid_s, out.entry_valid, out.entry_valid_nsec);
    set_valid(entry.valid_s, out.attr_valid, out.attr_valid_nsec);
    out.attr = protocol_attributes(node, entry.attributes);
    ++lookups[node];
    return out;
  }
  void answer_entry(uint64_t unique, uint64_t node, const FsEntry& entry) {
    channel.reply_struct(unique, enter(node, entry));
  }
  void answer_attributes(uint64_t unique, uint64_t node, const FsEntry& entry) {
    fuse_attr_out out{};
    set_valid(entry.valid_s, out.attr_valid, out.attr_valid_nsec);
    out.attr = protocol_attributes(node, entry.attributes);
    channel.reply_struct(unique, out);
  }

  void handle(const fuse_in_header& header, std::string_view body);
  void handle_name_request(const fuse_in_header& header, const Request& request,
                           std::string_view body);
  void handle_file_request(const fuse_in_header& header, const Request& request,
                           std::string_view body);
  void handle_root(const fuse_in_header& header, const Request& request, std::string_view body);
  void init(uint64_t unique, std::string_view body);
  void open(const Request& request, std::string_view body);
  void poll(const Request& request, std::string_view body);
  void control(const Request& request, std::string_view body);
  void check_access(const Request& request, int mode);
  void lock(const Request& request, std::string_view body, uint32_t opcode);
  void release(const Request& request, std::string_view body);
  // Those that change a tree. False when it is another request.
  bool handle_change(const fuse_in_header& header, const Request& request, std::string_view body);
  void set_attributes(const Request& request, std::string_view body);
  void create(const Request& request, std::string_view body);
  void link(const Request& request, std::string_view body);
  void rename(const Request& request, uint64_t to, unsigned flags, std::string_view names);
  void statfs(const Request& request);
  void open_directory(const Request& request);
  void read_directory(const Request& request, std::string_view body);
  void read_filled_directory(uint64_t unique, const fuse_read_in& in);
  void forget(uint64_t node, uint64_t count);
  void forget_batch(std::string_view body);
  void interrupt(uint64_t unique);
};

}  // namespace krg
