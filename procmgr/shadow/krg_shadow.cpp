// krg_shadow: keeps the place of a process whose body executes on another node: its pid, parent,
// group, session. It passes every signal to krgd and ends, stops and changes its group as krgd
// tells it. Freestanding (no C library) and one page long, so that turning into it costs little.
//
// It starts with all signals blocked and its control socket at kShadowControlFd. It ends when krgd
// goes. Source: signalfd(2), signal(7). SPDX-License-Identifier: GPL-2.0-or-later
#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/close_range.h>
#include <linux/poll.h>
#include <linux/resource.h>
#include <linux/signalfd.h>
#include <linux/socket.h>
#include <linux/wait.h>

#include "../include/krg/procmgr/unnotified_cookie.h"
#include "../src/shadow_protocol.h"

namespace {

using krg::ShadowCommand;
using krg::ShadowReport;
using krg::ShadowVerb;

constexpr uint64_t kAllSignals = ~uint64_t{0};
constexpr int kNoSignalPipe = 0x4000;     // MSG_NOSIGNAL
constexpr int kCloseOnExec = 0x40000000;  // MSG_CMSG_CLOEXEC

struct KernelSignalAction {
  uint64_t handler, flags, restorer, mask;
};

// The shadow is under the session's filter: what it does is meant for the kernel.
long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
          long f = krg::kUnnotifiedCookie) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}
long address(const void* pointer) {
  return reinterpret_cast<long>(pointer);
}

void report(const ShadowReport& r) {
  call(__NR_sendto, krg::kShadowControlFd, address(&r), sizeof r, kNoSignalPipe, 0,
       0);  // six arguments of its own
}

// Takes the default action of `signal`, which is blocked before and afterwards.
void take_default_action(int signal) {
  KernelSignalAction action{};
  const uint64_t only = uint64_t{1} << (signal - 1);
  call(__NR_rt_sigaction, signal, address(&action), 0, sizeof only);
  call(__NR_kill, call(__NR_getpid), signal);
  call(__NR_rt_sigprocmask, SIG_UNBLOCK, address(&only), 0, sizeof only);
  call(__NR_rt_sigprocmask, SIG_BLOCK, address(&only), 0, sizeof only);
}

[[noreturn]] void end(int code) {
  for (;;) call(__NR_exit_group, code);
}

[[noreturn]] void die(int signal) {
  const rlimit no_core{0, 0};
  call(__NR_setrlimit, RLIMIT_CORE, address(&no_core));
  take_default_action(signal);
  end(128 + signal);  // a signal whose default action does not kill
}

void answer(long result) {
  ShadowReport r{};
  r.kind = ShadowReport::kAnswer;
  r.result = static_cast<int32_t>(result);
  report(r);
}

// Back from a stop, hence after a SIGCONT. A stop signal that came right behind it has flushed it
// from the pending ones (signal(7)): the body must still hear of it first.
void report_lost_continue() {
  uint64_t pending = 0;
  call(__NR_rt_sigpending, address(&pending), sizeof pending);
  if (pending >> (SIGCONT - 1) & 1) return;  // it will be read and passed on
  ShadowReport r{};
  r.kind = ShadowReport::kSignal;
  r.signal = SIGCONT;
  r.sender = static_cast<int32_t>(call(__NR_getpid));
  report(r);
}

void report_back() {
  ShadowReport r{};
  r.kind = ShadowReport::kContinued;
  report(r);
}

// SIGTTOU is blocked, so a shadow in the background may do this, as a shell does.
long set_foreground(int group) {
  const long terminal = call(__NR_open, address("/dev/tty"), O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0) return terminal;
  const long result = call(__NR_ioctl, terminal, TIOCSPGRP, address(&group));
  call(__NR_close, terminal);
  return result;
}

// The body has left its children here.
void wait_for_child(const ShadowCommand& command) {
  ShadowReport r{};
  siginfo_t info{};
  r.kind = ShadowReport::kAnswer;
  r.result = static_cast<int32_t>(call(__NR_waitid, command.argument, command.id, address(&info),
                                       command.options | WNOHANG, address(r.usage)));
  r.signal = info.si_status;
  r.code = info.si_code;
  r.sender = info.si_pid;
  r.sender_uid = info.si_uid;
  report(r);
}

