// SPDX-License-Identifier: GPL-2.0-or-later
#include "posix_queue_listeners.h"

#include <fmt/format.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>

#include "krg/runtime/log.h"
#include "posix_queue_tree.h"
#include "process_fds.h"
#include "text_scan.h"

namespace krg {
namespace {

constexpr char kWokenUp = 1;  // NOTIFY_WOKENUP, in the cookie's last byte

// The port of a netlink socket, which gets one now if it had none.
uint32_t port_of(int socket) {
  sockaddr_nl address{};
  socklen_t size = sizeof address;
  const auto port = [&] {
    return getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
                   address.nl_family == AF_NETLINK
               ? address.nl_pid
               : 0;
  };
  if (const uint32_t own = port(); own != 0) return own;
  sockaddr_nl any{};
  any.nl_family = AF_NETLINK;
  if (bind(socket, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0) return 0;
  return port();
}

}  // namespace

PosixQueueListeners::PosixQueueListeners(NodeContext& node, SessionFs& fs, Forget forget)
    : fs_(fs), forget_(std::move(forget)) {
  node.messenger.on<ipc_messages::QueueNotice>(
      [this](NodeId, const ipc_messages::QueueNotice& notice, std::string_view) { tell(notice); });
}

Result<PosixQueueListeners::Line> PosixQueueListeners::line_to(pid_t tid, int socket,
                                                               std::string cookie) {
  auto theirs = steal_fd(tid, socket);
  if (!theirs) return errno_error("no such descriptor", EBADF);
  sockaddr_nl peer{};
  peer.nl_family = AF_NETLINK;
  peer.nl_pid = port_of(theirs->get());
  if (peer.nl_pid == 0) return errno_error("not a netlink socket", EBADF);
  Line line{UniqueFd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)),
            std::move(cookie)};
  if (!line.socket ||
      connect(line.socket.get(), reinterpret_cast<sockaddr*>(&peer), sizeof peer) != 0)
    return errno_error("mq_notify by a thread needs the session's own network", ENOSYS);
  return line;
}

void PosixQueueListeners::add(int64_t queue, pid_t process, Line line) {
  lines_[{queue, process}] = std::move(line);
}

void PosixQueueListeners::tell(const ipc_messages::QueueNotice& notice) {
  const auto line = lines_.extract({notice.queue, notice.process});
  if (!has_open(notice.process, notice.queue)) return;
  if (notice.how == SIGEV_THREAD && !line.empty()) {
    std::string cookie = line.mapped().cookie;
    cookie.back() = kWokenUp;
    if (send(line.mapped().socket.get(), cookie.data(), cookie.size(), MSG_DONTWAIT) < 0)
      log_warn("ipc", "process {} could not be told of a message: {}", notice.process,
               errno_error("send").message());
  }
  if (notice.how != SIGEV_SIGNAL || notice.signal == 0) return;
  siginfo_t info{};
  info.si_signo = notice.signal;
  info.si_code = SI_MESGQ;
  info.si_pid = notice.sender;
  info.si_uid = notice.sender_uid;
  info.si_value.sival_ptr = reinterpret_cast<void*>(notice.value);
  if (syscall(SYS_rt_sigqueueinfo, notice.process, notice.signal, &info) != 0)
    log_debug("ipc", "process {} has ended", notice.process);
}

bool PosixQueueListeners::has_open(pid_t process, int64_t queue) const {
  std::error_code error;
  std::filesystem::directory_iterator fds(fmt::format("/proc/{}/fd", process), error);
  for (; !error && fds != std::filesystem::directory_iterator(); fds.increment(error)) {
    const auto number = to_number<int>(fds->path().filename().native());
    const auto identity = number ? fd_identity(process, *number) : errno_error("", EBADF);
    if (identity && identity->device == fs_.device() &&
        fs_.file_of(PosixQueueTree::kName, identity->inode) == static_cast<FileId>(queue))
      return true;
  }
  return false;
}

void PosixQueueListeners::released(int64_t queue) {
  for (auto at = lines_.lower_bound({queue, 0}); at != lines_.end() && at->first.first == queue;) {
    const pid_t process = at->first.second;
    if (has_open(process, queue)) {
      ++at;
      continue;
    }
    at = lines_.erase(at);
    forget_(queue, process);
  }
}

void PosixQueueListeners::process_ended(pid_t process) {
  std::erase_if(lines_, [&](const auto& entry) { return entry.first.second == process; });
}

}  // namespace krg
