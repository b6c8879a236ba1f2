// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/remote_children.h"

#include <fmt/core.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <cstring>
#include <map>

#include "exec_messages.h"
#include "ipc/waiting_calls.h"
#include "native_children.h"
#include "process_status.h"
#include "wait_status.h"

namespace krg {
namespace {

using namespace exec_messages;
using Call = SyscallBroker::Call;

// How often a blocked wait looks for native children that have ended, and for changes at the origin
// of which no signal told (SIGCHLD is ignored).
constexpr std::chrono::milliseconds kNativeTick{20};
constexpr unsigned kTicksPerQuestion = 25;

// What a wait asks for, whichever of the two calls it is.
struct Wanted {
  int id_type = P_ALL;
  pid_t id = 0;
  int options = 0;
};

Wanted wanted_of(const Call& call) {
  if (call.number() == SYS_waitid)
    return {static_cast<int>(call.arg(0)), static_cast<pid_t>(call.arg(1)),
            static_cast<int>(call.arg(3))};
  const auto pid = static_cast<pid_t>(call.arg(0));
  const int options = static_cast<int>(call.arg(2)) | WEXITED;
  if (pid > 0) return {P_PID, pid, options};
  if (pid == -1) return {P_ALL, 0, options};
  return {P_PGID, -pid, options};
}

template <class T>
bool put(const Call& call, unsigned argument, const T& value) {
  if (call.arg(argument) == 0) return true;
  return call
      .write_memory(RemoteAddr{call.arg(argument)},
                    {reinterpret_cast<const char*>(&value), sizeof value})
      .has_value();
}

void answer(Call call, const ChildChange& change) {
  bool written = true;
  if (call.number() == SYS_wait4) {
    if (change.pid != 0) {
      written =
          put(call, 1, wait_status_of(change.code, change.status)) && put(call, 3, change.usage);
    }
    return written ? call.succeed(change.pid) : call.fail(EFAULT);
  }
  siginfo_t info{};
  if (change.pid != 0) {
    info.si_signo = SIGCHLD;
    info.si_code = change.code;
    info.si_pid = change.pid;
    info.si_uid = change.uid;
    info.si_status = change.status;
  }
  // The kernel writes some fields only; the rest of the program's siginfo_t stays undefined.
  written = put(call, 2, info) && (change.pid == 0 || put(call, 4, change.usage));
  written ? call.succeed(0) : call.fail(EFAULT);
}

}  // namespace

struct RemoteChildren::Impl : std::enable_shared_from_this<Impl> {
  // A wait that krgd has in hand.
  struct Waiting {
    pid_t body = 0;
    Wanted wanted;
    std::vector<NodeId> to_ask = {};  // those that this round has still to ask, the last first
    bool is_elsewhere = false;        // the kernel here knows of no such child
    bool may_come = false;            // one of those asked has such a child
    bool asking = false;
    bool ask_again = false;  // something changed meanwhile
    bool interrupted = false;
  };

  NodeContext& node;
  ProcessTable& table;
  ProcessOfPidfd process_of_pidfd;
  ExitWatch exits;
  WaitingCalls calls;
  std::map<uint64_t, Waiting> waiting;  // by the number of the call
  EventLoop::Timer tick;
  unsigned ticks = 0;

  Impl(NodeContext& n, ProcessTable& t, ProcessOfPidfd of_pidfd)
      : node(n),
        table(t),
        process_of_pidfd(std::move(of_pidfd)),
        exits(n.loop, [this](pid_t pid) { calls.process_ended(pid); }),
        calls(n.loop, exits) {}

