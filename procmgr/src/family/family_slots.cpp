// What FamilyInstaller's processes have open or mapped that krgd has to make. In a worker, but for
// what is asked of other nodes. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>

#include <algorithm>
#include <iterator>

#include "family/family_installer_impl.h"
#include "family/family_pidfds.h"
#include "family/family_proc_files.h"
#include "family/family_terminals.h"
#include "family/family_watches.h"
#include "in_worker.h"
#include "inotify_state.h"

namespace krg {

using MadeFiles = std::vector<FamilyInstaller::MadeFile>;

namespace {

Result<UniqueFd> make_event(const FamilyFile& file) {
  const int flags = file.flags & O_NONBLOCK;
  if (is_event_of(file, EventKind::kInotify)) return make_inotify(file.contents, flags);
  if (is_event_of(file, EventKind::kPidfd)) return make_pidfd(file);
  return make_event_fd(static_cast<EventKind>(file.pipe), file.contents, flags);
}

}  // namespace

Result<MadeFiles> FamilyInstaller::make_files() const {
  return impl_->make_files();
}

Result<MadeFiles> FamilyInstaller::Impl::make_files() {
  SavedIpc own = node.node_count > 1 ? SavedIpc() : family.ipc;  // else: make_shared_ipc()
  if (!memory.is_shared())
    if (auto native = memory.make_native(own); !native) return native.error();
  auto made_ipc = node.node_count > 1 ? MadeIpc() : MadeIpc::make(own);
  if (!made_ipc) return made_ipc.error();
  ipc = std::move(*made_ipc);
  MadeFiles made;
  if (auto memories = make_memories(made); !memories) return memories.error();
  std::vector<PipeEnds> pipes;
  for (const FamilyPipe& pipe : family.pipes) {
    auto ends = make_pipe(pipe);
    if (!ends) return ends.error();
    pipes.push_back(std::move(*ends));
  }
  for (uint32_t i = 0; i < family.files.size(); ++i) {
    const FamilyFile& file = family.files[i];
    auto fd = file.kind == FamilyFile::Kind::kDeleted ? make_deleted_file(i, made)
                                                      : make_file(file, pipes);
    if (!fd) return fd.error();
    if (*fd) made.push_back({i, std::move(*fd)});
  }
  return made;
}

// Members may have it mapped, too, or several descriptions of it.
Result<UniqueFd> FamilyInstaller::Impl::make_deleted_file(uint32_t index, const MadeFiles& made) {
  const FamilyFile& file = family.files[index];
  const auto first_mapped = static_cast<uint32_t>(family.files.size());
  const auto known = std::find_if(made.begin(), made.end(), [&](const MadeFile& one) {
    if (file.memory.empty()) return false;
    if (one.file >= first_mapped) return mapped[one.file - first_mapped].path == file.memory;
    const FamilyFile& other = family.files[one.file];
    return other.kind == FamilyFile::Kind::kDeleted && other.node == file.node &&
           other.memory == file.memory;
  });
  if (known != made.end() && known->file < first_mapped) return share_again(known->fd.get(), file);
  auto fd = known != made.end() ? fill_again(known->fd.get(), file) : make_deleted(file);
  if (!fd || !file.is_saved) return fd;
  auto own = open_again(fd->get(), O_WRONLY);
  if (!own) return own.error();
  written[index] = std::move(*own);
  return fd;
}

Status FamilyInstaller::Impl::make_memories(MadeFiles& made) const {
  const auto first_mapped = static_cast<uint32_t>(family.files.size());
  for (uint32_t i = 0; i < mapped.size(); ++i) {
    if (!mapped[i].is_memory()) continue;
    auto own = memory.open_native(mapped[i].path);
    if (!own) return own.error();
    auto fd = *own ? Result<UniqueFd>(std::move(**own)) : make_memory(mapped[i].bytes);
    if (!fd) return fd.error();
    made.push_back({first_mapped + i, std::move(*fd)});
  }
  return {};
}

// None: krgrun opens it, or it is made with what nodes share.
Result<UniqueFd> FamilyInstaller::Impl::make_file(const FamilyFile& file,
                                                  const std::vector<PipeEnds>& pipes) const {
  switch (file.kind) {
    case FamilyFile::Kind::kPipe:
      return open_end(family.pipes[file.pipe], pipes[file.pipe], file.flags);
    case FamilyFile::Kind::kQueue:
      if (node.node_count > 1) return UniqueFd();
      return ipc.open_posix_queue(file.pipe, file.flags);
    case FamilyFile::Kind::kMemory:
      if (memory.is_shared()) return UniqueFd();
      return memory.open_native(file);
    case FamilyFile::Kind::kEvent:
      return make_event(file);
    case FamilyFile::Kind::kMaster:
      return make_pseudo_terminal(file);
    default:
      return is_proc_file_of_member(family, file) ? make_proc_stand_in() : UniqueFd();
  }
}

// ---- what nodes share ----

void FamilyInstaller::make_shared_ipc(std::function<void(Result<MadeFiles>)> done) {
  const SavedIpc& ipc = impl_->family.ipc;
  if (impl_->node.node_count == 1) return done(MadeFiles());
  if (!ipc.segments.empty() || (!impl_->memory.is_shared() && impl_->memory.has_segments()))
    return done(errno_error(
        "the application has System V segments of one node's kernel: it restarts on one node only "
        "(-N 1)",
        ENOTSUP));
  if (ipc.is_empty()) return impl_->make_shared_memory(std::move(done));
  impl_->parts.ipc.restore(
      ipc, [impl = impl_, done = std::move(done)](Result<Ipc::Restored> restored) mutable {
        if (!restored) return done(restored.error());
        impl->shared_ipc = std::move(*restored);
        impl->make_shared_memory(std::move(done));
      });
}

void FamilyInstaller::Impl::make_shared_memory(std::function<void(Result<MadeFiles>)> done) {
  memory.make_shared([self = shared_from_this(), done = std::move(done)](const Status& shared) {
    auto named = shared ? self->name_memories() : Result<MadeFiles>(shared.error());
    if (!named) return done(named.error());
    in_worker(
        self->node.workers, [self] { return self->open_shared_files(); },
        [done, named = std::make_shared<MadeFiles>(std::move(*named))](Result<MadeFiles> opened) {
          if (!opened) return done(opened.error());
          std::move(named->begin(), named->end(), std::back_inserter(*opened));
          done(std::move(opened));
        });
  });
}

// Slots for what members here need to map it.
Result<MadeFiles> FamilyInstaller::Impl::name_memories() {
  MadeFiles made;
  if (!memory.is_shared()) return made;
  for (uint32_t i = 0; i < images.size(); ++i) {
    memory.rename(images[i]);
    if (places[i] == node.self) memory.add_uses(images[i]);
  }
  auto descriptors = memory.descriptors();
  if (!descriptors) return descriptors.error();
  if (!descriptors->empty()) first_shared = mapped.size();
  for (UniqueFd& fd : *descriptors) {
    made.push_back({static_cast<uint32_t>(family.files.size() + mapped.size()), std::move(fd)});
    mapped.push_back({std::string(kSharedMemoryPrefix), 0, 0});
  }
  return made;
}

Result<MadeFiles> FamilyInstaller::Impl::open_shared_files() const {
  MadeFiles made;
  for (uint32_t i = 0; i < family.files.size(); ++i) {
    const FamilyFile& file = family.files[i];
    const bool is_queue = file.kind == FamilyFile::Kind::kQueue;
    if (!is_queue && (file.kind != FamilyFile::Kind::kMemory || !memory.is_shared())) continue;
    auto opened =
        is_queue ? shared_ipc->open_posix_queue(file.pipe, file.flags) : memory.open_shared(file);
    if (!opened) return opened.error();
    made.push_back({i, std::move(*opened)});
  }
  return made;
}

}  // namespace krg
