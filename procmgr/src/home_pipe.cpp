// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cstring>

#include "event_fds.h"
#include "fuse_channel.h"
#include "home_file.h"

namespace krg {
namespace {

// A read of more than one request's size comes as several; if the first were answered in full the
// kernel would wait for the next although the reader has data. So none is, near that size.
constexpr size_t kMaxPipeReadBytes = kMaxFuseIoBytes - 8192;

// The same pipe or terminal through a description of our own.
Result<UniqueFd> reopen_nonblocking(int real, int flags) {
  const std::string path = fmt::format("/proc/self/fd/{}", real);
  const int wanted = (flags & (O_ACCMODE | O_DIRECT)) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  UniqueFd opened(open(path.c_str(), wanted));
  if (!opened && errno == ENXIO) {
    // fifo(7): a FIFO without a reader cannot be opened for writing only; while it has one, it can.
    UniqueFd reader(open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    opened = UniqueFd(open(path.c_str(), wanted));
  }
  if (!opened) return errno_error("opening the pipe anew");
  return opened;
}

// statfs(2) of a pipe that has no name; kernels do not export it in a header of their own.
constexpr auto kPipeFsMagic = 0x50495045;

// Whether one operation on the shared description may be told not to wait. RWF_NOWAIT on pipes:
// Linux 6.4 or newer; not on named ones, nor on terminals. Asked of a pipe of our own: an attempt
// on the shared one could take data from it.
bool can_skip_waiting(int real) {
  struct statfs file_system {};
  if (fstatfs(real, &file_system) != 0 || file_system.f_type != kPipeFsMagic) return false;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return false;
  const UniqueFd reader(ends[0]), writer(ends[1]);
  char byte;
  const iovec one{&byte, 1};
  return preadv2(reader.get(), &one, 1, -1, RWF_NOWAIT) < 0 && errno == EAGAIN;
}

uint32_t events_of_mode(int flags) {
  switch (flags & O_ACCMODE) {
    case O_RDONLY:
      return EPOLLIN;
    case O_WRONLY:
      return EPOLLOUT;
    default:
      return EPOLLIN | EPOLLOUT;
  }
}

// A terminal's master can neither be opened anew nor be told not to wait: it does not while this
// lives, and nobody else uses it meanwhile.
class NoWaiting {
 public:
  NoWaiting(int master, bool is_needed) : master_(master) {
    if (is_needed) before_ = fcntl(master, F_GETFL);
    if (before_ >= 0) fcntl(master, F_SETFL, before_ | O_NONBLOCK);
  }
  ~NoWaiting() {
    if (before_ >= 0) fcntl(master_, F_SETFL, before_);
  }
  NoWaiting(const NoWaiting&) = delete;
  NoWaiting& operator=(const NoWaiting&) = delete;

 private:
  const int master_;
  int before_ = -1;
};

void answer_written(Messenger::Reply& reply, uint64_t written) {
  reply.ok({reinterpret_cast<const char*>(&written), sizeof written});
}

}  // namespace

Result<std::unique_ptr<HomePipe>> HomePipe::create(EventLoop& loop, UniqueFd real, int flags) {
  auto io = reopen_nonblocking(real.get(), flags);
  if (io)
    return std::unique_ptr<HomePipe>(new HomePipe(loop, std::move(real), std::move(*io), flags));
  // A pipe that another user made: slurmstepd's, for the standard streams of its tasks.
  if (io.error().errno_or(0) != EACCES || !can_skip_waiting(real.get())) return io.error();
  return std::unique_ptr<HomePipe>(new HomePipe(loop, std::move(real), UniqueFd(), flags));
}

std::unique_ptr<HomePipe> HomePipe::create_of_events(EventLoop& loop, UniqueFd real) {
  return std::unique_ptr<HomePipe>(
      new HomePipe(loop, std::move(real), UniqueFd(), O_RDONLY, What::kEvents));
}

std::unique_ptr<HomePipe> HomePipe::create_of_master(EventLoop& loop, UniqueFd real) {
  return std::unique_ptr<HomePipe>(
      new HomePipe(loop, std::move(real), UniqueFd(), O_RDWR, What::kMaster));
}

std::unique_ptr<HomePipe> HomePipe::create_of_counter(EventLoop& loop, UniqueFd real) {
  return std::unique_ptr<HomePipe>(
      new HomePipe(loop, std::move(real), UniqueFd(), O_RDWR, What::kCounter));
}

HomePipe::HomePipe(EventLoop& loop, UniqueFd real, UniqueFd io, int flags, What what)
    : HomeFile(std::move(real)),
      loop_(loop),
      io_(std::move(io)),
      possible_events_(events_of_mode(flags)),
      what_(what) {}

void HomePipe::read(const StreamRequest& request, size_t size, Messenger::Reply reply) {
  const bool may_try = request.nonblocking || reads_.empty();
  if (may_try && try_read(size, request.nonblocking, reply)) return;
  reads_.push_back({request.operation, size, std::move(reply)});
  update_watch();
}

bool HomePipe::try_read(size_t size, bool nonblocking, Messenger::Reply& reply) {
  size = std::min(size, kMaxPipeReadBytes);
  if (buffer_.size() < size) buffer_.resize(size);
  const iovec one{buffer_.data(), size};
  const bool would_wait = what_ == What::kEvents && ready_events() == 0;
  ssize_t got = -1;
  int error = EAGAIN;
  if (!would_wait) {
    const NoWaiting now(real(), what_ == What::kMaster);
    got = preadv2(io_descriptor(), &one, 1, -1, io_flags());
    error = errno;
  }
  if (got < 0 && error == EAGAIN && !nonblocking) return false;
  if (got < 0) {
    reply.fail(error);
  } else {
    reply.ok(std::string_view(buffer_).substr(0, static_cast<size_t>(got)));
  }
  return true;
}

void HomePipe::write(const StreamRequest& request, std::string_view data, Messenger::Reply reply) {
  size_t written = 0;
  const bool may_try = request.nonblocking || writes_.empty();
  if (may_try && try_write(data, written, request.nonblocking, reply)) return;
  writes_.push_back(
      {request.operation, std::string(data.substr(written)), written, std::move(reply)});
  update_watch();
}

ssize_t HomePipe::put(std::string_view data) const {
  if (what_ == What::kCounter) return add_to_counter(data);
  const iovec one{const_cast<char*>(data.data()), data.size()};
  const NoWaiting now(real(), what_ == What::kMaster);
  return pwritev2(io_descriptor(), &one, 1, -1, io_flags());
}

// A write to an eventfd cannot be told not to wait. It waits where there is no room for its value:
// for more than one, which nearly fills it up, nobody can be told when there will be.
ssize_t HomePipe::add_to_counter(std::string_view value) const {
  constexpr uint64_t kMost = UINT64_MAX - 1;  // eventfd(2)
  uint64_t added = 0;
  if (value.size() >= sizeof added) memcpy(&added, value.data(), sizeof added);
  const bool has_no_room =
      added == 1 ? !(ready_events() & EPOLLOUT)
                 : added > 1 && added <= kMost && added > kMost - count_of_eventfd(real());
  if (has_no_room) {
    errno = EAGAIN;
    return -1;
  }
  return ::write(real(), value.data(), value.size());
}

// Writes what fits; `written` grows.
bool HomePipe::try_write(std::string_view data, size_t& written, bool nonblocking,
                         Messenger::Reply& reply) {
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t written_now = put(data.substr(done));
    if (written_now < 0) {
      const int error = errno;
      const bool may_wait =
          !nonblocking && (what_ != What::kCounter || !(ready_events() & EPOLLOUT));
      if (error == EAGAIN && may_wait) {
        written += done;
        return false;
      }
      if (written + done == 0) {
        reply.fail(error);
        return true;
      }
      break;  // the next write tells the error
    }
    done += static_cast<size_t>(written_now);
    if (nonblocking || what_ == What::kCounter) break;
  }
  written += done;
  answer_written(reply, written);
  return true;
}

// poll(2) of the shared description: only that one knows whether a FIFO's writers have gone.
uint32_t HomePipe::ready_events() const {
  pollfd one{real(), static_cast<short>(possible_events_), 0};
  ::poll(&one, 1, 0);
  return static_cast<uint32_t>(static_cast<unsigned short>(one.revents));
}

uint32_t HomePipe::poll(StreamOperation poller, std::function<void()> wake) {
  uint32_t ready = ready_events();
  if (wake && !(ready & (EPOLLHUP | EPOLLERR))) {
    wakes_.insert_or_assign(poller, std::move(wake));
    awaited_by_wakes_ |= possible_events_ & ~ready;
    update_watch();
  }
  if (ready & EPOLLIN) ready |= EPOLLRDNORM;
  if (ready & EPOLLOUT) ready |= EPOLLWRNORM;
  return ready;
}

void HomePipe::cancel(StreamOperation operation) {
  auto same = [&](const auto& waiting) { return waiting.operation == operation; };
  if (auto found = std::find_if(reads_.begin(), reads_.end(), same); found != reads_.end()) {
    found->reply.fail(EINTR);
    reads_.erase(found);
  }
  if (auto found = std::find_if(writes_.begin(), writes_.end(), same); found != writes_.end()) {
    if (found->written > 0) {
      answer_written(found->reply, found->written);
    } else {
      found->reply.fail(EINTR);
    }
    writes_.erase(found);
  }
  update_watch();
}

void HomePipe::forget_node(NodeId node) {
  auto of_node = [&](const auto& waiting) { return waiting.operation.node == node; };
  std::erase_if(reads_, of_node);
  std::erase_if(writes_, of_node);
  std::erase_if(wakes_, [&](const auto& wake) { return wake.first.node == node; });
  update_watch();
}

void HomePipe::on_events(uint32_t events) {
  while (!reads_.empty() && try_read(reads_.front().size, false, reads_.front().reply))
    reads_.pop_front();
  while (!writes_.empty()) {
    WaitingWrite& first = writes_.front();
    const size_t before = first.written;
    if (!try_write(first.data, first.written, false, first.reply)) {
      first.data.erase(0, first.written - before);
      break;
    }
    writes_.pop_front();
  }
  if (events & (awaited_by_wakes_ | EPOLLHUP | EPOLLERR)) {
    awaited_by_wakes_ = 0;
    for (auto& [poller, wake] : std::exchange(wakes_, {})) wake();
  }
  update_watch();
}

// Watches for exactly what somebody waits for: a level-triggered watch on anything else would spin.
void HomePipe::update_watch() {
  uint32_t wanted = awaited_by_wakes_;
  if (!reads_.empty()) wanted |= EPOLLIN;
  if (!writes_.empty()) wanted |= EPOLLOUT;
  if (wanted == 0) return watch_.reset();
  if (watch_) return watch_.set_events(wanted);
  auto made = loop_.watch(real(), wanted, [this](uint32_t events) { on_events(events); });
  check(made.has_value(), "a pipe can be watched");
  watch_ = std::move(*made);
}

}  // namespace krg
