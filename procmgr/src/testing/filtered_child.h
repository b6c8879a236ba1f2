// FilteredChild: a forked child under the system call filter, for tests: the child runs a function
// after the parent has its listener, and its exit status is what the function returned.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <functional>
#include <utility>

#include "krg/procmgr/syscall_broker.h"
#include "krg/procmgr/syscall_filter.h"
#include "krg/runtime/unix_socket.h"

namespace krg::testing {

// The half of the pid space that holds `pid`: nearly always the lower one, LoopbackNodes' first
// node's.
inline PidRange range_of(pid_t pid) {
  const PidRange probe(NodeId{0}, 2, kPidBits);
  return PidRange(probe.origin(GlobalPid{pid}), 2, kPidBits);
}

// Returns when the process is a zombie: until then an answer to its call may still reach it.
inline void kill_at_once(pid_t pid) {
  kill(pid, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
}

class FilteredChild {
 public:
  FilteredChild(SyscallBroker& broker, std::function<int()> body,
                PidRange pids = range_of(getpid()), bool remote_memory = false) {
    auto pair = seqpacket_pair();
    EXPECT_TRUE(pair);
    pid_ = fork();
    if (pid_ == 0) {
      // Room on the heap: nobody answers a brk(2) before the listener is served.
      ::operator delete(::operator new(100u << 10));
      auto listener = install_syscall_filter({.pids = pids, .remote_memory = remote_memory});
      if (!listener) _exit(100);
      const int fd = listener->get();
      if (!send_packet(pair->second.get(), "listener", {&fd, 1})) _exit(101);
      listener->reset();
      char begin;
      if (read(pair->second.get(), &begin, 1) != 1) _exit(102);
      _exit(body());
    }
    auto packet = receive_packet(pair->first.get());
    EXPECT_TRUE(packet && packet->fds.size() == 1);
    EXPECT_TRUE(broker.add_listener(std::move(packet->fds.at(0))));
    EXPECT_TRUE(send_packet(pair->first.get(), "b"));
  }
  FilteredChild(const FilteredChild&) = delete;
  ~FilteredChild() {
    if (pid_ <= 0 || ended_) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  pid_t pid() const { return pid_; }
  // Runs the loop until the child ends; its wait status, or -1 after five seconds.
  int wait_in(EventLoop& loop) {
    for (int turns = 0; turns < 1000; ++turns) {
      int status;
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        ended_ = true;
        return status;
      }
      loop.run_once(std::chrono::milliseconds(5));
    }
    return -1;
  }

 private:
  pid_t pid_ = -1;
  bool ended_ = false;
};

}  // namespace krg::testing
