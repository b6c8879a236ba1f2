// SPDX-License-Identifier: GPL-2.0-or-later
#include "posix_queue_calls.h"

#include <fcntl.h>
#include <mqueue.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <climits>
#include <ctime>

#include "in_worker.h"
#include "ipc_caller.h"
#include "krg/runtime/log.h"
#include "process_fds.h"
#include "process_status.h"

namespace krg {
namespace {

constexpr size_t kCookieBytes = 32;  // NOTIFY_COOKIE_LEN
constexpr int kKeptFlags = O_ACCMODE | O_NONBLOCK;

template <class T>
std::optional<T> read_value(const SyscallBroker::Call& call, uint64_t address) {
  auto bytes = call.read_memory(RemoteAddr{address}, sizeof(T));
  if (!bytes) return std::nullopt;
  T value;
  std::memcpy(&value, bytes->data(), sizeof value);
  return value;
}

// What is left until a time of the real-time clock; a century is as good as for ever.
std::optional<std::chrono::nanoseconds> time_until(const timespec& when) {
  if (when.tv_sec < 0 || when.tv_nsec < 0 || when.tv_nsec >= 1'000'000'000) return std::nullopt;
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const int64_t seconds = std::min<int64_t>(when.tv_sec - now.tv_sec, 3'000'000'000);
  const auto left =
      std::chrono::seconds(seconds) + std::chrono::nanoseconds(when.tv_nsec - now.tv_nsec);
  return std::max(left, std::chrono::nanoseconds(0));
}

// Sets `shape.timeout` from the call's last argument; an errno value, or 0.
int take_timeout(const SyscallBroker::Call& call, IpcShape& shape) {
  if (call.arg(4) == 0) return 0;
  const auto when = read_value<timespec>(call, call.arg(4));
  if (!when) return EFAULT;
  shape.timeout = time_until(*when);
  return shape.timeout ? 0 : EINVAL;
}

uint64_t most_bytes_of(pid_t process) {
  rlimit limit{};
  if (prlimit(process, RLIMIT_MSGQUEUE, nullptr, &limit) != 0) return 0;
  return limit.rlim_cur;
}

mode_t umask_of(pid_t tid) {
  auto status = read_proc_text(tid, "status");
  const char* text = status ? status_value(*status, "Umask") : nullptr;
  return text != nullptr ? static_cast<mode_t>(std::strtoul(text, nullptr, 8)) : 022;
}

// The kernel copies a path of at most so many bytes, its NUL among them.
Result<std::string> read_name(const SyscallBroker::Call& call) {
  auto name = call.read_string(RemoteAddr{call.arg(0)}, PATH_MAX);
  if (!name) return errno_error("name", name.error().errno_or(EFAULT));
  return name;
}

}  // namespace

bool PosixQueueCalls::Opened::may_read() const {
  return (flags & O_ACCMODE) != O_WRONLY;
}
bool PosixQueueCalls::Opened::may_write() const {
  return (flags & O_ACCMODE) != O_RDONLY;
}

PosixQueueCalls::PosixQueueCalls(NodeContext& node, SyscallBroker& broker, SessionFs& fs,
                                 SystemVCalls& home, ExitWatch& exits)
    : node_(node),
      fs_(fs),
      home_(home),
      exits_(exits),
      listeners_(node, fs,
                 [this](int64_t queue, pid_t process) { forget_listener(queue, process); }),
      tree_(node, home, [this](int64_t queue) { listeners_.released(queue); }) {
  fs.add_tree(std::string(PosixQueueTree::kName), tree_);
  static constexpr std::pair<int, Handler> kHandlers[] = {
      {SYS_mq_open, &PosixQueueCalls::open},      {SYS_mq_unlink, &PosixQueueCalls::unlink},
      {SYS_mq_timedsend, &PosixQueueCalls::send}, {SYS_mq_timedreceive, &PosixQueueCalls::receive},
      {SYS_mq_notify, &PosixQueueCalls::notify},  {SYS_mq_getsetattr, &PosixQueueCalls::attributes},
  };
  for (const auto& [number, handler] : kHandlers)
    broker.set_handler(number, [this, handler](Call call) { on_call(handler, std::move(call)); });
}

void PosixQueueCalls::on_call(Handler handler, Call call) {
  if (!fs_.is_serving()) return call.go_on();
  exits_.drain();
  const auto caller = read_ipc_caller(call.tid());
  if (!caller) return call.fail(ESRCH);
  if (const int error = (this->*handler)(call, *caller)) call.fail(error);
}

void PosixQueueCalls::ask(Call& call, const IpcCaller& caller, PosixQueueOp op, IpcShape shape) {
  shape.number = static_cast<int>(op);
  shape.restart = WaitingCalls::Restart::kAsHandlerSays;
  shape.timed_out = ETIMEDOUT;
  shape.lost = EBADF;
  home_.ask(std::move(call), caller, std::move(shape));
}

Result<PosixQueueCalls::Opened> PosixQueueCalls::opened(const Call& call) const {
  const auto number = static_cast<int>(call.arg(0));
  const auto identity = fd_identity(call.tid(), number);
  if (!identity || identity->device != fs_.device()) return errno_error("no queue", EBADF);
  const FileId queue = fs_.file_of(PosixQueueTree::kName, identity->inode);
  if (queue == 0 || queue == kTreeRoot) return errno_error("no queue", EBADF);
  auto copy = steal_fd(call.tid(), number);
  if (!copy) return errno_error("no such descriptor", EBADF);
  Opened opened{static_cast<int64_t>(queue), std::move(*copy)};
  opened.flags = fcntl(opened.copy.get(), F_GETFL);
  if (opened.flags & O_PATH) return errno_error("no queue", EBADF);
  return opened;
}

int PosixQueueCalls::open(Call& call, const IpcCaller& caller) {
  const auto flags = static_cast<int>(call.arg(1));
  auto name = read_name(call);
  if (!name) return name.error().errno_or(EFAULT);
  IpcShape shape;
  const auto mode = static_cast<mode_t>(call.arg(2)) & ~umask_of(call.tid());
  shape.args = {flags, mode, -1, 0};
  if ((flags & O_CREAT) && call.arg(3) != 0) {
    const auto wanted = read_value<mq_attr>(call, call.arg(3));
    if (!wanted) return EFAULT;
    shape.args[2] = std::max<int64_t>(wanted->mq_maxmsg, 0);
    shape.args[3] = wanted->mq_msgsize;
  }
  shape.data = ipc_bytes(PosixQueueLimits{most_bytes_of(caller.pid)}) + *name;
  shape.makes = true;
  shape.deliver = [this, flags](Call opening, int64_t queue, std::string_view) {
    give_descriptor(std::move(opening), queue, flags);
    return true;
  };
  ask(call, caller, PosixQueueOp::kOpen, std::move(shape));
  return 0;
}

// Meanwhile this node uses the queue for the call itself.
void PosixQueueCalls::give_descriptor(Call call, int64_t queue, int flags) {
  in_worker(
      node_.workers, [root = fs_.root(), queue, flags] { return open_file(root, queue, flags); },
      [this, queue, call = shared(std::move(call))](Result<UniqueFd> file) {
        let_go(queue);
        if (!file) return call->fail(file.error().errno_or(EIO));
        const auto number = call->add_fd(file->get());
        if (!number) return call->fail(number.error().errno_or(EMFILE));
        call->succeed(*number);
      });
}

Result<UniqueFd> PosixQueueCalls::open_file(int root, int64_t queue, int flags) {
  UniqueFd file(
      openat(root, PosixQueueTree::path_of(queue).c_str(), (flags & kKeptFlags) | O_CLOEXEC));
  if (!file) return errno_error("open of a message queue");
  return file;
}

void PosixQueueCalls::let_go(int64_t queue) {
  IpcShape shape;
  shape.number = static_cast<int>(PosixQueueOp::kDrop);
  shape.args[0] = queue;
  home_.ask(IpcCaller{}, shape, [](const Result<std::string>&) {});
}

int PosixQueueCalls::unlink(Call& call, const IpcCaller& caller) {
  auto name = read_name(call);
  if (!name) return name.error().errno_or(EFAULT);
  IpcShape shape;
  shape.data = *name;
  ask(call, caller, PosixQueueOp::kUnlink, std::move(shape));
  return 0;
}

int PosixQueueCalls::send(Call& call, const IpcCaller& caller) {
  IpcShape shape;
  const auto size = call.arg(2);
  const auto priority = static_cast<uint32_t>(call.arg(3));
  if (priority >= PosixQueues::kMostPriority) return EINVAL;
  if (const int error = take_timeout(call, shape)) return error;
  const auto queue = opened(call);
  if (!queue || !queue->may_write()) return EBADF;
  if (size > PosixQueues::kMostMessageBytesEver) return EMSGSIZE;
  if (size > 0) {
    auto text = call.read_memory(RemoteAddr{call.arg(1)}, size);
    if (!text) return EFAULT;
    shape.data = std::move(*text);
  }
  shape.args = {queue->queue, priority, queue->flags & O_NONBLOCK, 0};
  ask(call, caller, PosixQueueOp::kSend, std::move(shape));
  return 0;
}

int PosixQueueCalls::receive(Call& call, const IpcCaller& caller) {
  IpcShape shape;
  if (const int error = take_timeout(call, shape)) return error;
  const auto queue = opened(call);
  if (!queue || !queue->may_read()) return EBADF;
  const auto room = static_cast<int64_t>(std::min<uint64_t>(call.arg(2), INT64_MAX));
  shape.args = {queue->queue, room, queue->flags & O_NONBLOCK, 0};
  shape.deliver = [text = RemoteAddr{call.arg(1)}, priority = RemoteAddr{call.arg(3)}](
                      Call receiver, int64_t bytes, std::string_view written) {
    constexpr size_t kPriorityBytes = sizeof(uint32_t);
    const bool given =
        (bytes == 0 || receiver.write_memory(text, written.substr(kPriorityBytes))) &&
        (priority.value == 0 || receiver.write_memory(priority, written.substr(0, kPriorityBytes)));
    if (given) return receiver.try_succeed(bytes);
    const bool lives = receiver.is_valid();
    receiver.fail(EFAULT);
    return lives;
  };
  ask(call, caller, PosixQueueOp::kReceive, std::move(shape));
  return 0;
}

int PosixQueueCalls::notify(Call& call, const IpcCaller& caller) {
  IpcShape shape;
  std::optional<sigevent> event;
  if (call.arg(1) != 0 && !(event = read_value<sigevent>(call, call.arg(1)))) return EFAULT;
  PosixQueueListeners::Line line;
  if (event && event->sigev_notify == SIGEV_THREAD) {
    const RemoteAddr at{reinterpret_cast<uint64_t>(event->sigev_value.sival_ptr)};
    auto cookie = call.read_memory(at, kCookieBytes);
    if (!cookie) return EFAULT;
    auto made = PosixQueueListeners::line_to(call.tid(), event->sigev_signo, std::move(*cookie));
    if (!made) {
      log_warn("ipc", "{}", made.error().message());
      return made.error().errno_or(EBADF);
    }
    line = std::move(*made);
  }
  const auto queue = opened(call);
  if (!queue) return EBADF;
  const int64_t number = queue->queue;
  shape.args = {number, -1, 0, 0};
  if (event)
    shape.args = {number, event->sigev_notify, event->sigev_signo,
                  static_cast<int64_t>(reinterpret_cast<uintptr_t>(event->sigev_value.sival_ptr))};
  if (event) exits_.add(caller.pid);
  shape.deliver = [this, number, process = caller.pid, listens = event.has_value(),
                   line = shared(std::move(line))](Call listener, int64_t, std::string_view) {
    if (listens) listeners_.add(number, process, std::move(*line));
    listener.succeed(0);
    return true;
  };
  ask(call, caller, PosixQueueOp::kNotify, std::move(shape));
  return 0;
}

void PosixQueueCalls::forget_listener(int64_t queue, pid_t process) {
  IpcShape shape;
  shape.number = static_cast<int>(PosixQueueOp::kNotify);
  shape.args = {queue, -1, 0, 0};
  IpcCaller caller;
  caller.pid = process;
  home_.ask(caller, shape, [](const Result<std::string>&) {});
}

// O_NONBLOCK belongs to the open file: all that share the descriptor see the change.
int PosixQueueCalls::attributes(Call& call, const IpcCaller& caller) {
  std::optional<mq_attr> wanted;
  if (call.arg(1) != 0) {
    if (!(wanted = read_value<mq_attr>(call, call.arg(1)))) return EFAULT;
    if (wanted->mq_flags & ~int64_t{O_NONBLOCK}) return EINVAL;
  }
  const auto queue = opened(call);
  if (!queue) return EBADF;
  IpcShape shape;
  shape.args[0] = queue->queue;
  shape.deliver = [flags = queue->flags, out = RemoteAddr{call.arg(2)}](Call asker, int64_t,
                                                                        std::string_view written) {
    PosixQueueState state;
    if (written.size() == sizeof state) std::memcpy(&state, written.data(), sizeof state);
    mq_attr told{};
    told.mq_flags = flags & O_NONBLOCK;
    told.mq_maxmsg = state.most_messages;
    told.mq_msgsize = state.message_bytes;
    told.mq_curmsgs = state.messages;
    const bool given = out.value == 0 || asker.write_memory(out, ipc_bytes(told));
    given ? asker.succeed(0) : asker.fail(EFAULT);
    return true;
  };
  if (wanted)
    fcntl(queue->copy.get(), F_SETFL,
          (queue->flags & ~O_NONBLOCK) | static_cast<int>(wanted->mq_flags));
  ask(call, caller, PosixQueueOp::kStat, std::move(shape));
  return 0;
}

}  // namespace krg
