// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/remote_fork.h"

#include <fmt/core.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <map>

#include "exec_messages.h"
#include "fork_habits.h"
#include "image/frozen_process.h"
#include "image/install_parts.h"
#include "image/large_fork.h"
#include "image/listener_habits.h"
#include "krg/procmgr/shared_memory.h"
#include "krg/runtime/log.h"
#include "named_functions.h"
#include "native_children.h"
#include "process_status.h"

namespace krg {
namespace {

using namespace exec_messages;

// By then a child that was forked to exec has done so.
constexpr std::chrono::milliseconds kLookAfter{30};
// By then one that means to close its listening sockets has done so, however busy the node is.
constexpr std::chrono::milliseconds kLookAtLast{1000};
// What a fork that is no thread and no container may ask of clone(2).
constexpr uint64_t kForkFlags =
    CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID | CLONE_SETTLS;

bool is_plain_fork(const SyscallBroker::Call& call) {
  if (call.number() == SYS_fork) return true;
  return call.number() == SYS_clone && (call.arg(0) & ~kForkFlags) == SIGCHLD;
}

uint64_t now_in_ticks() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  const auto ticks = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  return static_cast<uint64_t>(now.tv_sec) * ticks +
         static_cast<uint64_t>(now.tv_nsec) * ticks / 1'000'000'000;
}

// Whether a child that the process has forked since then, in clock ticks since the boot, lives and
// has not execed.
bool has_child_that_runs_on(pid_t forker, uint64_t since) {
  const auto children = native_children(forker);
  return std::any_of(children.begin(), children.end(), [since](pid_t child) {
    const auto stat = read_process_stat(child);
    if (!stat || stat->is_zombie() || stat->start_time < since) return false;
    const auto caller = read_exec_caller(child);
    return caller && !caller->has_execed;
  });
}

}  // namespace

struct RemoteFork::Impl : std::enable_shared_from_this<Impl> {
  using Frozen = std::shared_ptr<FrozenProcess>;

  NodeContext& node;
  ExecPlacer::Parts parts;
  ProcessMover& mover;
  ForkHabits habits;
  ListenerHabits listeners{ListenerHabits::Of::kListeners}, events{ListenerHabits::Of::kEvents};
  // Moved, and may exec until the time is over.
  struct Undecided {
    ForkHabits::Program program;
    EventLoop::Timer timer;
  };
  std::map<pid_t, Undecided> undecided;
  // Forkers of which a child could not be made without their large memory, or not be moved: so many
  // of their next forks copy all of it, at each failure twice as many.
  struct Whole {
    unsigned forks = 0, next = 1;
  };
  std::map<pid_t, Whole> whole;
  std::map<ForkHabits::Program, bool> tracers;  // programs that may trace their children
  // Programs expected to exec whose last child is looked at soon.
  std::map<ForkHabits::Program, EventLoop::Timer> looks;
  // Children that have listening sockets, or event descriptors.
  std::map<std::pair<ListenerHabits*, pid_t>, EventLoop::Timer> watched;

  Impl(NodeContext& n, const ExecPlacer::Parts& p, ProcessMover& m) : node(n), parts(p), mover(m) {}

  void on_fork(SyscallBroker::Call fork);
  std::optional<KnownForkers::Forker> forker_that_moves(const SyscallBroker::Call& fork);
  bool has_to_be_followed(const SyscallBroker::Call& fork) const;
  bool may_trace(const KnownForkers::Forker& forker);
  bool takes_large_fork(const KnownForkers::Forker& forker, SyscallBroker::Call& fork);
  void move_large(const KnownForkers::Forker& forker, const std::shared_ptr<LargeFork>& fork,
                  NodeId target);
  void forks_whole(pid_t forker);
  void move(const KnownForkers::Forker& forker, Frozen child);
  bool may_go_with_listeners(pid_t forker, FrozenProcess& child, bool leaves);
  bool may_go_with(ListenerHabits& its_habits, pid_t forker, pid_t child,
                   const std::vector<ListeningFd>& fds, std::vector<ListeningFd>& goes_without);
  void look_later(ListenerHabits& its_habits, pid_t forker, pid_t child,
                  std::vector<std::chrono::milliseconds> waits);
  void moved(const ForkHabits::Program& program, pid_t child);
  void stays(const KnownForkers::Forker& forker);
};

