// SPDX-License-Identifier: GPL-2.0-or-later
#include "stream_tree.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "in_worker.h"
#include "krg/runtime/log.h"
#include "process_fds.h"
#include "process_memory.h"
#include "stream_replies.h"
#include "terminal_ioctls.h"

namespace krg {
namespace {

// As the kernel would have for a write to a pipe without readers, before the write returns.
void send_sigpipe(pid_t thread) {
  syscall(SYS_tkill, thread, SIGPIPE);
}

bool is_thread_of_krgd(pid_t tid) {
  return access(fmt::format("/proc/self/task/{}", tid).c_str(), F_OK) == 0;
}

// krgfs can show regular files only: the permissions, sizes and times are the home's.
struct stat shown_attributes(const struct stat& at_home) {
  struct stat shown = at_home;
  shown.st_mode = S_IFREG | (at_home.st_mode & 07777);
  return shown;
}

std::function<void(Result<struct stat>)> shown_to(FileId file, FsReply<FsEntry> reply) {
  auto later = std::make_shared<FsReply<FsEntry>>(std::move(reply));
  return [file, later](Result<struct stat> attributes) {
    if (!attributes) return (*later)(attributes.error());
    FsEntry entry;
    entry.id = file;
    entry.attributes = shown_attributes(*attributes);
    (*later)(entry);
  };
}

}  // namespace

void StreamTree::handle_messages() {
  node_.messenger.on<StreamReady>([this](NodeId, const StreamReady& message, std::string_view) {
    auto found = handles_.find(message.handle);
    if (found != handles_.end()) wake_pollers(found->second);
  });
  node_.messenger.on_peer_failure([this](NodeId failed) {
    for (auto& [number, handle] : handles_)
      if (handle.source.home == failed) wake_pollers(handle);
  });
}

void StreamTree::wake_pollers(Handle& handle) {
  if (auto wake = std::exchange(handle.wake, nullptr)) wake();
}

FileId StreamTree::add_import(const StreamSource& source, pid_t owner) {
  const FileId file = next_import_++;
  imports_.emplace(file, Import{source, owner, false, {}});
  return file;
}

std::optional<UniqueFd> StreamTree::take_from_stock(const StreamSource& source, int flags,
                                                    pid_t owner) {
  constexpr int kSettable = O_APPEND | O_NONBLOCK;  // by F_SETFL
  const int access_mode = flags & O_ACCMODE;
  if (source.seekable || access_mode == O_RDWR || (flags & ~(O_ACCMODE | kSettable)) != 0)
    return std::nullopt;
  auto& spares = stock_[access_mode];
  if (spares.size() <= kStock / 2) refill_soon(access_mode);
  if (spares.empty()) return std::nullopt;
  Spare spare = std::move(spares.back());
  spares.pop_back();
  --in_stock_;
  Import& import = imports_.at(spare.file);
  import.source = source;
  Handle& handle = handles_.at(import.handles.front());
  handle.source = source;
  handle.owners = {owner};
  fcntl(spare.fd.get(), F_SETFL, O_DIRECT | (flags & kSettable));
  return std::move(spare.fd);
}

void StreamTree::refill_soon(int access_mode) {
  EventLoop::Timer& timer = refills_[access_mode];
  if (timer) return;
  timer = node_.loop.after(kRefillDelay, [this, access_mode] { refill(access_mode); });
}

void StreamTree::refill(int access_mode) {
  std::vector<FileId> files;
  for (size_t i = stock_[access_mode].size(); i < kStock; ++i)
    files.push_back(add_import({kNoNode, {}, false, true}, 0));
  in_worker(
      node_.workers,
      [this, files, access_mode] {
        std::vector<Spare> opened;
        for (FileId file : files)
          if (auto fd = open_import(file, false, access_mode))
            opened.push_back({file, std::move(*fd)});
        return std::make_shared<std::vector<Spare>>(std::move(opened));
      },
      [this, files, access_mode](std::shared_ptr<std::vector<Spare>> opened) {
        for (Spare& spare : *opened) stock_[access_mode].push_back(std::move(spare));
        for (FileId file : files) {
          auto found = imports_.find(file);
          if (found == imports_.end()) continue;
          if (found->second.opened)
            ++in_stock_;
          else
            imports_.erase(found);
        }
        refills_[access_mode].reset();
      });
}

Result<UniqueFd> StreamTree::open_import(FileId import, bool cached, int flags) const {
  const std::string path = fmt::format("{}/{}", kName, import);
  // splice(2) from a FUSE file goes through the page cache, where a stream has nothing, unless the
  // file is O_DIRECT (Linux 6.5: vfs_splice_read, copy_splice_read).
  if (!cached) flags |= O_DIRECT;
  UniqueFd opened(openat(fs_.root(), path.c_str(), flags | O_CLOEXEC));
  if (!opened) return errno_error("opening a stream of another node");
  return opened;
}

void StreamTree::drop_import(FileId import) {
  auto found = imports_.find(import);
  if (found == imports_.end() || found->second.opened) return;
  close_at_home(found->second.source);
  imports_.erase(found);
}

std::optional<StreamSource> StreamTree::source_of(ino_t inode) const {
  const StreamSource* source = live_source(fs_.file_of(kName, inode));
  return source ? std::optional(*source) : std::nullopt;
}

std::optional<StreamSource> StreamTree::source_of(pid_t tid, int number) const {
  if (!fs_.is_serving()) return std::nullopt;
  const auto identity = fd_identity(tid, number);
  if (!identity || identity->device != fs_.device()) return std::nullopt;
  return source_of(identity->inode);
}

// Only descriptions with an open handle are held at home.
const StreamSource* StreamTree::live_source(FileId file) const {
  auto found = imports_.find(file);
  if (found == imports_.end()) return nullptr;
  if (!found->second.opened) return &found->second.source;
  if (found->second.handles.empty()) return nullptr;
  return &handles_.at(found->second.handles.front()).source;
}

void StreamTree::close_at_home(const StreamSource& source) {
  if (source.home == kNoNode) return;  // from the stock, never used
  StreamClose close;
  close.home = source.id;
  if (!node_.messenger.send(source.home, close))
    log_debug("streams", "close of {} at n{}: the node is gone", source.id.value,
              source.home.value);
}

void StreamTree::lookup(const FsCaller& caller, FileId, std::string_view name,
                        FsReply<FsEntry> reply) {
  FileId file = 0;
  const auto parsed = std::from_chars(name.data(), name.data() + name.size(), file);
  // Opening somebody's stream by its name would get around the owner's permissions.
  if (parsed.ec != std::errc{} || !imports_.count(file) || !is_thread_of_krgd(caller.tid))
    return reply(errno_error("", ENOENT));
  FsEntry entry;
  entry.id = file;
  entry.attributes.st_mode = S_IFREG | 0600;
  entry.attributes.st_nlink = 1;
  // krgd's own: an id that its user namespace does not have could not be opened for writing.
  entry.attributes.st_uid = geteuid();
  entry.attributes.st_gid = getegid();
  reply(entry);
}

void StreamTree::getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) {
  if (file == kTreeRoot) return FsTree::getattr(caller, file, std::move(reply));
  ask_attributes(file, -1, shown_to(file, std::move(reply)));
}

