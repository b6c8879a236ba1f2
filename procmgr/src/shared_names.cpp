// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_names.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace krg {
namespace {

constexpr mode_t kRead = 4, kWrite = 2, kSearch = 1;
constexpr mode_t kPermissionBits = 07777;
constexpr unsigned kNoReplace = 1;  // RENAME_NOREPLACE

Error refused(int number) {
  return errno_error({}, number);
}

bool is_in_group(const SharedCaller& caller, gid_t group) {
  return caller.gid == group ||
         std::find(caller.groups.begin(), caller.groups.end(), group) != caller.groups.end();
}

bool owns(const SharedCaller& caller, const SharedAttributes& file) {
  return caller.uid == 0 || caller.uid == file.uid;
}

Status may(const SharedCaller& caller, const SharedAttributes& file, mode_t wanted) {
  if (caller.uid == 0) return {};
  mode_t granted = file.mode;
  if (caller.uid == file.uid)
    granted >>= 6;
  else if (is_in_group(caller, file.gid))
    granted >>= 3;
  if ((granted & wanted) != wanted) return refused(EACCES);
  return {};
}

mode_t wanted_by(int flags) {
  mode_t wanted = flags & O_TRUNC ? kWrite : 0;
  const int access = flags & O_ACCMODE;
  if (access != O_WRONLY) wanted |= kRead;
  if (access != O_RDONLY) wanted |= kWrite;
  return wanted;
}

void set_modified(SharedAttributes& file, const timespec& now) {
  file.modified_s = file.changed_s = now.tv_sec;
  file.modified_ns = file.changed_ns = now.tv_nsec;
}
void set_changed(SharedAttributes& file, const timespec& now) {
  file.changed_s = now.tv_sec;
  file.changed_ns = now.tv_nsec;
}

Status may_change(const SharedCaller& caller, const SharedAttributes& file,
                  const FsChange& change) {
  const bool is_owner = owns(caller, file);
  if (change.mode && !is_owner) return refused(EPERM);
  if (change.uid && caller.uid != 0 && (*change.uid != file.uid || !is_owner))
    return refused(EPERM);
  if (change.gid && caller.uid != 0 && !(is_owner && is_in_group(caller, *change.gid)))
    return refused(EPERM);
  if ((change.accessed || change.modified) && !is_owner)
    return change.times_are_now ? may(caller, file, kWrite) : refused(EPERM);
  return {};
}

}  // namespace

SharedNames::SharedNames(uid_t owner, gid_t group, Clock now) : now_(std::move(now)) {
  File root;
  root.parent = kTreeRoot;
  root.attributes = {kTreeRoot, S_IFDIR | S_ISVTX | 0777, owner, group, 2};
  set_modified(root.attributes, now_());
  root.attributes.accessed_s = root.attributes.modified_s;
  files_.emplace(kTreeRoot, std::move(root));
}

Result<SharedAttributes> SharedNames::attributes(FileId file) const {
  auto found = files_.find(file);
  if (found == files_.end()) return refused(ENOENT);
  return found->second.attributes;
}

Result<const SharedNames::File*> SharedNames::directory(FileId id) const {
  auto found = files_.find(id);
  if (found == files_.end()) return refused(ENOENT);
  if (!S_ISDIR(found->second.attributes.mode)) return refused(ENOTDIR);
  return &found->second;
}

Result<SharedNames::File*> SharedNames::writable_directory(const SharedCaller& caller, FileId id) {
  auto found = directory(id);
  if (!found) return found.error();
  if ((*found)->attributes.links == 0) return refused(ENOENT);
  if (auto granted = may(caller, (*found)->attributes, kWrite | kSearch); !granted)
    return granted.error();
  return &files_.at(id);
}

Result<SharedAttributes> SharedNames::lookup(const SharedCaller& caller, FileId parent,
                                             std::string_view name) const {
  auto in = directory(parent);
  if (!in) return in.error();
  if (auto granted = may(caller, (*in)->attributes, kSearch); !granted) return granted.error();
  auto found = (*in)->names.find(name);
  if (found == (*in)->names.end()) return refused(ENOENT);
  return attributes(found->second);
}

