// SPDX-License-Identifier: GPL-2.0-or-later
#include "posix_queue_tree.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include "ipc_caller.h"
#include "ipc_messages.h"
#include "process_status.h"
#include "text_scan.h"

namespace krg {
namespace {

constexpr std::string_view kNumberPrefix = ".krg-queue-";  // for krgd alone, as SharedTree's
constexpr off_t kTextBytes = 80;                           // what stat(2) tells of any queue

Result<PosixQueueState> state_in(const Result<std::string>& answer) {
  if (!answer) return answer.error();
  PosixQueueState state;
  if (answer->size() != sizeof(int64_t) + sizeof state)
    return errno_error("answer of another version", EPROTO);
  std::memcpy(&state, answer->data() + sizeof(int64_t), sizeof state);
  return state;
}

FsEntry entry_of(FileId queue, const PosixQueueState& state) {
  FsEntry entry;
  entry.id = queue;
  struct stat& to = entry.attributes;
  to.st_mode = S_IFREG | state.mode;
  to.st_uid = state.uid;
  to.st_gid = state.gid;
  to.st_nlink = state.links;
  to.st_size = kTextBytes;
  to.st_atim.tv_sec = state.accessed_s;
  to.st_mtim.tv_sec = state.modified_s;
  to.st_ctim.tv_sec = state.changed_s;
  return entry;
}

FsEntry root_entry() {
  FsEntry entry;
  entry.id = kTreeRoot;
  entry.attributes.st_mode = S_IFDIR | S_ISVTX | 0777;
  entry.attributes.st_nlink = 2;
  // In a user namespace nobody may make files in a folder of an owner that is unknown there.
  entry.attributes.st_uid = geteuid();
  entry.attributes.st_gid = getegid();
  return entry;
}

// Programs find a queue by its number only through a descriptor.
bool is_krgd(pid_t tid) {
  auto status = read_process_status(tid);
  return status && status->pid == getpid();
}

IpcCaller caller_of(const FsCaller& caller) {
  auto read = read_ipc_caller(caller.tid);
  if (!read) return {caller.tid, caller.uid, caller.gid, 0, {}};
  read->uid = caller.uid;
  read->gid = caller.gid;
  return *read;
}

template <class T>
std::shared_ptr<FsReply<T>> later(FsReply<T> reply) {
  return std::make_shared<FsReply<T>>(std::move(reply));
}

}  // namespace

PosixQueueTree::PosixQueueTree(NodeContext& node, SystemVCalls& home,
                               std::function<void(int64_t)> released)
    : home_(home), released_(std::move(released)) {
  node.messenger.on<ipc_messages::QueueChanged>(
      [this](NodeId, const ipc_messages::QueueChanged& message, std::string_view) {
        auto waiting = pollers_.extract(message.queue);
        if (waiting.empty()) return;
        for (const auto& wake : waiting.mapped()) wake();
      });
  node.messenger.on_peer_failure([this](NodeId) {
    for (const auto& [queue, wakes] : std::exchange(pollers_, {}))
      for (const auto& wake : wakes) wake();
  });
}

std::string PosixQueueTree::path_of(int64_t queue) {
  return fmt::format("{}/{}{}", kName, kNumberPrefix, queue);
}

void PosixQueueTree::ask(const FsCaller& caller, PosixQueueOp op, Args args, std::string data,
                         SystemVCalls::Answered done) {
  IpcShape shape;
  shape.number = static_cast<int>(op);
  shape.args = args;
  shape.data = std::move(data);
  home_.ask(caller_of(caller), shape, std::move(done));
}

void PosixQueueTree::ask_entry(const FsCaller& caller, PosixQueueOp op, Args args, std::string data,
                               FsReply<FsEntry> reply) {
  ask(caller, op, args, std::move(data),
      [reply = later(std::move(reply)), queue = args[0]](const Result<std::string>& answer) {
        const auto state = state_in(answer);
        if (!state) return (*reply)(state.error());
        const auto id = queue != 0 ? queue : ipc_value_of(*answer).value_or(0);
        (*reply)(entry_of(static_cast<FileId>(id), *state));
      });
}

void PosixQueueTree::lookup(const FsCaller& caller, FileId, std::string_view name,
                            FsReply<FsEntry> reply) {
  if (name.starts_with(kNumberPrefix) && is_krgd(caller.tid)) {
    const auto queue = to_number<FileId>(name.substr(kNumberPrefix.size()));
    return queue ? getattr(caller, *queue, std::move(reply)) : reply(errno_error("", ENOENT));
  }
  ask_entry(caller, PosixQueueOp::kLookUp, {}, std::string(name), std::move(reply));
}

void PosixQueueTree::getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) {
  if (file == kTreeRoot) return reply(root_entry());
  ask_entry(caller, PosixQueueOp::kStat, {static_cast<int64_t>(file)}, {}, std::move(reply));
}