void StreamTree::truncate(const FsCaller&, FileId file, uint64_t size, bool,
                          FsReply<FsEntry> reply) {
  ask_attributes(file, static_cast<int64_t>(size), shown_to(file, std::move(reply)));
}

void StreamTree::ask_home(FileId file, std::function<void(Result<struct stat>)> done) {
  ask_attributes(file, -1, std::move(done));
}

void StreamTree::ask_attributes(FileId file, int64_t truncate,
                                std::function<void(Result<struct stat>)> done) {
  const StreamSource* source = live_source(file);
  if (source == nullptr) return done(errno_error("", ESTALE));
  StreamStat message;
  message.home = source->id;
  message.truncate = truncate;
  node_.messenger.request(source->home, message, {},
                          [done = std::move(done)](Result<std::string> answer) {
                            auto attributes = value_of<struct stat>(answer);
                            if (!attributes) return done(as_io_error(attributes.error()));
                            done(*attributes);
                          });
}

FsOpened StreamTree::opened_as(uint64_t handle, const StreamSource& source) {
  FsOpened opened;
  opened.handle = handle;
  opened.stream = !source.seekable;
  // A seekable one can be mapped and is read ahead.
  opened.direct_io = !source.seekable || !source.cached;
  return opened;
}

uint64_t StreamTree::add_handle(FileId file, const StreamSource& source, pid_t owner) {
  const uint64_t handle = next_handle_++;
  Handle made{source, {}};
  if (source.shared_offset) made.offset.emplace(*source.shared_offset);
  if (owner > 0) made.owners.insert(owner);
  handles_.emplace(handle, std::move(made));
  imports_.at(file).handles.push_back(handle);
  return handle;
}

