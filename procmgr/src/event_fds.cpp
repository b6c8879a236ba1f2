// SPDX-License-Identifier: GPL-2.0-or-later
#include "event_fds.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

#include <algorithm>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <filesystem>

#include "family/family_terminals.h"
#include "process_spec.h"
#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr unsigned long kSetTicks = _IOW('T', 0, uint64_t);  // TFD_IOC_SET_TICKS

constexpr int kPidfdThread = O_EXCL;  // PIDFD_THREAD of pidfd_open(2), which older headers lack

bool is_same_description(pid_t a, int a_number, pid_t b, int b_number) {
  return syscall(SYS_kcmp, a, b, KCMP_FILE, a_number, b_number) == 0;
}

std::vector<int> numbers_in(const std::filesystem::path& folder) {
  std::vector<int> numbers;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error))
    if (auto number = to_number<int>(entry->path().filename().string())) numbers.push_back(*number);
  return numbers;
}

// The value behind `key` in fdinfo, read by `format`.
template <class... Values>
bool find(std::string_view text, std::string_view key, const char* format, Values*... values) {
  for (std::string_view rest = text; !rest.empty();) {
    const std::string line(next_line(rest));
    if (line.starts_with(key))
      return sscanf(line.c_str() + key.size(), format, values...) == sizeof...(values);
  }
  return false;
}

Error misread() {
  return errno_error("description of an event descriptor", EPROTO);
}

Result<UniqueFd> made(int fd, const char* what) {
  UniqueFd opened(fd);
  if (!opened) return errno_error(what);
  return opened;
}

Result<UniqueFd> make_event(std::string_view text, int flags) {
  uint64_t count = 0;
  int is_semaphore = 0;
  if (!find(text, "eventfd-count:", "%" SCNx64, &count) ||
      !find(text, "eventfd-semaphore:", "%d", &is_semaphore))
    return misread();
  auto fd = made(eventfd(0, EFD_CLOEXEC | flags | (is_semaphore ? EFD_SEMAPHORE : 0)), "eventfd");
  // A new one has room for any count.
  if (fd && count > 0 && write(fd->get(), &count, sizeof count) != sizeof count)
    return errno_error("eventfd");
  return fd;
}

Result<UniqueFd> make_timer(std::string_view text, int flags) {
  int clock = 0;
  uint64_t ticks = 0;
  int64_t s = 0, ns = 0, interval_s = 0, interval_ns = 0;
  if (!find(text, "clockid:", "%d", &clock) || !find(text, "ticks:", "%" SCNu64, &ticks) ||
      !find(text, "it_value:", " (%" SCNd64 ", %" SCNd64 ")", &s, &ns) ||
      !find(text, "it_interval:", " (%" SCNd64 ", %" SCNd64 ")", &interval_s, &interval_ns))
    return misread();
  auto fd = made(timerfd_create(clock, TFD_CLOEXEC | flags), "timerfd");
  if (!fd) return fd;
  // A periodic one that nobody has read since it expired stands still till then.
  const bool waits_for_reader = s == 0 && ns == 0 && ticks > 0;
  const timespec interval{interval_s, interval_ns};
  const itimerspec times{interval, waits_for_reader ? interval : timespec{s, ns}};
  if (timerfd_settime(fd->get(), 0, &times, nullptr) != 0) return errno_error("timerfd");
  if (ticks > 0 && ioctl(fd->get(), kSetTicks, &ticks) != 0)
    return errno_error("expirations of a timerfd");
  return fd;
}

Result<UniqueFd> make_signal(std::string_view text, int flags) {
  uint64_t mask = 0;
  if (!find(text, "sigmask:", "%" SCNx64, &mask)) return misread();
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal = 1; signal <= 64; ++signal)
    if (mask >> (signal - 1) & 1) sigaddset(&signals, signal);
  return made(signalfd(-1, &signals, SFD_CLOEXEC | flags), "signalfd");
}

// The device of all sockets, which have one file system.
unsigned device_of_sockets() {
  static const unsigned device = [] {
    const UniqueFd one(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    struct stat attributes {};
    return fstat(one.get(), &attributes) == 0 ? minor(attributes.st_dev) : 0;
  }();
  return device;
}

// "tfd:        5 events:       1d data: ffffffffffffffff  pos:0 ino:61af sdev:7"
std::optional<PolledFd> polled_of_line(const std::string& line) {
  PolledFd fd;
  unsigned device = 0;
  if (sscanf(line.c_str(),
             "tfd: %d events: %" SCNx32 " data: %" SCNx64 " pos:%*d ino:%" SCNx64 " sdev:%x",
             &fd.number, &fd.events, &fd.data, &fd.inode, &device) != 5)
    return std::nullopt;
  fd.is_socket = device != 0 && device == device_of_sockets();
  return fd;
}

}  // namespace

std::optional<EventKind> event_kind_of(const StolenFd& fd) {
  if (fd.link.starts_with("anon_inode:[eventfd")) return EventKind::kEvent;
  if (fd.link == "anon_inode:[timerfd]") return EventKind::kTimer;
  if (fd.link == "anon_inode:[signalfd]") return EventKind::kSignal;
  if (fd.link == "anon_inode:[eventpoll]") return EventKind::kPoll;
  return std::nullopt;
}

