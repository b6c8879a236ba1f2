// SPDX-License-Identifier: GPL-2.0-or-later
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <mqueue.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "ipc/native_ipc.h"

namespace krg {
namespace {

constexpr auto kQueueFiles = 0x19800202;  // MQUEUE_MAGIC
constexpr int kOpenAgain = O_RDWR | O_NONBLOCK | O_CLOEXEC;

// All queues of this IPC namespace as files, wherever they may be mounted.
Result<UniqueFd> folder_of_queues() {
  UniqueFd context(static_cast<int>(syscall(SYS_fsopen, "mqueue", FSOPEN_CLOEXEC)));
  if (!context ||
      syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return errno_error("POSIX message queues");
  UniqueFd mounted(
      static_cast<int>(syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOEXEC)));
  if (!mounted) return errno_error("POSIX message queues");
  UniqueFd folder(openat(mounted.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return errno_error("POSIX message queues");
  return folder;
}

std::string path_of(int fd) {
  return fmt::format("/proc/self/fd/{}", fd);
}

Status put_messages(int fd, const std::vector<SavedMessage>& messages) {
  for (const SavedMessage& message : messages)
    if (mq_send(fd, message.text.data(), message.text.size(),
                static_cast<unsigned>(message.type)) != 0)
      return errno_error("what is in a POSIX message queue");
  return {};
}

Result<std::vector<SavedMessage>> take_messages(int fd, size_t most_bytes) {
  std::vector<SavedMessage> messages;
  std::string buffer(most_bytes, '\0');
  for (;;) {
    unsigned priority = 0;
    const ssize_t got = mq_receive(fd, buffer.data(), buffer.size(), &priority);
    if (got < 0 && errno == EAGAIN) return messages;
    if (got < 0) return errno_error("what is in a POSIX message queue");
    messages.push_back({priority, buffer.substr(0, static_cast<size_t>(got))});
  }
}

// "QSIZE:129 NOTIFY:2 SIGNO:0 NOTIFY_PID:8260", mq_overview(7).
bool has_listener(int fd) {
  char text[128] = {};
  const ssize_t got = pread(fd, text, sizeof text - 1, 0);
  const char* at =
      got > 0 ? std::char_traits<char>::find(text, static_cast<size_t>(got), 'N') : nullptr;
  int how = 0, signal = 0, pid = 0;
  return at && sscanf(at, "NOTIFY:%d SIGNO:%d NOTIFY_PID:%d", &how, &signal, &pid) == 3 && pid != 0;
}

}  // namespace

bool is_native_posix_queue(int fd) {
  struct statfs found {};
  return fstatfs(fd, &found) == 0 && found.f_type == kQueueFiles;
}

Result<NativePosixQueue> native_posix_queue_of(int fd) {
  NativePosixQueue queue;
  queue.fd = UniqueFd(open(path_of(fd).c_str(), kOpenAgain));
  if (!queue.fd || fstat(queue.fd.get(), &queue.attributes) != 0)
    return errno_error("a POSIX message queue");
  return queue;
}

Result<std::vector<NativePosixQueue>> native_posix_queues() {
  auto folder = folder_of_queues();
  if (!folder) return folder.error();
  std::vector<NativePosixQueue> queues;
  std::unique_ptr<DIR, int (*)(DIR*)> listed(fdopendir(dup(folder->get())), closedir);
  if (!listed) return errno_error("POSIX message queues");
  while (const dirent* entry = readdir(listed.get())) {
    if (entry->d_name[0] == '.' && entry->d_type == DT_DIR) continue;
    NativePosixQueue queue;
    queue.name = entry->d_name;
    queue.fd = UniqueFd(openat(folder->get(), entry->d_name, kOpenAgain));
    if (!queue.fd && errno == ENOENT) continue;
    if (!queue.fd || fstat(queue.fd.get(), &queue.attributes) != 0)
      return errno_error("POSIX message queue /" + queue.name);
    queues.push_back(std::move(queue));
  }
  return queues;
}

Result<SavedPosixQueue> read_native_posix_queue(const NativePosixQueue& queue) {
  const int fd = queue.fd.get();
  SavedPosixQueue saved{.object = {}, .name = queue.name, .messages = {}};
  const std::string what = queue.name.empty() ? "a POSIX message queue without a name"
                                              : "POSIX message queue /" + queue.name;
  mq_attr limits{};
  if (mq_getattr(fd, &limits) != 0) return errno_error(what);
  if (has_listener(fd))
    return errno_error(what + ": a process is to be told of its next message (mq_notify)", ENOTSUP);
  saved.object.uid = queue.attributes.st_uid;
  saved.object.gid = queue.attributes.st_gid;
  saved.object.mode = queue.attributes.st_mode & 0777;
  saved.most_messages = limits.mq_maxmsg;
  saved.message_bytes = limits.mq_msgsize;
  auto messages = take_messages(fd, static_cast<size_t>(limits.mq_msgsize));
  if (!messages) return Error{messages.error().code, what + ": " + messages.error().context};
  saved.messages = std::move(*messages);
  if (auto put = put_messages(fd, saved.messages); !put)
    return Error{put.error().code, what + " could not be filled again: " + put.error().context};
  return saved;
}

// ---- made again ----

Status MadeIpc::add(const SavedPosixQueue& queue) {
  const bool has_name = !queue.name.empty();
  const std::string name =
      "/" + (has_name ? queue.name : fmt::format("krg-{}.{}", getpid(), posix_queues_.size()));
  const std::string what = "POSIX message queue " + name;
  mq_attr limits{};
  limits.mq_maxmsg = queue.most_messages;
  limits.mq_msgsize = queue.message_bytes;
  mq_unlink(name.c_str());  // one that is left over from before
  UniqueFd made(mq_open(name.c_str(), O_CREAT | O_EXCL | kOpenAgain, 0600, &limits));
  if (!made) return errno_error(what);
  if (has_name)
    names_.push_back(name);
  else
    mq_unlink(name.c_str());
  struct stat found {};
  const auto& [id, key, uid, gid, creator_uid, creator_gid, mode, node] = queue.object;
  if (fstat(made.get(), &found) != 0 ||
      ((found.st_uid != uid || found.st_gid != gid) && fchown(made.get(), uid, gid) != 0) ||
      fchmod(made.get(), mode) != 0)
    return errno_error(what);
  if (auto put = put_messages(made.get(), queue.messages); !put) return put;
  posix_queues_.push_back(std::move(made));
  return {};
}

Result<UniqueFd> MadeIpc::open_posix_queue(size_t index, int flags) const {
  if (index >= posix_queues_.size()) return errno_error("a POSIX message queue", EBADMSG);
  const int fd = posix_queues_[index].get();
  UniqueFd opened(open(path_of(fd).c_str(), (flags & (O_ACCMODE | O_NONBLOCK)) | O_CLOEXEC));
  if (!opened) return errno_error("a POSIX message queue");
  return opened;
}

Result<MadeIpc> MadeIpc::make(const SavedIpc& ipc) {
  MadeIpc made;
  const auto add_all = [&made](const auto& objects) -> Status {
    for (const auto& object : objects)
      if (auto added = made.add(object); !added) return added;
    return {};
  };
  if (auto added = add_all(ipc.semaphores); !added) return added.error();
  if (auto added = add_all(ipc.message_queues); !added) return added.error();
  if (auto added = add_all(ipc.segments); !added) return added.error();
  if (auto added = add_all(ipc.posix_queues); !added) return added.error();
  return made;
}

MadeIpc& MadeIpc::operator=(MadeIpc&& other) noexcept {
  std::swap(semaphores_, other.semaphores_);
  std::swap(message_queues_, other.message_queues_);
  std::swap(segments_, other.segments_);
  std::swap(removed_, other.removed_);
  std::swap(names_, other.names_);
  std::swap(posix_queues_, other.posix_queues_);
  return *this;
}

MadeIpc::~MadeIpc() {
  for (int id : semaphores_) semctl(id, 0, IPC_RMID);
  for (int id : message_queues_) msgctl(id, IPC_RMID, nullptr);
  for (int id : segments_) shmctl(id, IPC_RMID, nullptr);
  for (const std::string& name : names_) mq_unlink(name.c_str());
}

void MadeIpc::keep() {
  for (int id : removed_) shmctl(id, IPC_RMID, nullptr);
  for (auto* made : {&semaphores_, &message_queues_, &segments_, &removed_}) made->clear();
  names_.clear();
  posix_queues_.clear();
}

}  // namespace krg