void PosixQueueTree::readdir(const FsCaller& caller, FileId,
                             FsReply<std::vector<FsDirEntry>> reply) {
  ask(caller, PosixQueueOp::kList, {}, {},
      [reply = later(std::move(reply))](const Result<std::string>& answer) {
        if (!answer) return (*reply)(answer.error());
        std::vector<FsDirEntry> entries;
        std::string_view names = std::string_view(*answer).substr(sizeof(int64_t));
        while (!names.empty()) {
          const std::string_view name = names.substr(0, names.find('\0'));
          entries.push_back({std::string(name), S_IFREG});
          names.remove_prefix(name.size() + 1);
        }
        (*reply)(std::move(entries));
      });
}

void PosixQueueTree::open(const FsCaller& caller, FileId file, int flags, FsReply<FsOpened> reply) {
  const int64_t access = is_krgd(caller.tid) ? -1 : flags;
  ask(caller, PosixQueueOp::kUse, {static_cast<int64_t>(file), access}, {},
      [reply = later(std::move(reply))](const Result<std::string>& answer) {
        (*reply)(answer ? Result<FsOpened>(FsOpened{}) : answer.error());
      });
}

void PosixQueueTree::create(const FsCaller& caller, FileId, std::string_view name, mode_t mode,
                            int flags, FsReply<FsCreated> reply) {
  const PosixQueueLimits limits{UINT64_MAX};
  ask(caller, PosixQueueOp::kOpen, {flags, mode, -1, 0}, ipc_bytes(limits) + std::string(name),
      [this, caller, reply = later(std::move(reply))](const Result<std::string>& made) {
        const auto queue = made ? ipc_value_of(*made) : std::nullopt;
        if (!queue) return (*reply)(made ? errno_error("", EPROTO) : made.error());
        ask(caller, PosixQueueOp::kStat, {*queue}, {},
            [reply, queue = *queue](const Result<std::string>& answer) {
              const auto state = state_in(answer);
              if (!state) return (*reply)(state.error());
              (*reply)(FsCreated{entry_of(static_cast<FileId>(queue), *state), FsOpened{}});
            });
      });
}

// Source: mq_overview(7), and the widths that Linux prints.
void PosixQueueTree::read(const FsCaller& caller, FileId file, uint64_t, uint64_t offset,
                          size_t size, int, FsReply<std::string> reply) {
  ask(caller, PosixQueueOp::kStat, {static_cast<int64_t>(file)}, {},
      [offset, size, reply = later(std::move(reply))](const Result<std::string>& answer) {
        const auto state = state_in(answer);
        if (!state) return (*reply)(state.error());
        const std::string text = fmt::format(
            "QSIZE:{:<10} NOTIFY:{:<5} SIGNO:{:<5} NOTIFY_PID:{:<6}\n", state->bytes,
            state->notify_pid != 0 ? state->notify : 0, state->notify_signal, state->notify_pid);
        (*reply)(offset < text.size() ? text.substr(offset, size) : std::string());
      });
}

void PosixQueueTree::write(const FsCaller&, FileId, uint64_t, uint64_t, std::string_view, int,
                           FsReply<size_t> reply) {
  reply(errno_error("", EINVAL));
}

void PosixQueueTree::truncate(const FsCaller& caller, FileId file, uint64_t, bool,
                              FsReply<FsEntry> reply) {
  getattr(caller, file, std::move(reply));
}

void PosixQueueTree::setattr(const FsCaller& caller, FileId file, const FsChange& change,
                             FsReply<FsEntry> reply) {
  if (file == kTreeRoot) return reply(errno_error("", EPERM));
  const auto or_stays = [](const auto& value) { return value ? int64_t{*value} : -1; };
  ask_entry(caller, PosixQueueOp::kChange,
            {static_cast<int64_t>(file), or_stays(change.mode), or_stays(change.uid),
             or_stays(change.gid)},
            {}, std::move(reply));
}

void PosixQueueTree::unlink(const FsCaller& caller, FileId, std::string_view name, bool directory,
                            FsReply<int> reply) {
  if (directory) return reply(errno_error("", ENOTDIR));
  ask(caller, PosixQueueOp::kUnlink, {}, std::string(name),
      [reply = later(std::move(reply))](const Result<std::string>& answer) {
        (*reply)(answer ? Result<int>(0) : answer.error());
      });
}

void PosixQueueTree::poll(const FsCaller& caller, FileId file, uint64_t, std::function<void()> wake,
                          FsReply<uint32_t> reply) {
  const auto queue = static_cast<int64_t>(file);
  const bool watches = wake != nullptr;
  if (watches) pollers_[queue].push_back(std::move(wake));
  ask(caller, PosixQueueOp::kPoll, {queue, watches}, {},
      [reply = later(std::move(reply))](const Result<std::string>& answer) {
        const auto events = answer ? ipc_value_of(*answer) : std::nullopt;
        (*reply)(static_cast<uint32_t>(events.value_or(POLLERR)));
      });
}

void PosixQueueTree::release(FileId file, uint64_t) {
  const auto queue = static_cast<int64_t>(file);
  ask({}, PosixQueueOp::kDrop, {queue}, {}, [](const Result<std::string>&) {});
  released_(queue);
}

}  // namespace krg
