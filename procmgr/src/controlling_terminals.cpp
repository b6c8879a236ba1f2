// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/controlling_terminals.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstring>

#include "job_control.h"
#include "krg/runtime/log.h"
#include "packed_bytes.h"
#include "process_status.h"
#include "terminal_mirrors.h"
#include "tty_tree.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;
using Source = TerminalMirrors::Source;

constexpr pid_t kKrgd = 1;

// The terminal behind a descriptor; 0: it is none. krgd must not ask the krgfs that it serves.
dev_t terminal_of(pid_t tid, int number) {
  struct statx got {};
  const std::string path = fmt::format("/proc/{}/fd/{}", tid, number);
  if (statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC, STATX_TYPE, &got) != 0) return 0;
  return S_ISCHR(got.stx_mode) ? makedev(got.stx_rdev_major, got.stx_rdev_minor) : 0;
}

}  // namespace

struct ControllingTerminals::Impl : std::enable_shared_from_this<Impl> {
  using Done = std::function<void(Result<TerminalJobAnswer>)>;

  Impl(NodeContext& context, ProcessTable& processes, Descriptors& descriptors, ShadowHost& host)
      : node(context), table(processes), mirrors(descriptors.terminals()), shadows(host) {
    mirrors.set_may_read(
        [this](pid_t body, const Source& source, std::function<void(Status)> done) {
          may_read(body, source, done);
        });
  }

  void on_ioctl(Call call);
  void set_foreground(Call call, TerminalJob ask, pid_t body);
  void ask(const TerminalJob& message, pid_t body, Done done);
  void may_read(pid_t body, const Source& source, const std::function<void(Status)>& done);
  void on_job(const TerminalJob& message, Done done);
  void answer_at_home(const TerminalJob& message, const Done& done);
  pid_t body_above(pid_t pid) const;
  bool is_group_of_this_node(pid_t group) const;
  void find_tty(const FsCaller& caller, FsReply<std::string> reply);

  NodeContext& node;
  ProcessTable& table;
  TerminalMirrors& mirrors;
  ShadowHost& shadows;
  TtyTree tree{[this](const FsCaller& caller, FsReply<std::string> reply) {
    find_tty(caller, std::move(reply));
  }};
};

// The body that a process is or descends from, 0 when none: what founded a session of its own has
// left that body's terminal.
pid_t ControllingTerminals::Impl::body_above(pid_t pid) const {
  while (pid > kKrgd) {
    auto status = read_process_status(pid);
    if (!status || status->session != getsid(0)) return 0;
    if (table.find_body(status->pid)) return status->pid;
    if (table.find_group(status->group)) return status->group;
    pid = status->parent;
  }
  return 0;
}

// Made by a process below a body: it is no body's, whose group is known by its shadow's.
bool ControllingTerminals::Impl::is_group_of_this_node(pid_t group) const {
  return group > 0 && !table.find_group(group) && kill(-group, 0) == 0;
}

void ControllingTerminals::Impl::on_ioctl(Call call) {
  const pid_t body = table.bodies().empty() ? 0 : body_above(call.tid());
  if (body == 0) return call.go_on();
  const dev_t terminal = terminal_of(call.tid(), static_cast<int>(call.arg(0)));
  const std::optional<Source> source = mirrors.source_of(terminal);
  if (!source) return call.go_on();
  TerminalJob message;
  message.home_node = source->home.value;
  message.home = source->id;
  const auto request = static_cast<uint32_t>(call.arg(1));
  // It is the controlling terminal of the session that it was brought from.
  if (request == TIOCSCTTY) return call.fail(EPERM);
  if (request == TIOCSPGRP) return set_foreground(std::move(call), message, body);
  auto waiting = std::make_shared<Call>(std::move(call));
  ask(message, body, [waiting, request](Result<TerminalJobAnswer> answer) {
    if (!answer) return waiting->fail(answer.error().errno_or(ENOTTY));
    const int32_t value = request == TIOCGSID ? answer->session : answer->foreground;
    if (!waiting->is_valid()) return;
    if (!waiting->write_memory(RemoteAddr{waiting->arg(2)}, object_bytes(value)))
      return waiting->fail(EFAULT);
    waiting->succeed(0);
  });
}

void ControllingTerminals::Impl::set_foreground(Call call, TerminalJob message, pid_t body) {
  auto group = call.read_memory(RemoteAddr{call.arg(2)}, sizeof message.group);
  if (!group) return call.fail(EFAULT);
  std::memcpy(&message.group, group->data(), sizeof message.group);
  if (message.group < 0) return call.fail(EINVAL);
  message.set = 1;
  auto waiting = std::make_shared<Call>(std::move(call));
  ask(message, body, [waiting](Result<TerminalJobAnswer> answer) {
    if (!answer) return waiting->fail(answer.error().errno_or(ENOTTY));
    waiting->succeed(0);
  });
}