Result<std::vector<FsDirEntry>> SharedNames::list(const SharedCaller& caller,
                                                  FileId directory_id) const {
  auto in = directory(directory_id);
  if (!in) return in.error();
  if (auto granted = may(caller, (*in)->attributes, kRead); !granted) return granted.error();
  std::vector<FsDirEntry> entries;
  for (const auto& [name, id] : (*in)->names)
    entries.push_back({name, files_.at(id).attributes.mode & S_IFMT});
  return entries;
}

Result<std::string> SharedNames::link_target(FileId file) const {
  auto found = files_.find(file);
  if (found == files_.end()) return refused(ENOENT);
  if (!S_ISLNK(found->second.attributes.mode)) return refused(EINVAL);
  return found->second.target;
}

Result<SharedAttributes> SharedNames::open(const SharedCaller& caller, FileId file,
                                           int flags) const {
  auto found = attributes(file);
  if (!found) return found;
  if (auto granted = may(caller, *found, wanted_by(flags)); !granted) return granted.error();
  return found;
}

Result<SharedAttributes> SharedNames::create(const SharedCaller& caller, FileId parent,
                                             std::string_view name, mode_t mode, int flags) {
  if (auto old = lookup(caller, parent, name)) {
    if (flags & O_EXCL) return refused(EEXIST);
    if (S_ISDIR(old->mode)) return refused(EISDIR);
    return open(caller, old->id, flags);
  }
  auto file = add(caller, parent, name, S_IFREG | (mode & kPermissionBits));
  if (!file) return file.error();
  return (*file)->attributes;
}

Result<SharedAttributes> SharedNames::make(const SharedCaller& caller, FileId parent,
                                           std::string_view name, mode_t mode,
                                           std::string_view target) {
  if (S_ISCHR(mode) || S_ISBLK(mode)) return refused(EPERM);
  auto file = add(caller, parent, name, mode);
  if (!file) return file.error();
  (*file)->target = target;
  if (S_ISLNK(mode)) (*file)->attributes.size = target.size();
  return (*file)->attributes;
}

Result<SharedNames::File*> SharedNames::add(const SharedCaller& caller, FileId parent,
                                            std::string_view name, mode_t mode) {
  auto in = writable_directory(caller, parent);
  if (!in) return in.error();
  if ((*in)->names.contains(name)) return refused(EEXIST);
  if (files_.size() >= kMaxSharedFiles) return refused(ENOSPC);
  const FileId id = next_++;
  File file;
  file.attributes = {id, static_cast<uint32_t>(mode), caller.uid, caller.gid, 1};
  const SharedAttributes& above = (*in)->attributes;
  if (above.mode & S_ISGID) {
    file.attributes.gid = above.gid;
    if (S_ISDIR(mode)) file.attributes.mode |= S_ISGID;
  }
  if (S_ISDIR(mode)) {
    file.parent = parent;
    file.attributes.links = 2;
    ++(*in)->attributes.links;
  }
  const timespec now = now_();
  set_modified(file.attributes, now);
  file.attributes.accessed_s = now.tv_sec;
  file.attributes.accessed_ns = now.tv_nsec;
  (*in)->names.emplace(name, id);
  set_modified((*in)->attributes, now);
  return &files_.emplace(id, std::move(file)).first->second;
}

Result<SharedAttributes> SharedNames::link(const SharedCaller& caller, FileId file, FileId parent,
                                           std::string_view name) {
  auto in = writable_directory(caller, parent);
  if (!in) return in.error();
  auto found = files_.find(file);
  // A file without a name stays without one (a link to /proc/self/fd/N).
  if (found == files_.end() || found->second.attributes.links == 0) return refused(ENOENT);
  if (S_ISDIR(found->second.attributes.mode)) return refused(EPERM);
  if (!(*in)->names.emplace(name, file).second) return refused(EEXIST);
  const timespec now = now_();
  set_modified((*in)->attributes, now);
  set_changed(found->second.attributes, now);
  ++found->second.attributes.links;
  return found->second.attributes;
}