Result<std::string> describe_event_fd(pid_t pid, int number, EventKind kind) {
  auto text = read_whole_file(fmt::format("/proc/{}/fdinfo/{}", pid, number));
  if (!text || text->empty()) return errno_error("no such process", ESRCH);
  int value;
  if (kind == EventKind::kEvent && !find(*text, "eventfd-semaphore:", "%d", &value))
    return cannot_move("an eventfd of which this kernel does not tell enough");
  if (kind == EventKind::kTimer && !find(*text, "clockid:", "%d", &value))
    return cannot_move("a timerfd of which this kernel does not tell enough");
  return text;
}

bool is_inotify(const StolenFd& fd) {
  return fd.link == "anon_inode:inotify";
}

bool is_pty_master(const StolenFd& fd) {
  return S_ISCHR(fd.attributes.st_mode) && number_of_master(fd.copy.get());
}

bool is_pidfd(const StolenFd& fd) {
  return fd.link == "anon_inode:[pidfd]" || fd.link.starts_with("pidfd:");
}

Result<pid_t> process_of_pidfd(const StolenFd& fd) {
  if (fd.flags & kPidfdThread) return cannot_move("a pidfd of a thread");
  auto text = read_whole_file(fmt::format("/proc/self/fdinfo/{}", fd.copy.get()));
  int process = 0;
  if (!text || !find(*text, "Pid:", "%d", &process)) return misread();
  return process;
}

int first_of_description(pid_t pid, int number, const std::vector<StolenFd>& all) {
  const auto own =
      std::find_if(all.begin(), all.end(), [&](const StolenFd& fd) { return fd.number == number; });
  for (auto other = all.begin(); own != all.end() && other != all.end(); ++other)
    if (other->number < number && other->attributes.st_ino == own->attributes.st_ino &&
        other->attributes.st_dev == own->attributes.st_dev &&
        is_same_description(pid, number, pid, other->number))
      return other->number;
  return number;
}

void OthersDescriptors::look() {
  if (known_) return;
  known_.emplace();
  for (const pid_t other : numbers_in("/proc")) {
    if (other == pid_ || other == getpid() || left_out_.contains(other)) continue;
    const std::string folder = fmt::format("/proc/{}/fd", other);
    for (const int number : numbers_in(folder))
      if (auto link = read_link(fmt::format("{}/{}", folder, number)))
        known_->emplace(std::move(*link), Number{other, number});
  }
}

bool OthersDescriptors::have_link(const std::string& link) {
  look();
  return known_->contains(link);
}

bool OthersDescriptors::have(const StolenFd& fd) {
  look();
  const auto [first, last] = known_->equal_range(fd.link);
  return std::any_of(first, last, [&](const auto& like) {
    return is_same_description(getpid(), fd.copy.get(), like.second.pid, like.second.number);
  });
}

uint64_t count_of_eventfd(int fd) {
  uint64_t count = 0;
  auto text = read_whole_file(fmt::format("/proc/self/fdinfo/{}", fd));
  return text && find(*text, "eventfd-count:", "%" SCNx64, &count) ? count : 0;
}

bool can_read_eventfds_at_once() {
  static const bool can = [] {
    const UniqueFd own(eventfd(0, EFD_CLOEXEC));
    uint64_t value;
    const iovec one{&value, sizeof value};
    return preadv2(own.get(), &one, 1, -1, RWF_NOWAIT) < 0 && errno == EAGAIN;
  }();
  return can;
}

Result<UniqueFd> make_event_fd(EventKind kind, std::string_view description, int flags) {
  switch (kind) {
    case EventKind::kEvent:
      return make_event(description, flags);
    case EventKind::kTimer:
      return make_timer(description, flags);
    case EventKind::kSignal:
      return make_signal(description, flags);
    case EventKind::kPoll:
      return made(epoll_create1(EPOLL_CLOEXEC), "epoll");
    case EventKind::kInotify:
    case EventKind::kPidfd:
      break;  // made elsewhere
  }
  return misread();
}

std::vector<PolledFd> polled_by(std::string_view description) {
  std::vector<PolledFd> polled;
  for (std::string_view rest = description; !rest.empty();) {
    if (const auto fd = polled_of_line(std::string(next_line(rest)))) polled.push_back(*fd);
  }
  return polled;
}

std::string without_polled(std::string_view description, const PolledFd& left_out) {
  std::string kept;
  for (std::string_view rest = description; !rest.empty();) {
    const std::string line(next_line(rest));
    const auto fd = polled_of_line(line);
    if (!fd || fd->number != left_out.number || fd->inode != left_out.inode) kept += line + '\n';
  }
  return kept;
}

// kcmp(2), KCMP_EPOLL_TFD.
bool is_polled(int epoll, int number, uint32_t place, int fd) {
  const kcmp_epoll_slot slot{static_cast<uint32_t>(epoll), static_cast<uint32_t>(number), place};
  const pid_t self = getpid();
  return syscall(SYS_kcmp, self, self, KCMP_EPOLL_TFD, fd, &slot) == 0;
}

}  // namespace krg
