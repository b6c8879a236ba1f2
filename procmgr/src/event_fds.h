// Event descriptors: eventfd, timerfd, signalfd and epoll instances, which no path leads to: what
// the kernel tells of one makes another like it on another node. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"
#include "process_fds.h"

namespace krg {

// The last two are of checkpoints only: of a process that moves they are streams.
enum class EventKind : uint32_t { kEvent, kTimer, kSignal, kPoll, kInotify, kPidfd };

// One of the first four; nothing for another kind of descriptor.
std::optional<EventKind> event_kind_of(const StolenFd& fd);

// What make_event_fd() needs to know of descriptor `number` of `pid` (its fdinfo, proc(5)). Errors:
// ENOTSUP: this kernel does not tell all; ESRCH.
Result<std::string> describe_event_fd(pid_t pid, int number, EventKind kind);

// Such a descriptor stays where it is when its process moves, and is read or polled there.
bool is_inotify(const StolenFd& fd);
// The master of a pseudo-terminal.
bool is_pty_master(const StolenFd& fd);
bool is_pidfd(const StolenFd& fd);
// Whose a pidfd is; -1: one that has ended and been waited for; 0: one outside of the session.
// Errors: ENOTSUP: a thread's.
Result<pid_t> process_of_pidfd(const StolenFd& fd);

// Of several numbers for one description in `pid`, the least; `number` itself when it is the only
// one. `all`: the process's descriptors.
int first_of_description(pid_t pid, int number, const std::vector<StolenFd>& all);

// The descriptors of this node's processes other than `pid`, those of `left_out`, and krgd: procfs
// is searched when first asked, and once. Threads: one at a time.
class OthersDescriptors {
 public:
  explicit OthersDescriptors(pid_t pid, std::set<pid_t> left_out = {})
      : pid_(pid), left_out_(std::move(left_out)) {}
  // Whether one of them is of the same description as `fd` (its copy).
  bool have(const StolenFd& fd);
  // Whether one of them is shown by that link.
  bool have_link(const std::string& link);

 private:
  void look();
  struct Number {
    pid_t pid;
    int number;
  };
  const pid_t pid_;
  const std::set<pid_t> left_out_;
  // By what their links say.
  std::optional<std::unordered_multimap<std::string, Number>> known_;
};

// What an eventfd of krgd's has counted; 0: it is none.
uint64_t count_of_eventfd(int fd);
// Whether a read of an eventfd may be told not to wait, so that krgd can read one that others read,
// too.
bool can_read_eventfds_at_once();

// `flags`: O_NONBLOCK or 0. An epoll instance is empty: its descriptors are added by the process
// that has them (polled_by()). Errors: EPROTO, those of making it.
Result<UniqueFd> make_event_fd(EventKind kind, std::string_view description, int flags);

// What an epoll instance watches.
struct PolledFd {
  int number = -1;
  uint32_t events = 0;
  uint64_t data = 0;
  uint64_t inode = 0;
  bool is_socket = false;
};
std::vector<PolledFd> polled_by(std::string_view description);
// The description of one that does not watch that.
std::string without_polled(std::string_view description, const PolledFd& left_out);
// Whether the `place`th, from 0, of those that the epoll instance `epoll` watches by `number` is
// the description of `fd`; both are descriptors of krgd's.
bool is_polled(int epoll, int number, uint32_t place, int fd);

}  // namespace krg
