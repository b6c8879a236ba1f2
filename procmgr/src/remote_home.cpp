// SPDX-License-Identifier: GPL-2.0-or-later
#include "remote_home.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "krg/runtime/log.h"
#include "packed_bytes.h"
#include "terminal_ioctls.h"

namespace krg {
Result<std::unique_ptr<HomeFile>> make_home_file(NodeContext& node, UniqueFd real,
                                                 const struct stat& attributes, int flags) {
  if (S_ISFIFO(attributes.st_mode) || S_ISCHR(attributes.st_mode)) {
    auto pipe = HomePipe::create(node.loop, std::move(real), flags);
    if (!pipe) return pipe.error();
    return std::unique_ptr<HomeFile>(std::move(*pipe));
  }
  if (S_ISREG(attributes.st_mode))
    return std::unique_ptr<HomeFile>(std::make_unique<HomeRegular>(node.workers, std::move(real)));
  return errno_error("neither a pipe nor a regular file", ENOTSUP);
}

RemoteHome::RemoteHome(NodeContext& node, HomeRecordLocks& locks)
    : node_(node), flocks_(node), record_locks_(locks) {
  // A pipe without readers is an error code here: the signal is for the program that wrote.
  ::signal(SIGPIPE, SIG_IGN);
  handle_input_output();
  handle_locks();
  handle_references();
  node_.messenger.on_peer_failure([this](NodeId failed) { drop_node(failed); });
}

// A description that goes may look for others.
RemoteHome::~RemoteHome() {
  std::exchange(entries_, {}).clear();
}

HomeId RemoteHome::insert(Entry entry, HomeId id) {
  entries_.emplace(id, std::move(entry));
  return id;
}

HomeId RemoteHome::add(std::unique_ptr<HomeFile> file) {
  return insert({std::move(file), {}, true, {}, {}, 0}, {next_.value++});
}

HomeId RemoteHome::add_held_by(NodeId node, std::unique_ptr<HomeFile> file) {
  return insert({std::move(file), {}, false, {{node, 1}}, {}, 0}, {next_.value++});
}

HomeId RemoteHome::add_guard(UniqueFd fd, HomeId kept) {
  if (auto found = entries_.find(kept); found != entries_.end()) ++found->second.guards;
  return insert({nullptr, std::move(fd), true, {}, kept, 0}, {next_.value++});
}

HomeFile* RemoteHome::find(HomeId id) const {
  auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : found->second.file.get();
}

HomeId RemoteHome::of_description(int fd) const {
  const pid_t self = getpid();
  for (const auto& [id, entry] : entries_)
    if (entry.file && syscall(SYS_kcmp, self, self, KCMP_FILE, entry.file->real(), fd) == 0)
      return id;
  return {};
}

int RemoteHome::guarded(HomeId id) const {
  auto found = entries_.find(id);
  return found == entries_.end() ? -1 : found->second.guarded.get();
}

std::vector<NodeId> RemoteHome::holders(HomeId id) const {
  std::vector<NodeId> nodes;
  if (auto found = entries_.find(id); found != entries_.end())
    for (auto& [node, count] : found->second.references) nodes.push_back(node);
  return nodes;
}

Result<UniqueFd> RemoteHome::native_copy(HomeId id) const {
  HomeFile* file = find(id);
  if (file == nullptr) return errno_error("the description is gone", ESTALE);
  UniqueFd copy(fcntl(file->real(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return errno_error("dup");
  return copy;
}

void RemoteHome::export_done(HomeId guard) {
  auto found = entries_.find(guard);
  if (found == entries_.end()) return;
  found->second.exporting = false;
  erase_if_unused(guard);
}

void RemoteHome::erase_if_unused(HomeId id) {
  auto found = entries_.find(id);
  if (found == entries_.end() || found->second.exporting || found->second.guards > 0 ||
      !found->second.references.empty())
    return;
  const HomeId kept = found->second.kept;
  entries_.erase(found);
  if (auto other = entries_.find(kept); other != entries_.end()) {
    --other->second.guards;
    erase_if_unused(kept);
  }
}

void RemoteHome::drop_reference(NodeId from, HomeId id) {
  auto found = entries_.find(id);
  if (found == entries_.end()) return;
  auto held = found->second.references.find(from);
  if (held == found->second.references.end()) return;
  if (--held->second == 0) found->second.references.erase(held);
  erase_if_unused(id);
}

void RemoteHome::drop_node(NodeId failed) {
  flocks_.forget_node(failed);
  record_locks_.forget_node(failed);
  std::vector<HomeId> held;
  for (auto& [id, entry] : entries_) {
    if (entry.references.erase(failed) == 0) continue;
    held.push_back(id);
    if (entry.file) entry.file->forget_node(failed);
  }
  for (HomeId id : held) erase_if_unused(id);
}

void RemoteHome::handle_input_output() {
  Messenger& messenger = node_.messenger;
  messenger.on_request<StreamRead>(
      [this](NodeId from, const StreamRead& message, std::string_view, Messenger::Reply reply) {
        HomeFile* file = find(message.home);
        if (file == nullptr) return reply.fail(EIO, "the description is gone");
        file->read({{from, message.operation},
                    message.offset,
                    message.nonblocking != 0,
                    message.at_shared_offset != 0},
                   message.size, std::move(reply));
      });
  messenger.on_request<StreamWrite>([this](NodeId from, const StreamWrite& message,
                                           std::string_view data, Messenger::Reply reply) {
    HomeFile* file = find(message.home);
    if (file == nullptr) return reply.fail(EIO, "the description is gone");
    file->write({{from, message.operation}, message.offset, message.nonblocking != 0}, data,
                std::move(reply));
  });
  messenger.on<StreamCancel>([this](NodeId from, const StreamCancel& message, std::string_view) {
    if (HomeFile* file = find(message.home)) file->cancel({from, message.operation});
    flocks_.cancel({from, message.operation});
    record_locks_.cancel({from, message.operation});
  });
  messenger.on_request<StreamPoll>(
      [this](NodeId from, const StreamPoll& message, std::string_view, Messenger::Reply reply) {
        HomeFile* file = find(message.home);
        if (file == nullptr) return reply.fail(EIO, "the description is gone");
        std::function<void()> wake;
        if (message.wake) {
          wake = [this, from, handle = message.handle] {
            StreamReady ready;
            ready.handle = handle;
            if (!node_.messenger.send(from, ready)) return;  // its death drops what it held
          };
        }
        const uint32_t events = file->poll({from, message.handle}, std::move(wake));
        reply.ok(object_bytes(events));
      });
}

void RemoteHome::handle_locks() {
  Messenger& messenger = node_.messenger;
  messenger.on_request<StreamFlock>(
      [this](NodeId from, const StreamFlock& message, std::string_view, Messenger::Reply reply) {
        HomeFile* file = find(message.home);
        if (file == nullptr) return reply.fail(EIO, "the description is gone");
        flocks_.lock({from, message.operation}, file->shared_real(), message, std::move(reply));
      });
  messenger.on_request<StreamRecordLock>(
      [this](NodeId from, const StreamRecordLock& message, std::string_view,
             Messenger::Reply reply) { record_lock(from, message, std::move(reply)); });
  messenger.on<StreamLetGo>([this](NodeId, const StreamLetGo& message, std::string_view) {
    if (HomeFile* file = find(message.home)) record_locks_.let_go({message.owner, 0}, file->real());
  });
}

void RemoteHome::record_lock(NodeId from, const StreamRecordLock& message, Messenger::Reply reply) {
  HomeFile* file = find(message.home);
  if (file == nullptr) return reply.fail(EIO, "the description is gone");
  auto later = std::make_shared<Messenger::Reply>(std::move(reply));
  record_locks_.lock(
      {from, message.operation}, file->shared_real(),
      message.of_description ? HomeRecordLocks::kOfDescription : LockOwner{message.owner, 0},
      message.command, message.waits != 0, message.lock, [later](Result<RecordLock> had) {
        had ? later->ok(object_bytes(*had)) : later->fail(had.error());
      });
}

void RemoteHome::handle_references() {
  Messenger& messenger = node_.messenger;
  messenger.on_request<StreamAcquire>(
      [this](NodeId from, const StreamAcquire& message, std::string_view, Messenger::Reply reply) {
        acquire(from, message.home, std::move(reply));
      });
  messenger.on<StreamTaken>([this](NodeId from, const StreamTaken& message, std::string_view) {
    if (auto found = entries_.find(message.home); found != entries_.end())
      ++found->second.references[from];
    export_done(message.guard);
  });
  messenger.on<StreamClose>([this](NodeId from, const StreamClose& message, std::string_view) {
    drop_reference(from, message.home);
  });
  messenger.on<StreamExportDone>([this](NodeId, const StreamExportDone& message, std::string_view) {
    export_done(message.guard);
  });
  messenger.on_request<StreamStat>(
      [this](NodeId, const StreamStat& message, std::string_view, Messenger::Reply reply) {
        stat(message, std::move(reply));
      });
  messenger.on_request<StreamIoctl>(
      [this](NodeId, const StreamIoctl& message, std::string_view in, Messenger::Reply reply) {
        ioctl(message, in, std::move(reply));
      });
  messenger.on_request<StreamReopen>(
      [this](NodeId from, const StreamReopen& message, std::string_view, Messenger::Reply reply) {
        reopen(from, message, std::move(reply));
      });
  messenger.on<StreamSeek>([this](NodeId, const StreamSeek& seek, std::string_view) {
    if (HomeFile* file = find(seek.home)) set_offset(*file, seek.from, seek.to);
  });
  messenger.on_request<StreamOffsetBack>(
      [this](NodeId from, const StreamOffsetBack& message, std::string_view,
             Messenger::Reply reply) { take_offset_back(from, message, std::move(reply)); });
}

void RemoteHome::acquire(NodeId from, HomeId id, Messenger::Reply reply) {
  auto found = entries_.find(id);
  if (found == entries_.end()) return reply.fail(ESTALE, "the description is gone");
  ++found->second.references[from];
  reply.ok();
}

void RemoteHome::stat(const StreamStat& message, Messenger::Reply reply) {
  HomeFile* file = find(message.home);
  if (file == nullptr) return reply.fail(EIO, "the description is gone");
  if (message.truncate >= 0 && ftruncate(file->real(), message.truncate) != 0)
    return reply.fail(errno);
  struct stat attributes {};
  if (fstat(file->real(), &attributes) != 0) return reply.fail(errno);
  reply.ok(object_bytes(attributes));
}

void RemoteHome::ioctl(const StreamIoctl& message, std::string_view in,
                       Messenger::Reply reply) const {
  const HomeFile* file = find(message.home);
  if (file == nullptr) return reply.fail(EIO, "the description is gone");
  const auto what = terminal_ioctl(message.command);
  if (!what) return reply.fail(ENOTTY);
  auto out = carry_out_ioctl(file->real(), *what, message.argument, in);
  out ? reply.ok(*out) : reply.fail(out.error());
}

void RemoteHome::reopen(NodeId from, const StreamReopen& message, Messenger::Reply reply) {
  HomeFile* file = find(message.home);
  if (file == nullptr) return reply.fail(EIO, "the description is gone");
  const std::string path = fmt::format("/proc/self/fd/{}", file->real());
  constexpr int kKept = O_ACCMODE | O_APPEND | O_TRUNC;
  // O_NONBLOCK: the open of a FIFO must not wait here; HomePipe never reads this description.
  UniqueFd opened(open(path.c_str(), (message.flags & kKept) | O_NONBLOCK | O_CLOEXEC));
  struct stat attributes {};
  if (!opened || fstat(opened.get(), &attributes) != 0) return reply.fail(errno);
  auto made = make_home_file(node_, std::move(opened), attributes, message.flags);
  if (!made) return reply.fail(made.error());
  reply.ok(object_bytes(add_held_by(from, std::move(*made))));
}

void RemoteHome::set_offset(const HomeFile& file, int64_t from, int64_t to) {
  if (lseek(file.real(), 0, SEEK_CUR) == from) lseek(file.real(), to, SEEK_SET);
}

void RemoteHome::take_offset_back(NodeId from, const StreamOffsetBack& message,
                                  Messenger::Reply reply) {
  if (HomeFile* file = find(message.home)) set_offset(*file, message.lent, message.returned);
  drop_reference(from, message.home);
  reply.ok();
}

}  // namespace krg