// The first open is krgd's own, for the process that it imports for; any other comes from a program
// that opened /dev/fd/N and expects a description of its own.
void StreamTree::open(const FsCaller&, FileId file, int flags, FsReply<FsOpened> reply) {
  auto found = imports_.find(file);
  if (found == imports_.end()) return reply(errno_error("", EACCES));
  if (found->second.opened) return reopen(file, flags, std::move(reply));
  found->second.opened = true;
  const StreamSource& source = found->second.source;
  reply(opened_as(add_handle(file, source, found->second.owner), source));
}

void StreamTree::reopen(FileId file, int flags, FsReply<FsOpened> reply) {
  const StreamSource* source = live_source(file);
  if (source == nullptr) return reply(errno_error("", ESTALE));
  StreamReopen message;
  message.home = source->id;
  message.flags = flags;
  auto later = std::make_shared<FsReply<FsOpened>>(std::move(reply));
  node_.messenger.request(source->home, message, {},
                          [this, later, file, from = *source, flags](Result<std::string> answer) {
                            auto id = value_of<HomeId>(answer);
                            if (!id) return (*later)(as_io_error(id.error()));
                            StreamSource opened = from;
                            opened.id = *id;
                            opened.shared_offset.reset();
                            opened.seekable = !from.pollable && (flags & O_ACCMODE) == O_RDONLY;
                            if (!imports_.count(file)) {
                              close_at_home(opened);
                              return (*later)(errno_error("", ESTALE));
                            }
                            (*later)(opened_as(add_handle(file, opened), opened));
                          });
}

void StreamTree::read(const FsCaller& caller, FileId file, uint64_t handle, uint64_t offset,
                      size_t size, int flags, FsReply<std::string> reply) {
  auto found = handles_.find(handle);
  if (found == handles_.end()) return reply(errno_error("", EBADF));
  const StreamSource& source = found->second.source;
  if (found->second.offset &&
      read_at_shared_offset(caller, file, handle, static_cast<int64_t>(offset), size, reply))
    return;
  StreamRead message;
  message.size = static_cast<uint32_t>(size);
  message.nonblocking = (flags & O_NONBLOCK) != 0;
  message.offset = source.seekable ? static_cast<int64_t>(offset) : kAtPosition;
  auto later = std::make_shared<FsReply<std::string>>(std::move(reply));
  carry_out_at_home(caller, source, message, {}, [later](Result<std::string> answer) {
    if (!answer) answer = as_io_error(answer.error());
    (*later)(std::move(answer));
  });
}

void StreamTree::write(const FsCaller& caller, FileId, uint64_t handle, uint64_t offset,
                       std::string_view data, int flags, FsReply<size_t> reply) {
  auto found = handles_.find(handle);
  if (found == handles_.end()) return reply(errno_error("", EBADF));
  const StreamSource& source = found->second.source;
  settle_offsets_();
  StreamWrite message;
  message.offset = source.seekable ? static_cast<int64_t>(offset) : kAtPosition;
  message.nonblocking = (flags & O_NONBLOCK) != 0;
  auto later = std::make_shared<FsReply<size_t>>(std::move(reply));
  carry_out_at_home(caller, source, message, data,
                    [later, tid = caller.tid](Result<std::string> answer) {
                      auto written = value_of<uint64_t>(answer);
                      if (written) return (*later)(static_cast<size_t>(*written));
                      if (written.error().errno_or(EIO) == EPIPE) send_sigpipe(tid);
                      (*later)(as_io_error(written.error()));
                    });
}