// What a process below `body` asks: known here while a job of a shell here has the terminal, else
// where the body's shadow is.
void ControllingTerminals::Impl::ask(const TerminalJob& message, pid_t body, Done done) {
  const ProcessTable::Body* found = table.find_group(body);
  if (!found) return done(errno_error("no body", ENOTTY));
  const NodeId home{message.home_node};
  const pid_t below = mirrors.foreground(body, home, message.home);
  TerminalJob onward = message;
  onward.pid = body;
  if (message.set) {
    const bool is_below = is_group_of_this_node(message.group);
    mirrors.set_foreground(body, home, message.home, is_below ? message.group : 0);
    // With a job of the body, or the body itself, in the foreground, its shadow's group is at home.
    if (is_below || message.group == body) onward.group = found->virtual_group;
  }
  node.messenger.request(
      found->origin, onward, {},
      [done = std::move(done), below, set = message.set](Result<std::string> reply) {
        if (!reply) return done(reply.error());
        TerminalJobAnswer answer;
        if (reply->size() != sizeof answer) return done(errno_error("terminal", EPROTO));
        std::memcpy(&answer, reply->data(), sizeof answer);
        if (!set && below != 0) answer.foreground = below;
        done(answer);
      });
}

// The shadow `message.pid` is here.
void ControllingTerminals::Impl::on_job(const TerminalJob& message, Done done) {
  if (message.home_node == node.self.value) return answer_at_home(message, done);
  const pid_t body = body_above(message.pid);
  if (body == 0) return done(errno_error("not its controlling terminal", ENOTTY));
  if (message.read) {
    const pid_t foreground = mirrors.receivers(body, NodeId{message.home_node}, message.home);
    if (stop_if_in_background(getpgid(message.pid), foreground))
      return done(errno_error("in the background", EAGAIN));
  }
  ask(message, body, std::move(done));
}

void ControllingTerminals::Impl::may_read(pid_t body, const Source& source,
                                          const std::function<void(Status)>& done) {
  TerminalJob message;
  message.home_node = source.home.value;
  message.home = source.id;
  message.read = 1;
  ask(message, body, [done](const Result<TerminalJobAnswer>& answer) {
    // Where it is no controlling terminal, job control says nothing of it.
    if (!answer && answer.error().errno_or(0) != ENOTTY) return done(answer.error());
    done({});
  });
}

void ControllingTerminals::Impl::answer_at_home(const TerminalJob& message, const Done& done) {
  const JobControl shadow = job_control_of(message.pid);
  if (shadow.terminal == 0) return done(errno_error("not its controlling terminal", ENOTTY));
  if (message.read && stop_if_in_background(shadow.group, shadow.foreground))
    return done(errno_error("in the background", EAGAIN));
  const TerminalJobAnswer now{shadow.foreground, shadow.session};
  if (!message.set || message.group == shadow.foreground) return done(now);
  shadows.set_foreground(GlobalPid{message.pid}, message.group, [done, now](Status changed) {
    changed ? done(now) : done(changed.error());
  });
}

// A process that has no controlling terminal any more (setsid) is left to the real /dev/tty: ENXIO.
void ControllingTerminals::Impl::find_tty(const FsCaller& caller, FsReply<std::string> reply) {
  const std::string native = node.paths.session_root + "/tty";
  const pid_t body = table.bodies().empty() ? 0 : body_above(caller.tid);
  const std::string slave = body == 0 ? "" : mirrors.slave_of(body);
  const std::optional<Source> source = mirrors.source_of(slave);
  if (!source) return reply(native);
  TerminalJob message;
  message.home_node = source->home.value;
  message.home = source->id;
  auto later = std::make_shared<FsReply<std::string>>(std::move(reply));
  ask(message, body,
      [later, native, slave, uid = caller.uid](const Result<TerminalJobAnswer>& answer) {
        if (!answer) return (*later)(native);
        // At home the terminal belongs to its user, too; krgd made this one.
        if (chown(slave.c_str(), uid, static_cast<gid_t>(-1)) != 0)
          log_debug("tty", "chown of {}: {}", slave, errno);
        (*later)(slave);
      });
}

ControllingTerminals::ControllingTerminals(NodeContext& node, SessionFs& fs, SyscallBroker& broker,
                                           ProcessTable& table, Descriptors& descriptors,
                                           ShadowHost& shadows)
    : impl_(std::make_shared<Impl>(node, table, descriptors, shadows)) {
  fs.add_tree(kTree, impl_->tree);
  broker.set_handler(SYS_ioctl,
                     [impl = impl_.get()](Call call) { impl->on_ioctl(std::move(call)); });
  node.messenger.on_request<TerminalJob>([impl = impl_.get()](NodeId, const TerminalJob& message,
                                                              std::string_view,
                                                              Messenger::Reply reply) {
    auto waiting = std::make_shared<Messenger::Reply>(std::move(reply));
    impl->on_job(message, [waiting](Result<TerminalJobAnswer> answer) {
      if (!answer) return waiting->fail(answer.error().errno_or(ENOTTY));
      waiting->ok(object_bytes(*answer));
    });
  });
}
ControllingTerminals::~ControllingTerminals() = default;

std::optional<pid_t> ControllingTerminals::receiver(pid_t body, const SignalInfo& signal) const {
  if (signal.code != SI_KERNEL) return body;
  switch (signal.signal) {
    case SIGWINCH:
      if (!impl_->mirrors.slave_of(body).empty()) return std::nullopt;
      return body;
    case SIGINT:
    case SIGQUIT:
    case SIGTSTP: {
      const pid_t below = impl_->mirrors.foreground(body);
      return below != 0 ? below : body;
    }
    default:
      return body;
  }
}

}  // namespace krg