// The locks of a process that has left are its shadow's, which is the same process to the kernel.
void lock(const ShadowCommand& command, int sent_file) {
  struct {
    int16_t type, whence;
    int32_t padding;
    int64_t start, length;
    int32_t pid;
  } lock{static_cast<int16_t>(command.options), 0, 0, command.start, command.length, 0};
  ShadowReport r{};
  r.kind = ShadowReport::kAnswer;
  r.signal = command.argument == krg::kSentFile ? sent_file : command.argument;
  r.result = static_cast<int32_t>(call(__NR_fcntl, r.signal, command.id, address(&lock)));
  r.code = lock.type;
  r.sender = lock.pid;
  r.usage[0] = static_cast<uint64_t>(lock.start);
  r.usage[1] = static_cast<uint64_t>(lock.length);
  report(r);
}

void obey(const ShadowCommand& command, int sent_file) {
  switch (command.verb) {
    case ShadowVerb::kExit:
      end(command.argument);
    case ShadowVerb::kDie:
      die(command.argument);
    case ShadowVerb::kStop:
      take_default_action(command.argument);
      report_lost_continue();
      return report_back();
    case ShadowVerb::kSetGroup:
      return answer(call(__NR_setpgid, 0, command.argument));
    case ShadowVerb::kSetSession:
      return answer(call(__NR_setsid));
    case ShadowVerb::kSetForeground:
      return answer(set_foreground(command.argument));
    case ShadowVerb::kWait:
      return wait_for_child(command);
    case ShadowVerb::kLock:
      return lock(command, sent_file);
    case ShadowVerb::kCloseFile:
      call(__NR_close, command.argument);
      return;
  }
}

void pass_signals_on(int signals) {
  signalfd_siginfo info;
  while (call(__NR_read, signals, address(&info), sizeof info) == sizeof info) {
    ShadowReport r{};
    r.kind = ShadowReport::kSignal;
    r.signal = static_cast<int32_t>(info.ssi_signo);
    r.code = info.ssi_code;
    r.sender = static_cast<int32_t>(info.ssi_pid);
    r.sender_uid = info.ssi_uid;
    // A child's end or stop has no value, but what wait(2) tells of it.
    r.value = info.ssi_signo == SIGCHLD ? static_cast<uint64_t>(info.ssi_status) : info.ssi_ptr;
    report(r);
  }
}

// Reads a command, and the file that may come with it.
long receive(ShadowCommand& command, int& file) {
  struct {
    uint64_t length;
    int32_t level, type;
    int32_t file, padding;
  } ancillary{};
  struct {
    void* base;
    uint64_t length;
  } vector{&command, sizeof command};
  struct {
    void* name;
    uint64_t name_length;
    void* vectors;
    uint64_t count;
    void* control;
    uint64_t control_length;
    uint64_t flags;
  } message{nullptr, 0, &vector, 1, &ancillary, sizeof ancillary, 0};
  const long got = call(__NR_recvmsg, krg::kShadowControlFd, address(&message), kCloseOnExec);
  file = message.control_length != 0 ? ancillary.file : -1;
  return got;
}

}  // namespace

// `stack`: as the kernel leaves it for a new program: argc, argv, a null pointer, the environment.
// One whose environment is not empty has files that it is to keep, and no others.
extern "C" [[noreturn]] void krg_shadow_main(const uint64_t* stack) {
  const bool keeps_files = stack[stack[0] + 2] != 0;
  call(__NR_rt_sigprocmask, SIG_SETMASK, address(&kAllSignals), 0, sizeof kAllSignals);
  call(__NR_chdir, address("/"));
  if (!keeps_files) call(__NR_close_range, krg::kShadowControlFd + 1, ~0U, 0);
  const int signals = static_cast<int>(
      call(__NR_signalfd4, -1, address(&kAllSignals), sizeof kAllSignals, O_NONBLOCK | O_CLOEXEC));
  for (;;) {
    pollfd wanted[] = {{krg::kShadowControlFd, POLLIN, 0}, {signals, POLLIN, 0}};
    call(__NR_poll, address(wanted), 2, -1);
    if (wanted[1].revents) pass_signals_on(signals);
    if (!wanted[0].revents) continue;
    ShadowCommand command;
    int sent_file;
    const long got = receive(command, sent_file);
    if (got == sizeof command) obey(command, sent_file);
    if (got == 0) die(SIGKILL);  // krgd has gone, and its session with it
  }
}

asm(".globl _start\n"
    "_start:\n"
    "  xor %ebp, %ebp\n"
    "  mov %rsp, %rdi\n"
    "  and $-16, %rsp\n"
    "  call krg_shadow_main\n");