// Most forks are none of our business: this is what they pay.
void RemoteFork::Impl::on_fork(SyscallBroker::Call fork) {
  const bool follows = has_to_be_followed(fork);
  const auto moves = forker_that_moves(fork);
  if (!follows && !moves) return;
  if (moves && !follows && takes_large_fork(*moves, fork)) return;
  const pid_t forker = fork.tid();
  auto asked = fork_and_freeze_child(
      *node.children, fork, [self = shared_from_this(), moves, follows](Result<Frozen> child) {
        if (!child) return;
        if (follows)
          if (auto served = follow_fork(**child, *self->parts.shared); !served)
            log_error("fork", "child {} has lost the memory that it shares: {}", (*child)->pid(),
                      served.error().message());
        if (moves) self->move(*moves, std::move(*child));
      });
  if (asked) return;
  log_debug("fork", "process {}: {}", forker, asked.error().message());
  if (follows) fork.fail(ENOMEM);
}

// One that has much memory: its child is made without most of that.
bool RemoteFork::Impl::takes_large_fork(const KnownForkers::Forker& forker,
                                        SyscallBroker::Call& fork) {
  const pid_t pid = forker.pid;
  if (!LargeFork::is_worth_it(pid)) return false;
  if (auto found = whole.find(pid); found != whole.end() && found->second.forks != 0) {
    --found->second.forks;
    return false;
  }
  // Whether the child goes along with these depends on what others have done.
  const ServerSockets had = server_sockets(pid);
  if (!had.listening.empty() || !had.events.empty()) return false;
  const NodeId target = parts.placement.choose(GlobalPid{pid});
  if (target == node.self) {
    parts.placement.ended(GlobalPid{pid});
    return false;
  }
  const auto known = [self = shared_from_this(), pid]() -> MappingTexts& {
    return self->mover.mappings_of_forker(pid);
  };
  auto taken = LargeFork::begin(
      *node.children, fork, known,
      [self = shared_from_this(), forker, target](Result<std::shared_ptr<LargeFork>> made) {
        if (made) return self->move_large(forker, *made, target);
        log_debug("fork", "process {} forks whole: {}", forker.pid, made.error().message());
        self->parts.placement.ended(GlobalPid{forker.pid});
        self->forks_whole(forker.pid);
      });
  if (!taken) parts.placement.ended(GlobalPid{pid});
  return taken.has_value();
}

void RemoteFork::Impl::move_large(const KnownForkers::Forker& forker,
                                  const std::shared_ptr<LargeFork>& fork, NodeId target) {
  const pid_t pid = fork->child()->pid();
  parts.placement.becomes(GlobalPid{forker.pid}, GlobalPid{pid});
  mover.move(fork, target, [self = shared_from_this(), forker, pid, target](Status how) {
    if (how) {
      self->whole.erase(forker.pid);
      return self->moved(forker.program, pid);
    }
    log_debug("fork", "child {} is not made on node {}: {}", pid, target.value,
              how.error().message());
    self->parts.placement.ended(GlobalPid{pid});
    self->forks_whole(forker.pid);
  });
}

// It makes its call once more, which is the first of these forks.
void RemoteFork::Impl::forks_whole(pid_t forker) {
  constexpr unsigned kMostInTurn = 64;
  if (whole.size() >= kMaxForkHabits) whole.clear();
  Whole& its = whole[forker];
  its.forks = its.next;
  its.next = std::min(2 * its.next, kMostInTurn);
}

// A forker whose child is to be moved.
std::optional<KnownForkers::Forker> RemoteFork::Impl::forker_that_moves(
    const SyscallBroker::Call& fork) {
  if (!parts.capabilities.any_distant_fork() || !is_plain_fork(fork)) return {};
  auto forker = parts.forkers.of(fork.tid());
  if (!forker || !forker->sets.effective.has(Capability::kDistantFork)) return {};
  if (habits.expects_exec(forker->program)) {  // it is placed then
    stays(*forker);
    return {};
  }
  if (parts.pages && parts.pages->is_receiving(forker->pid)) return {};  // its child has holes, too
  if (mover.moving() >= kMaxForksMoving) return {};
  if (may_trace(*forker)) return {};  // ptrace(2) reaches its own node only
  return std::move(*forker);
}

bool RemoteFork::Impl::may_trace(const KnownForkers::Forker& forker) {
  auto known = tracers.find(forker.program);
  if (known != tracers.end()) return known->second;
  if (tracers.size() >= kMaxForkHabits) tracers.clear();
  const auto names = names_function(fmt::format("/proc/{}/exe", forker.pid), "ptrace");
  return tracers[forker.program] = names && *names;
}

bool RemoteFork::Impl::has_to_be_followed(const SyscallBroker::Call& fork) const {
  if (!parts.shared || parts.shared->file_count() == 0) return false;
  auto process = read_process_status(fork.tid());
  return process && parts.shared->has_to_be_followed(process->pid);
}