// The sticky bit: only the owner of the file or of the directory may remove its names.
Status SharedNames::may_remove(const SharedCaller& caller, const File& parent,
                               const File& file) const {
  if (!(parent.attributes.mode & S_ISVTX)) return {};
  if (owns(caller, file.attributes) || owns(caller, parent.attributes)) return {};
  return refused(EPERM);
}

Status SharedNames::unlink(const SharedCaller& caller, FileId parent, std::string_view name,
                           bool is_directory) {
  auto in = writable_directory(caller, parent);
  if (!in) return in.error();
  auto found = (*in)->names.find(name);
  if (found == (*in)->names.end()) return refused(ENOENT);
  const File& file = files_.at(found->second);
  if (auto granted = may_remove(caller, **in, file); !granted) return granted;
  if (is_directory && !S_ISDIR(file.attributes.mode)) return refused(ENOTDIR);
  if (!is_directory && S_ISDIR(file.attributes.mode)) return refused(EISDIR);
  if (!file.names.empty()) return refused(ENOTEMPTY);
  drop_name(**in, name);
  return {};
}

// Takes the name away; the file goes with its last name and user.
void SharedNames::drop_name(File& parent, std::string_view name) {
  auto found = parent.names.find(name);
  const FileId id = found->second;
  File& file = files_.at(id);
  const timespec now = now_();
  parent.names.erase(found);
  set_modified(parent.attributes, now);
  set_changed(file.attributes, now);
  if (S_ISDIR(file.attributes.mode)) {
    file.attributes.links = 0;
    --parent.attributes.links;
  } else {
    --file.attributes.links;
  }
  forget_if_gone(id);
}

void SharedNames::forget_if_gone(FileId id) {
  auto found = files_.find(id);
  if (found->second.attributes.links > 0 || !found->second.users.empty()) return;
  files_.erase(found);
  gone_.push_back(id);
}

Status SharedNames::rename(const SharedCaller& caller, FileId from, std::string_view name,
                           FileId to, std::string_view new_name, unsigned flags) {
  if (flags & ~kNoReplace) return refused(EINVAL);
  auto source = writable_directory(caller, from);
  if (!source) return source.error();
  auto target = writable_directory(caller, to);
  if (!target) return target.error();
  auto found = (*source)->names.find(name);
  if (found == (*source)->names.end()) return refused(ENOENT);
  const FileId id = found->second;
  File& file = files_.at(id);
  if (auto granted = may_remove(caller, **source, file); !granted) return granted;
  const bool is_directory = S_ISDIR(file.attributes.mode);
  if (is_directory && is_below(to, id)) return refused(EINVAL);
  if (auto old = (*target)->names.find(new_name); old != (*target)->names.end()) {
    if (flags & kNoReplace) return refused(EEXIST);
    if (old->second == id) return {};
    const File& victim = files_.at(old->second);
    if (auto granted = may_remove(caller, **target, victim); !granted) return granted;
    if (auto fits = replace(victim, file); !fits) return fits;
    drop_name(**target, new_name);
  }
  (*source)->names.erase(std::string(name));
  (*target)->names.emplace(new_name, id);
  if (is_directory) {
    file.parent = to;
    --(*source)->attributes.links;
    ++(*target)->attributes.links;
  }
  const timespec now = now_();
  set_modified((*source)->attributes, now);
  set_modified((*target)->attributes, now);
  set_changed(file.attributes, now);
  return {};
}

Status SharedNames::replace(const File& old, const File& by) const {
  const bool old_is_directory = S_ISDIR(old.attributes.mode);
  const bool is_directory = S_ISDIR(by.attributes.mode);
  if (is_directory && !old_is_directory) return refused(ENOTDIR);
  if (!is_directory && old_is_directory) return refused(EISDIR);
  if (!old.names.empty()) return refused(ENOTEMPTY);
  return {};
}

bool SharedNames::is_below(FileId id, FileId ancestor) const {
  while (id != ancestor) {
    if (id == kTreeRoot) return false;
    id = files_.at(id).parent;
  }
  return true;
}

