// IpcTable: the objects of one kind of System V IPC: their keys, identifiers and permissions, as
// the kernel's ipc/util.c has them. Pure. Source: sysvipc(7).
//
// An identifier is sequence << 15 | index. The sequence number goes up whenever an index is not
// greater than the one before, so that an old identifier is not soon another object's.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/capability.h>
#include <sys/ipc.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>

#include "ipc_call.h"

namespace krg {

struct IpcPermissions {
  key_t key = IPC_PRIVATE;
  uid_t uid = 0, creator_uid = 0;
  gid_t gid = 0, creator_gid = 0;
  mode_t mode = 0;
};

inline constexpr mode_t kIpcRead = S_IRUSR | S_IRGRP | S_IROTH;
inline constexpr mode_t kIpcAlter = S_IWUSR | S_IWGRP | S_IWOTH;

inline bool has_capability(const IpcCaller& caller, int capability) {
  return (caller.capabilities >> capability & 1) != 0;
}
inline bool is_in_group(const IpcCaller& caller, gid_t group) {
  return caller.gid == group || std::ranges::find(caller.groups, group) != caller.groups.end();
}
// `wanted`: permission bits in any of the three places of a mode.
inline bool may_access(const IpcPermissions& object, const IpcCaller& caller, mode_t wanted) {
  const mode_t asked = (wanted >> 6) | (wanted >> 3) | wanted;
  mode_t granted = object.mode;
  if (caller.uid == object.creator_uid || caller.uid == object.uid)
    granted >>= 6;
  else if (is_in_group(caller, object.creator_gid) || is_in_group(caller, object.gid))
    granted >>= 3;
  return (asked & ~granted & 07) == 0 || has_capability(caller, CAP_IPC_OWNER);
}
inline bool may_control(const IpcPermissions& object, const IpcCaller& caller) {
  return caller.uid == object.creator_uid || caller.uid == object.uid ||
         has_capability(caller, CAP_SYS_ADMIN);
}

// What stat calls tell and IPC_SET changes; ipc_perm's member names.
inline void fill(ipc_perm& out, const IpcPermissions& object, int id) {
  out.__key = object.key;
  out.uid = object.uid;
  out.gid = object.gid;
  out.cuid = object.creator_uid;
  out.cgid = object.creator_gid;
  out.mode = static_cast<decltype(out.mode)>(object.mode);
  out.__seq = static_cast<decltype(out.__seq)>(id >> 15);
}
inline void take(IpcPermissions& object, const ipc_perm& in) {
  object.uid = in.uid;
  object.gid = in.gid;
  object.mode = (object.mode & ~mode_t{0777}) | (in.mode & 0777);
}

// `Object` has a member `IpcPermissions permissions`.
template <class Object>
class IpcTable {
 public:
  static constexpr int kIndexBits = 15;
  static constexpr int kMostSequence = 0xffff;

  // `first_sequence`: so that another node that takes over does not hand out the same identifiers.
  explicit IpcTable(int first_sequence = 0) : sequence_(first_sequence & kMostSequence) {}

  // REQUIRES: size() < 1 << kIndexBits.
  int add(Object object) {
    int index = 0;
    while (objects_.contains(index)) ++index;
    if (index <= last_index_) sequence_ = (sequence_ + 1) & kMostSequence;
    last_index_ = index;
    const int id = (sequence_ << kIndexBits | index) & 0x7fffffff;
    objects_.emplace(index, Entry{id, std::move(object)});
    return id;
  }
  // Under that very identifier, which is free.
  void insert(int id, Object object) {
    objects_.emplace(id & ((1 << kIndexBits) - 1), Entry{id, std::move(object)});
    sequence_ = std::max(sequence_, id >> kIndexBits);
  }
  // nullptr when there is none (any more).
  Object* find(int64_t id) {
    auto found = objects_.find(static_cast<int>(id & ((1 << kIndexBits) - 1)));
    return id >= 0 && found != objects_.end() && found->second.id == id ? &found->second.object
                                                                        : nullptr;
  }
  // By index instead: as the *_STAT commands name it; the identifier, or -1.
  int id_at(int64_t index) const {
    auto found = objects_.find(static_cast<int>(index));
    return index < 0 || index >> kIndexBits || found == objects_.end() ? -1 : found->second.id;
  }
  // The object that has this key, which is not IPC_PRIVATE; its identifier, or -1.
  int id_of_key(key_t key) const {
    for (const auto& [index, entry] : objects_)
      if (entry.object.permissions.key == key) return entry.id;
    return -1;
  }
  void remove(int id) { objects_.erase(id & ((1 << kIndexBits) - 1)); }
  size_t size() const { return objects_.size(); }
  // 0 when there are none.
  int highest_index() const { return objects_.empty() ? 0 : objects_.rbegin()->first; }
  template <class Each>
  void for_each(Each each) {
    for (auto& [index, entry] : objects_) each(entry.id, entry.object);
  }

 private:
  struct Entry {
    int id;
    Object object;
  };
  std::map<int, Entry> objects_;
  int sequence_, last_index_ = -1;
};

// What semget and msgget do: the object of `key`, or a new one. `check(object)` says what is wrong
// with an object that is there; `make()` gives a new one's id or a negative errno value.
template <class Object, class Check, class Make>
IpcDone ipc_get(IpcTable<Object>& table, const IpcCall& call, int flags, Check check, Make make) {
  const key_t key = static_cast<key_t>(call.args[0]);
  const int id = key == IPC_PRIVATE ? -1 : table.id_of_key(key);
  if (id >= 0) {
    if ((flags & IPC_CREAT) && (flags & IPC_EXCL)) return ipc_failed(call.ticket, EEXIST);
    const Object& object = *table.find(id);
    if (const int error = check(object)) return ipc_failed(call.ticket, error);
    if (!may_access(object.permissions, call.caller, static_cast<mode_t>(flags)))
      return ipc_failed(call.ticket, EACCES);
    return ipc_done(call.ticket, id);
  }
  if (key != IPC_PRIVATE && !(flags & IPC_CREAT)) return ipc_failed(call.ticket, ENOENT);
  const int made = make(IpcPermissions{key, call.caller.uid, call.caller.uid, call.caller.gid,
                                       call.caller.gid, static_cast<mode_t>(flags & 0777)});
  return made < 0 ? ipc_failed(call.ticket, -made) : ipc_done(call.ticket, made);
}

}  // namespace krg