void RemoteFork::Impl::move(const KnownForkers::Forker& forker, Frozen child) {
  const pid_t pid = child->pid();
  const NodeId target = parts.placement.choose(GlobalPid{pid});
  const bool may_go = may_go_with_listeners(forker.pid, *child, target != node.self);
  if (target == node.self) return;  // and goes on
  if (!may_go) return parts.placement.ended(GlobalPid{pid});
  mover.move(std::move(child), target, WhichFds::kForked,
             [self = shared_from_this(), program = forker.program, pid, target](Status how) {
               if (how) return self->moved(program, pid);
               log_debug("fork", "child {} stays, and not on node {}: {}", pid, target.value,
                         how.error().message());
               self->parts.placement.ended(GlobalPid{pid});
             });
}

// Who is there to accept shares them with its forker. A child that serves a connection may be about
// to close them, and so may one that has an event loop of its own: what its forker's children do is
// found out by those that stay here. What tells of events its forker has, too: nobody goes with it.
bool RemoteFork::Impl::may_go_with_listeners(pid_t forker, FrozenProcess& child, bool leaves) {
  ServerSockets had = server_sockets(child.pid());
  if (!had.has_connection) had.listening.clear();
  std::vector<ListeningFd> goes_without;
  const pid_t pid = child.pid();
  const bool may_go = may_go_with(listeners, forker, pid, had.listening, goes_without) &
                      may_go_with(events, forker, pid, had.events, goes_without);
  if (!may_go || !leaves || goes_without.empty()) return may_go;
  if (auto replaced = replace_by_null(child, goes_without); !replaced)
    log_debug("fork", "child {}: {}", pid, replaced.error().message());
  return true;
}

bool RemoteFork::Impl::may_go_with(ListenerHabits& its_habits, pid_t forker, pid_t child,
                                   const std::vector<ListeningFd>& fds,
                                   std::vector<ListeningFd>& goes_without) {
  if (fds.empty()) return true;
  switch (its_habits.expects(forker)) {
    case ListenerHabits::Expects::kKept:
      return &its_habits == &listeners;
    case ListenerHabits::Expects::kClosed:
      goes_without.insert(goes_without.end(), fds.begin(), fds.end());
      return true;
    case ListenerHabits::Expects::kNothing:
      look_later(its_habits, forker, child, {kLookAfter, kLookAtLast});
      return false;
  }
  return false;
}

void RemoteFork::Impl::look_later(ListenerHabits& its_habits, pid_t forker, pid_t child,
                                  std::vector<std::chrono::milliseconds> waits) {
  const auto wait = waits.front();
  waits.erase(waits.begin());
  auto timer = node.loop.after(wait, [this, &its_habits, forker, child, waits] {
    watched.erase({&its_habits, child});
    if (!its_habits.look_at(forker, child, waits.empty()))
      look_later(its_habits, forker, child, waits);
  });
  watched.insert_or_assign({&its_habits, child}, std::move(timer));
}

void RemoteFork::Impl::moved(const ForkHabits::Program& program, pid_t child) {
  auto timer = node.loop.after(kLookAfter, [this, child, program] {
    undecided.erase(child);
    habits.ran_on(program);
  });
  undecided.insert_or_assign(child, Undecided{program, std::move(timer)});
}

// Whether a child that was expected to exec has done so. One of each program at a time: those that
// fork often are not to pay for it.
void RemoteFork::Impl::stays(const KnownForkers::Forker& forker) {
  if (looks.contains(forker.program) || looks.size() >= kMaxForkHabits) return;
  auto timer = node.loop.after(kLookAtLast, [this, forker, since = now_in_ticks()] {
    looks.erase(forker.program);
    if (has_child_that_runs_on(forker.pid, since)) habits.ran_on(forker.program);
  });
  looks.emplace(forker.program, std::move(timer));
}

// --- the interface ------------------------------------------------------------------------------

RemoteFork::RemoteFork(NodeContext& node, const ExecPlacer::Parts& parts, ProcessMover& mover)
    : impl_(std::make_shared<Impl>(node, parts, mover)) {
  std::weak_ptr<Impl> weak = impl_;
  for (int number : {SYS_fork, SYS_clone})
    parts.broker.set_handler(number, [weak](SyscallBroker::Call fork) {
      if (auto self = weak.lock()) self->on_fork(std::move(fork));
    });
  node.messenger.on<BodyExeced>([weak](NodeId, const BodyExeced& execed, std::string_view) {
    auto self = weak.lock();
    if (!self) return;
    auto found = self->undecided.extract(execed.pid);
    if (!found.empty()) self->habits.execed(found.mapped().program);
  });
}
RemoteFork::~RemoteFork() = default;

void RemoteFork::child_execs(const KnownForkers::Program& forker) {
  impl_->habits.execed(forker);
}

}  // namespace krg
