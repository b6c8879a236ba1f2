// Probe of system calls that krgd answers (seccomp user notification, seccomp_unotify(2)).
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check/probes.h"
#include "krg/runtime/unique_fd.h"
#include "krg/runtime/unix_socket.h"

namespace krg {
namespace {

// Stops getppid() of the caller and its descendants. The listener, or -1.
int stop_getppid() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return static_cast<int>(::syscall(
      SYS_seccomp, SECCOMP_SET_MODE_FILTER,
      SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &filter));
}

// The filtered process: hands its listener over, and then sees a getppid() that returns a new
// descriptor of /dev/null, put into it by whoever answered. Exit status 0 when it did.
[[noreturn]] void run_filtered(int socket) {
  UniqueFd listener(stop_getppid());
  const int fds[] = {listener.get()};
  if (!listener || !send_packet(socket, "listener", fds)) ::_exit(1);
  listener.reset();
  const int given = static_cast<int>(::syscall(SYS_getppid));
  ::_exit(given > 2 && ::write(given, "x", 1) == 1 ? 0 : 2);
}

// Answers one getppid() with a descriptor (SECCOMP_ADDFD_FLAG_SEND, kernel 5.14).
Finding answer_one_call(int listener) {
  pollfd readable{listener, POLLIN, 0};
  if (::poll(&readable, 1, 2000) != 1) return lacking("no notification arrived");
  seccomp_notif call{};
  if (::ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0)
    return lacking_errno("SECCOMP_IOCTL_NOTIF_RECV");
  if (call.data.nr != SYS_getppid) return lacking("another call than the filtered one arrived");
  UniqueFd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  seccomp_notif_addfd answer{};
  answer.id = call.id;
  answer.flags = SECCOMP_ADDFD_FLAG_SEND;
  answer.srcfd = static_cast<uint32_t>(null.get());
  if (::ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &answer) < 0)
    return lacking_errno("SECCOMP_IOCTL_NOTIF_ADDFD");
  return found("system calls can be stopped and answered, descriptors put in");
}

}  // namespace

Finding probe_seccomp_notification() {
  return run_in_child([] {
    auto sockets = seqpacket_pair();
    if (!sockets) return lacking(sockets.error().message());
    const pid_t program = ::fork();
    if (program == 0) run_filtered(sockets->second.get());
    sockets->second.reset();
    auto packet = receive_packet(sockets->first.get());
    if (!packet || packet->fds.size() != 1) {
      ::waitpid(program, nullptr, 0);
      return lacking(
          "no listener: the kernel is older than 5.19, or seccomp is held by a container");
    }
    Finding finding = answer_one_call(packet->fds[0].get());
    if (finding.state != ProbeState::kOk) ::kill(program, SIGKILL);
    int status = 0;
    ::waitpid(program, &status, 0);
    if (finding.state == ProbeState::kOk && status != 0)
      return lacking("the answer did not reach the process");
    return finding;
  });
}

}  // namespace krg