  bool takes(Call& call);
  void ask(uint64_t number);
  void ask_next(uint64_t number);
  void on_reply(uint64_t number, NodeId where, const Result<std::string>& reply);
  void on_no_child(const Waiting& entry, NodeId where, int error);
  void on_nothing_yet(uint64_t number);
  void go_on(uint64_t number);
  void end(uint64_t number, WaitingCalls::Why why);
  void look();
};

bool RemoteChildren::Impl::takes(Call& call) {
  auto caller = read_process_status(call.tid());
  const ProcessTable::Body* body = caller ? table.find_body(caller->pid) : nullptr;
  if (!body) return false;
  Waiting entry;
  entry.body = caller->pid;
  entry.wanted = wanted_of(call);
  if (entry.wanted.id_type == P_PIDFD)
    if (auto process = process_of_pidfd(call.tid(), entry.wanted.id)) {
      entry.wanted = {P_PID, *process, entry.wanted.options};
      entry.is_elsewhere = true;
    }
  if (body->children_on.empty()) {
    if (entry.is_elsewhere) call.fail(ECHILD);
    return entry.is_elsewhere;
  }
  WaitingCalls::Wait wait;
  wait.restart = WaitingCalls::Restart::kAsHandlerSays;
  wait.has_to_stop = [this, body = caller->pid] { return table.ends_waits_for_children(body); };
  auto number = std::make_shared<uint64_t>(0);
  wait.end = [this, number](WaitingCalls::Why why) { end(*number, why); };
  *number = calls.begin(std::move(call), caller->pid, std::move(wait));
  waiting.emplace(*number, entry);
  if (!tick) tick = node.loop.every(kNativeTick, [this] { look(); });
  ask(*number);
  return true;
}

// One node after the other: a child of the second must not be waited for and lost because the first
// has one, too.
void RemoteChildren::Impl::ask(uint64_t number) {
  Waiting& entry = waiting.at(number);
  if (entry.asking) {
    entry.ask_again = true;
    return;
  }
  const ProcessTable::Body* body = table.find_body(entry.body);
  if (!body) return;  // it is ending
  if (body->children_on.empty()) return go_on(number);
  entry.asking = true;
  entry.ask_again = entry.may_come = false;
  entry.to_ask = body->children_on;
  ask_next(number);
}

void RemoteChildren::Impl::ask_next(uint64_t number) {
  Waiting& entry = waiting.at(number);
  const NodeId where = entry.to_ask.back();
  entry.to_ask.pop_back();
  WaitForChild wait;
  wait.pid = entry.body;
  wait.id_type = entry.wanted.id_type;
  wait.id = entry.wanted.id;
  wait.options = entry.wanted.options;
  node.messenger.request(where, wait, {},
                         [weak = weak_from_this(), number, where](Result<std::string> reply) {
                           if (auto self = weak.lock()) self->on_reply(number, where, reply);
                         });
}

void RemoteChildren::Impl::on_reply(uint64_t number, NodeId where,
                                    const Result<std::string>& reply) {
  auto found = waiting.find(number);
  if (found == waiting.end()) return;
  Waiting& entry = found->second;
  ChildChange change;
  if (reply && reply->size() == sizeof change) {
    memcpy(&change, reply->data(), sizeof change);
    entry.may_come = true;
  } else if (!reply) {
    on_no_child(entry, where, reply.error().errno_or(ECHILD));
  }
  if (change.pid != 0) {
    waiting.erase(found);
    return answer(calls.finish(number), change);
  }
  if (!entry.to_ask.empty()) return ask_next(number);
  entry.asking = false;
  // None anywhere that the call could mean: it may mean a native one, the kernel says.
  entry.may_come ? on_nothing_yet(number) : go_on(number);
}

void RemoteChildren::Impl::on_no_child(const Waiting& entry, NodeId where, int error) {
  ProcessTable::Body* body = table.find_body(entry.body);
  if (!body) return;
  // A guardian stays till its process moves (ReleaseGuardian).
  const bool has_none = error == ECHILD && entry.wanted.id_type == P_ALL && where == body->origin;
  if (has_none || error == EHOSTDOWN) std::erase(body->children_on, where);
}

void RemoteChildren::Impl::on_nothing_yet(uint64_t number) {
  const Waiting entry = waiting.at(number);
  if (has_ended_child(entry.body, {entry.wanted.id_type, entry.wanted.id})) return go_on(number);
  if (entry.wanted.options & WNOHANG) {
    waiting.erase(number);
    return answer(calls.finish(number), {});
  }
  if (entry.interrupted) {
    waiting.erase(number);
    return calls.interrupted(number);
  }
  if (entry.ask_again) ask(number);
}

void RemoteChildren::Impl::go_on(uint64_t number) {
  const bool is_elsewhere = waiting.at(number).is_elsewhere;
  waiting.erase(number);
  if (is_elsewhere) return calls.finish(number).fail(ECHILD);
  calls.finish(number).go_on();
}

void RemoteChildren::Impl::end(uint64_t number, WaitingCalls::Why why) {
  auto found = waiting.find(number);
  if (found == waiting.end()) return;
  if (why == WaitingCalls::Why::kGone) {
    waiting.erase(found);
    return calls.finish(number).fail(ESRCH);
  }
  // A child that the origin may have waited for by now is told first.
  found->second.interrupted = true;
  ask(number);
}

void RemoteChildren::Impl::look() {
  ++ticks;
  std::vector<uint64_t> numbers;
  for (const auto& [number, entry] : waiting) numbers.push_back(number);
  for (uint64_t number : numbers) {
    const Waiting& entry = waiting.at(number);
    if (entry.asking) continue;
    if (has_ended_child(entry.body, {entry.wanted.id_type, entry.wanted.id}))
      go_on(number);
    else if (ticks % kTicksPerQuestion == 0)
      ask(number);
  }
  if (waiting.empty()) tick.reset();
}

RemoteChildren::RemoteChildren(NodeContext& node, SyscallBroker& broker, ProcessTable& table,
                               ProcessOfPidfd process_of_pidfd)
    : impl_(std::make_shared<Impl>(node, table, std::move(process_of_pidfd))) {
  for (int number : {SYS_wait4, SYS_waitid})
    broker.set_taker(number, [impl = impl_.get()](Call& call) { return impl->takes(call); });
}
RemoteChildren::~RemoteChildren() = default;

void RemoteChildren::child_changed(pid_t body) {
  std::vector<uint64_t> numbers;
  for (const auto& [number, entry] : impl_->waiting)
    if (entry.body == body) numbers.push_back(number);
  for (uint64_t number : numbers) impl_->ask(number);
}

}  // namespace krg