Result<SharedAttributes> SharedNames::change(const SharedCaller& caller, FileId id,
                                             const FsChange& change) {
  auto found = files_.find(id);
  if (found == files_.end()) return refused(ENOENT);
  SharedAttributes& file = found->second.attributes;
  if (auto granted = may_change(caller, file, change); !granted) return granted.error();
  if (change.mode) file.mode = (file.mode & S_IFMT) | (*change.mode & kPermissionBits);
  if (change.uid) file.uid = *change.uid;
  if (change.gid) file.gid = *change.gid;
  if (change.accessed) {
    file.accessed_s = change.accessed->tv_sec;
    file.accessed_ns = change.accessed->tv_nsec;
  }
  if (change.modified) {
    file.modified_s = change.modified->tv_sec;
    file.modified_ns = change.modified->tv_nsec;
  }
  set_changed(file, now_());
  return file;
}

Status SharedNames::may_write(const SharedCaller& caller, FileId file) const {
  auto found = attributes(file);
  if (!found) return found.error();
  return may(caller, *found, kWrite);
}

void SharedNames::set_size(FileId file, uint64_t size) {
  auto found = files_.find(file);
  if (found == files_.end()) return;
  found->second.attributes.size = size;
  set_modified(found->second.attributes, now_());
}

void SharedNames::touch(FileId file) {
  auto found = files_.find(file);
  if (found != files_.end()) set_modified(found->second.attributes, now_());
}

FileId SharedNames::add_nameless(const SharedCaller& caller) {
  File file;
  file.attributes = {next_, S_IFREG | 0600, caller.uid, caller.gid, 1};
  set_modified(file.attributes, now_());
  files_.emplace(next_, std::move(file));
  return next_++;
}

void SharedNames::drop_nameless(FileId file) {
  auto found = files_.find(file);
  if (found == files_.end()) return;
  found->second.attributes.links = 0;
  forget_if_gone(file);
}

void SharedNames::use(FileId file, NodeId node) {
  auto found = files_.find(file);
  if (found != files_.end()) ++found->second.users[node];
}

unsigned SharedNames::uses(FileId id) const {
  unsigned uses = 0;
  auto found = files_.find(id);
  if (found == files_.end()) return 0;
  for (const auto& [node, count] : found->second.users) uses += count;
  return uses;
}

void SharedNames::unuse(FileId file, NodeId node) {
  auto found = files_.find(file);
  if (found == files_.end()) return;
  auto user = found->second.users.find(node);
  if (user == found->second.users.end()) return;
  if (--user->second == 0) found->second.users.erase(user);
  forget_if_gone(file);
}

void SharedNames::node_failed(NodeId node) {
  std::vector<FileId> used;
  for (auto& [id, file] : files_)
    if (file.users.erase(node) > 0) used.push_back(id);
  for (FileId id : used) forget_if_gone(id);
}

std::vector<FileId> SharedNames::take_gone() {
  return std::exchange(gone_, {});
}

void SharedNames::add_names_in(const File& folder, const std::string& path,
                               std::map<FileId, std::vector<std::string>>& names) const {
  for (const auto& [name, id] : folder.names) {
    names[id].push_back(path + name);
    const File& file = files_.at(id);
    if (S_ISDIR(file.attributes.mode)) add_names_in(file, path + name + '/', names);
  }
}

std::vector<SharedNames::Listed> SharedNames::all() const {
  std::map<FileId, std::vector<std::string>> names;
  add_names_in(files_.at(kTreeRoot), {}, names);
  std::vector<Listed> all;
  for (const auto& [id, file] : files_)
    if (id != kTreeRoot) all.push_back({file.attributes, names[id], file.target});
  // A folder's path is shorter than those of what is in it.
  std::stable_sort(all.begin(), all.end(), [](const Listed& a, const Listed& b) {
    const auto length = [](const Listed& one) {
      return one.names.empty() ? size_t{0} : one.names.front().size();
    };
    return length(a) < length(b);
  });
  return all;
}

uint64_t SharedNames::bytes() const {
  uint64_t sum = 0;
  for (const auto& [id, file] : files_)
    if (S_ISREG(file.attributes.mode)) sum += file.attributes.size;
  return sum;
}

}  // namespace krg