void StreamTree::poll(const FsCaller&, FileId, uint64_t handle, std::function<void()> wake,
                      FsReply<uint32_t> reply) {
  auto found = handles_.find(handle);
  if (found == handles_.end()) return reply(errno_error("", EBADF));
  if (!found->second.source.pollable) return reply(POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
  StreamPoll message;
  message.home = found->second.source.id;
  message.wake = wake != nullptr;
  message.handle = handle;
  if (wake) found->second.wake = std::move(wake);
  auto later = std::make_shared<FsReply<uint32_t>>(std::move(reply));
  node_.messenger.request(found->second.source.home, message, {},
                          [later](Result<std::string> answer) {
                            auto events = value_of<uint32_t>(answer);
                            (*later)(events ? *events : uint32_t{POLLERR | POLLHUP});
                          });
}

// What the kernel does not bring, a worker fetches and puts: of a process whose pages are to come
// they would be awaited.
void StreamTree::ioctl(const FsCaller& caller, const IoctlRequest& asked,
                       FsReply<std::string> reply) {
  const auto found = handles_.find(asked.handle);
  const auto what = terminal_ioctl(asked.command);
  if (found == handles_.end() || !found->second.source.is_master || !what)
    return reply(errno_error("", ENOTTY));
  auto later = std::make_shared<FsReply<std::string>>(std::move(reply));
  StreamIoctl message;
  message.home = found->second.source.id;
  message.command = asked.command;
  message.argument = asked.argument;
  const auto put = [this, later, what = *what, tid = caller.tid,
                    at = RemoteAddr{asked.argument}](Result<std::string> out) {
    if (!out) return (*later)(as_io_error(out.error()));
    if (what.is_brought() || out->empty()) return (*later)(std::move(*out));
    in_worker(
        node_.workers, [tid, at, out = *out] { return write_process_memory(tid, at, out); },
        [later](const Status& written) {
          written ? (*later)(std::string()) : (*later)(errno_error("", EFAULT));
        });
  };
  const auto ask = [this, home = found->second.source.home, message, put](const std::string& in) {
    node_.messenger.request(home, message, in, put);
  };
  if (what->is_brought() || what->bytes_in == 0) return ask(std::string(asked.in));
  in_worker(
      node_.workers,
      [tid = caller.tid, at = RemoteAddr{asked.argument}, bytes = what->bytes_in] {
        std::string in(bytes, 0);
        const auto read = read_process_memory(tid, at, in);
        return read ? Result<std::string>(std::move(in)) : read.error();
      },
      [later, ask](Result<std::string> in) { in ? ask(*in) : (*later)(errno_error("", EFAULT)); });
}

void StreamTree::release(FileId file, uint64_t handle) {
  auto found = handles_.find(handle);
  if (found == handles_.end()) return;
  let_go_at_home(found->second);
  close_at_home(found->second.source);
  handles_.erase(found);
  auto import = imports_.find(file);
  if (import == imports_.end()) return;
  std::erase(import->second.handles, handle);
  if (import->second.handles.empty()) imports_.erase(import);
}

void StreamTree::interrupt(uint64_t unique) {
  flocks_.cancel(unique);
  record_locks_.cancel({node_.self, unique});
  shared_locks_.cancel(unique);
  if (auto finding = finding_owners_.find(unique); finding != finding_owners_.end())
    finding->second = true;
  auto found = operations_.find(unique);
  if (found == operations_.end()) return;
  StreamCancel cancel;
  cancel.home = found->second.id;
  cancel.operation = unique;
  if (!node_.messenger.send(found->second.home, cancel))
    log_debug("streams", "cancel at n{}: the node is gone", found->second.home.value);
}

}  // namespace krg
