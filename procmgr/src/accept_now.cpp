// SPDX-License-Identifier: GPL-2.0-or-later
#include "accept_now.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace krg {
namespace {

// As long as it lives, the system calls of this thread that wait are interrupted, soon after they
// have begun and again and again: one that begins between two of the signals is, too.
class Interrupter {
 public:
  Interrupter() {
    struct sigaction handling {};
    handling.sa_handler = [](int) {};  // without SA_RESTART
    sigaction(signal_, &handling, nullptr);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal_);
    pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = signal_;
    event._sigev_un._tid = gettid();
    has_timer_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
    const itimerspec each{kPeriod, kPeriod};
    if (has_timer_) timer_settime(timer_, 0, &each, nullptr);
  }
  Interrupter(const Interrupter&) = delete;
  ~Interrupter() {
    const int error = errno;
    if (has_timer_) timer_delete(timer_);
    errno = error;
  }
  bool has_timer() const { return has_timer_; }

 private:
  static constexpr timespec kPeriod{0, 500'000};
  const int signal_ = SIGRTMAX;
  timer_t timer_{};
  bool has_timer_ = false;
};

bool has_connection(int socket) {
  pollfd waits{socket, POLLIN, 0};
  return poll(&waits, 1, 0) > 0;
}

}  // namespace

UniqueFd accept_now(int socket) {
  errno = EAGAIN;
  if (!has_connection(socket)) return {};
  if (fcntl(socket, F_GETFL) & O_NONBLOCK)
    return UniqueFd(accept4(socket, nullptr, nullptr, SOCK_CLOEXEC));
  const Interrupter interrupter;
  errno = EAGAIN;
  if (!interrupter.has_timer()) return {};
  UniqueFd accepted(accept4(socket, nullptr, nullptr, SOCK_CLOEXEC));
  if (!accepted && errno == EINTR) errno = EAGAIN;
  return accepted;
}

}  // namespace krg
