// SPDX-License-Identifier: GPL-2.0-or-later
#include "stand_in.h"

#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "raw_syscall.h"

namespace krg {
namespace {

// Everything that the child needs, made before it exists: it must not allocate.
struct Work {
  const Sender& sender;
  std::span<const RawCall> calls;
  std::span<int64_t> results;
};

// Takes the sender's identity. Each step may be refused where krgd is itself confined (a user
// namespace with one id): then sender and krgd are the same user anyway.
void take_credentials(const Credentials& who) {
  raw_call(SYS_prctl, PR_SET_KEEPCAPS, 1);
  raw_call(SYS_setresgid, who.real_gid, who.effective_gid, who.saved_gid);
  raw_call(SYS_setresuid, who.real_uid, who.effective_uid, who.saved_uid);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct own[2] = {}, wanted[2] = {};
  if (raw_call(SYS_capget, raw_address(&header), raw_address(own))) return;
  for (unsigned word = 0; word < 2; ++word) {
    const auto bits = static_cast<uint32_t>(who.effective_capabilities >> (32 * word));
    wanted[word].effective = wanted[word].permitted = bits & own[word].permitted;
  }
  raw_call(SYS_capset, raw_address(&header), raw_address(wanted));
}

[[noreturn]] __attribute__((noinline)) void run_child(const Work& work) {
  take_credentials(work.sender.credentials);
  for (size_t i = 0; i < work.calls.size(); ++i) {
    const RawCall& call = work.calls[i];
    const auto& a = call.args;
    work.results[i] = raw_call(call.number, a[0], a[1], a[2], a[3], a[4], a[5]);
  }
  raw_call(SYS_exit_group, 0);
  __builtin_unreachable();
}

// Starts the child on this very stack and waits until it has gone, as vfork(2) does: clone3 is
// inlined, so that no frame is returned from twice. Returns its pid or -errno. Not for
// AddressSanitizer: before a call that does not return it takes the whole stack, which the parent
// goes on to use, for dead.
__attribute__((noinline, no_sanitize("address"))) int64_t run_in_child(const Work& work,
                                                                       pid_t* pid) {
  clone_args args{};
  args.flags = CLONE_VM | CLONE_VFORK;
  args.exit_signal = 0;  // not for the ChildReaper
  if (pid != nullptr) {
    args.set_tid = reinterpret_cast<uint64_t>(pid);
    args.set_tid_size = 1;
  }
  int64_t child;
  asm volatile("syscall"
               : "=a"(child)
               : "a"(SYS_clone3), "D"(&args), "S"(sizeof args)
               : "rcx", "r11", "memory");
  if (child == 0) run_child(work);
  return child;
}

}  // namespace

Result<Sender> read_sender(pid_t tid) {
  auto status = read_process_status(tid);
  if (!status) return status.error();
  auto credentials = read_credentials(tid);
  if (!credentials) return credentials.error();
  return Sender{status->pid, *credentials};
}

Result<std::vector<int64_t>> call_as(const Sender& sender, std::span<const RawCall> calls) {
  std::vector<int64_t> results(calls.size(), -EIO);
  const Work work{sender, calls, results};
  // A signal to krgd's group must not run a handler on the borrowed memory.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t wanted = sender.pid;
  int64_t child = sender.pid > 0 ? run_in_child(work, &wanted) : run_in_child(work, nullptr);
  if (child == -EEXIST || child == -EPERM || child == -EINVAL) child = run_in_child(work, nullptr);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child < 0) return errno_error("stand-in", static_cast<int>(-child));
  while (waitpid(static_cast<pid_t>(child), nullptr, __WALL) < 0 && errno == EINTR) {
  }
  return results;
}

Result<int64_t> call_as(const Sender& sender, const RawCall& call) {
  auto results = call_as(sender, {&call, 1});
  if (!results) return results.error();
  return results->front();
}

}  // namespace krg
