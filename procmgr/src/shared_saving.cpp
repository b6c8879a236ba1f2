// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_saving.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/stat.h>

#include <algorithm>
#include <ctime>

#include "packed_bytes.h"

namespace krg {
namespace {

constexpr mode_t kPermissions = 07777, kMissingFolder = 0777;
const SharedCaller kKrgd{};  // may do everything

template <class T>
std::set<T> get_set(PackedReader& in) {
  std::set<T> all;
  for (auto left = in.get<uint32_t>(); left > 0 && in.ok(); --left) all.insert(in.get<T>());
  return all;
}

SavedIpcObject object_of(const SegmentState& segment) {
  SavedIpcObject object;
  object.id = segment.id;
  object.key = segment.key;
  object.uid = segment.uid;
  object.gid = segment.gid;
  object.creator_uid = segment.creator_uid;
  object.creator_gid = segment.creator_gid;
  object.mode = segment.mode & 0777;
  return object;
}

SegmentState segment_of(const SavedMemory& memory, FileId file) {
  const SavedIpcObject& object = memory.object;
  SegmentState segment;
  segment.id = object.id;
  segment.key = memory.is_removed ? IPC_PRIVATE : object.key;
  segment.mode = object.mode | (memory.is_removed ? SHM_DEST : 0);
  segment.uid = object.uid;
  segment.gid = object.gid;
  segment.creator_uid = object.creator_uid;
  segment.creator_gid = object.creator_gid;
  segment.file = file;
  segment.size = memory.bytes;
  segment.changed_s = time(nullptr);
  return segment;
}

std::string base_of(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

}  // namespace

struct SharedSaving::Restoring {
  NodeId from;
  std::vector<SavedMemory> memories;
  Messenger::Reply reply;
  std::vector<FileId> made = {};  // of as many of `memories`
};

SharedSaving::SharedSaving(NodeContext& node, SharedHome& home, SharedFiles& files,
                           SharedSegments& segments)
    : home_(home), files_(files), segments_(segments) {
  node.messenger.on_request<SaveShared>([this](NodeId, const SaveShared&, std::string_view payload,
                                               Messenger::Reply reply) { save(payload, reply); });
  node.messenger.on_request<RestoreShared>([this](NodeId from, const RestoreShared& ask,
                                                  std::string_view payload,
                                                  Messenger::Reply reply) {
    auto memories = unpack_memories(payload);
    if (!memories) return reply.fail(memories.error());
    if (!ask.drops)
      return restore_next(
          std::make_shared<Restoring>(Restoring{from, std::move(*memories), std::move(reply)}));
    drop(*memories);
    reply.ok();
  });
}

// ---- saving ----

void SharedSaving::save(std::string_view payload, Messenger::Reply& reply) const {
  PackedReader in(payload);
  const auto members = get_set<pid_t>(in), others = get_set<pid_t>(in);
  const Whose whose{takes_ipc_of(members, others), others.empty(), get_set<FileId>(in)};
  if (!in.ok()) return reply.fail(EBADMSG);
  auto saved = save(whose);
  saved ? reply.ok(pack_memories(*saved)) : reply.fail(saved.error());
}

Result<std::vector<SavedMemory>> SharedSaving::save(const Whose& whose) const {
  std::vector<SavedMemory> saved;
  const auto segments = segments_.all();
  for (const SharedNames::Listed& one : home_.names().all()) {
    const auto segment = std::find_if(segments.begin(), segments.end(), [&](const auto& state) {
      return state.file == one.attributes.id;
    });
    const bool is_segment = segment != segments.end();
    auto wanted = is_wanted(one, is_segment ? &*segment : nullptr, whose);
    if (!wanted) return wanted.error();
    if (!*wanted) continue;
    const SharedAttributes& attributes = one.attributes;
    SavedMemory& memory = saved.emplace_back();
    memory.id = attributes.id;
    memory.mode = attributes.mode;
    memory.uid = attributes.uid;
    memory.gid = attributes.gid;
    memory.bytes = S_ISREG(attributes.mode) ? attributes.size : 0;
    memory.names = one.names;
    memory.target = one.target;
    if (auto file = files_.find(attributes.id)) memory.covered = file->pages->pages() * kPageBytes;
    if (!is_segment) continue;
    memory.is_segment = 1;
    memory.is_removed = (segment->mode & SHM_DEST) != 0;
    memory.object = object_of(*segment);
  }
  return saved;
}

Result<bool> SharedSaving::is_wanted(const SharedNames::Listed& one, const SegmentState* segment,
                                     const Whose& whose) const {
  const SharedAttributes& file = one.attributes;
  if (home_.is_ordinary(file.id)) {
    if (!whose.held.contains(file.id)) return false;
    return errno_error("a file of --share-files that it has mapped", ENOTSUP);
  }
  if (whose.held.contains(file.id)) return true;
  if (segment)
    return whose.takes(fmt::format("System V segment {}", segment->id),
                       {segment->creator_pid, segment->last_pid});
  if (one.names.empty() || S_ISSOCK(file.mode)) return false;
  if (whose.is_alone) return true;
  // What others use is theirs.
  if (!S_ISREG(file.mode) || home_.names().uses(file.id) > 0) return false;
  return errno_error(fmt::format("/dev/shm/{}: nothing tells whether it is this application's or "
                                 "that of other processes of this system (remove it if nobody "
                                 "needs it)",
                                 one.names.front()),
                     ENOTSUP);
}

// ---- making again ----

// One after the other.
void SharedSaving::restore_next(const RestoringPtr& job) {
  if (job->made.size() == job->memories.size()) {
    PackedWriter numbers;
    for (FileId file : job->made) numbers.put(file);
    return job->reply.ok(numbers.take());
  }
  const SavedMemory& memory = job->memories[job->made.size()];
  auto made = make(memory);
  if (!made) return fail(job, made.error());
  const FileId file = *made;
  job->made.push_back(file);
  if (!memory.is_file()) return restore_next(job);
  home_.names().use(file, job->from);
  home_.extend(file, memory.bytes, [this, job, &memory, file](const Status& extended) {
    if (!extended) return fail(job, extended.error());
    home_.cover(file, memory.covered, [this, job, &memory, file](const Status& covered) {
      if (!covered) return fail(job, covered.error());
      settle(memory, file);
      restore_next(job);
    });
  });
}

// What has no name lives on by its uses.
void SharedSaving::settle(const SavedMemory& memory, FileId file) {
  const bool is_nameless = memory.is_segment ? memory.is_removed != 0 : memory.names.empty();
  if (is_nameless) home_.drop_nameless(file);
}

void SharedSaving::fail(const RestoringPtr& job, const Error& why) {
  for (size_t i = 0; i < job->made.size(); ++i) {
    job->memories[i].id = job->made[i];
    if (job->memories[i].is_file()) home_.names().unuse(job->made[i], job->from);
  }
  job->memories.resize(job->made.size());
  drop(job->memories);
  job->reply.fail(why);
}

Result<FileId> SharedSaving::make(const SavedMemory& memory) {
  if (memory.is_segment) return make_segment(memory);
  if (memory.names.empty()) return home_.add_nameless({memory.uid, memory.gid, {}});
  auto made = make_named(memory);
  if (!made) return errno_error("/dev/shm/" + memory.names.front(), made.error().errno_or(EIO));
  return made;
}

// One that is left over under the same identifier and key is replaced.
Result<FileId> SharedSaving::make_segment(const SavedMemory& memory) {
  for (const SegmentState& old : segments_.all())
    if (old.id == memory.object.id && old.key == memory.object.key) home_.drop_nameless(old.file);
  const FileId file = home_.add_nameless({memory.object.uid, memory.object.gid, {}});
  if (segments_.restore(segment_of(memory, file))) return file;
  home_.drop_nameless(file);
  return errno_error(fmt::format("System V segment {}: others of this system have its identifier "
                                 "or key (ipcs shows them)",
                                 memory.object.id),
                     EEXIST);
}

Result<FileId> SharedSaving::make_named(const SavedMemory& memory) {
  SharedNames& names = home_.names();
  FileId file = 0;
  for (const std::string& path : memory.names) {
    auto folder = folder_of(path);
    if (!folder) return folder.error();
    const std::string name = base_of(path);
    if (auto old = names.lookup(kKrgd, *folder, name);
        old && S_ISDIR(old->mode) && S_ISDIR(memory.mode)) {
      file = old->id;
      continue;
    }
    if (auto room = make_room(*folder, name, memory.mode); !room) return room.error();
    auto made = file != 0 ? names.link(kKrgd, file, *folder, name)
                : memory.is_file()
                    ? names.create(kKrgd, *folder, name, memory.mode & kPermissions, O_EXCL)
                    : names.make(kKrgd, *folder, name, memory.mode, memory.target);
    if (!made) return made.error();
    file = made->id;
  }
  FsChange change;
  change.mode = memory.mode & kPermissions;
  change.uid = memory.uid;
  change.gid = memory.gid;
  if (auto changed = names.change(kKrgd, file, change); !changed) return changed.error();
  return file;
}

// A file of that name that is left over is replaced.
Status SharedSaving::make_room(FileId folder, const std::string& name, mode_t mode) {
  auto old = home_.names().lookup(kKrgd, folder, name);
  if (!old) return {};
  if (S_ISDIR(old->mode) || S_ISDIR(mode)) return errno_error({}, EEXIST);
  auto removed = home_.names().unlink(kKrgd, folder, name, false);
  home_.tell_gone();
  return removed;
}

// Made where it is missing: that of a file that somebody else's folder was around.
Result<FileId> SharedSaving::folder_of(const std::string& path) {
  SharedNames& names = home_.names();
  FileId folder = kTreeRoot;
  size_t at = 0;
  for (size_t end = path.find('/'); end != std::string::npos; end = path.find('/', at)) {
    const std::string name = path.substr(at, end - at);
    auto next = names.lookup(kKrgd, folder, name);
    if (!next) next = names.make(kKrgd, folder, name, S_IFDIR | kMissingFolder, {});
    if (!next) return next.error();
    folder = next->id;
    at = end + 1;
  }
  return folder;
}

// Those of a restart that has failed.
void SharedSaving::drop(const std::vector<SavedMemory>& memories) {
  SharedNames& names = home_.names();
  for (const SavedMemory& memory : memories) {
    if (memory.is_segment) {
      static_cast<void>(segments_.remove(kKrgd, memory.object.id));
      names.drop_nameless(memory.id);
    }
    for (const std::string& path : memory.names) {
      if (!memory.is_file()) break;  // folders may have been there before
      auto folder = folder_of(path);
      auto found = folder ? names.lookup(kKrgd, *folder, base_of(path)) : folder.error();
      if (found && found->id == memory.id)
        static_cast<void>(names.unlink(kKrgd, *folder, base_of(path), false));
    }
    if (memory.names.empty() && !memory.is_segment) names.drop_nameless(memory.id);
  }
  home_.tell_gone();
}

}  // namespace krg
