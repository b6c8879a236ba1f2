// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_ipc.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include <algorithm>

#include "family/semaphore_undo.h"
#include "process_spec.h"
#include "text_scan.h"

namespace krg {
namespace {

constexpr uint64_t kPage = 4096;

// Whether all that is attached of a segment is the whole of it, once or several times.
bool is_whole(const std::vector<ImageMapping>& mappings, const std::vector<ImageFile>& files,
              const std::string& name, uint64_t bytes) {
  std::map<uint64_t, uint64_t> found;  // where it would begin: how much of it is there
  for (const ImageMapping& m : mappings)
    if (m.kind == ImageMapping::Kind::kFile && files[m.file].path == name)
      found[m.start.value - m.offset] += m.bytes;
  return std::all_of(found.begin(), found.end(),
                     [bytes](const auto& one) { return one.second == bytes; });
}

}  // namespace

std::set<pid_t> others_than(const std::set<pid_t>& members,
                            const std::function<bool(pid_t)>& is_apart) {
  std::set<pid_t> others;
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir("/proc"), closedir);
  while (const dirent* entry = directory ? readdir(directory.get()) : nullptr) {
    const auto pid = to_number<pid_t>(std::string_view(entry->d_name));
    if (pid && *pid > 1 && !members.contains(*pid) && !is_apart(*pid)) others.insert(*pid);
  }
  return others;
}

Status FamilyIpc::add(const ProcessImage& image) {
  for (const ImageMapping& m : image.mappings) {
    if (m.kind != ImageMapping::Kind::kFile) continue;
    const std::string& name = image.files[m.file].path;
    const int id = segment_of_memory(name);
    if (id < 0) continue;
    Segment& segment = segments_[id];
    shmid_ds state{};
    if (segment.bytes == 0 && shmctl(id, IPC_STAT, &state) != 0)
      return errno_error(fmt::format("System V segment {}", id));
    if (segment.bytes == 0) segment.bytes = (state.shm_segsz + kPage - 1) / kPage * kPage;
    if (!is_whole(image.mappings, image.files, name, segment.bytes))
      return cannot_move(fmt::format("a part of System V segment {}", id));
    segment.is_written |= (m.protection & PROT_WRITE) != 0;
  }
  return {};
}

Result<SavedIpc> FamilyIpc::take(std::vector<NativePosixQueue>& queues,
                                 const std::set<pid_t>& members,
                                 const std::function<bool(pid_t)>& is_apart,
                                 const std::map<pid_t, FrozenProcess*>& frozen) const {
  const TakesIpc takes = takes_ipc_of(members, others_than(members, is_apart));
  auto ipc = read_native_system_v(takes, [&](int segment) {
    const auto known = segments_.find(segment);
    return known != segments_.end() && known->second.is_written;
  });
  if (!ipc) return ipc;
  for (SavedSemaphores& set : ipc->semaphores)
    for (const auto& [pid, process] : frozen) {
      auto undo = semaphore_undo_of(*process, set.object.id, set.values);
      process->drop_scratch();
      if (!undo) return undo.error();
      if (!undo->empty()) set.undos.push_back({pid, std::move(*undo)});
    }
  auto named = native_posix_queues();
  if (!named) return named.error();
  for (NativePosixQueue& queue : *named) {
    const auto known = std::find_if(queues.begin(), queues.end(), [&](const NativePosixQueue& one) {
      return one.attributes.st_ino == queue.attributes.st_ino;
    });
    if (known != queues.end()) {
      known->name = queue.name;
      continue;
    }
    auto is_wanted = takes("POSIX message queue /" + queue.name, {});
    if (!is_wanted) return is_wanted.error();
    queues.push_back(std::move(queue));
  }
  for (const NativePosixQueue& queue : queues) {
    auto saved = read_native_posix_queue(queue);
    if (!saved) return saved.error();
    ipc->posix_queues.push_back(std::move(*saved));
  }
  return ipc;
}

Status put_undo_back(const SavedIpc& ipc,
                     const std::function<FrozenProcess*(pid_t)>& find_process) {
  for (const SavedSemaphores& set : ipc.semaphores)
    for (const SavedSemaphores::Undo& undo : set.undos) {
      FrozenProcess* process = find_process(undo.pid);
      if (!process) continue;
      auto put = put_semaphore_undo(*process, set.object.id, set.values, undo.adjustments);
      if (!put) return put;
    }
  return {};
}

}  // namespace krg
