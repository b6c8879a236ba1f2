// SPDX-License-Identifier: GPL-2.0-or-later
#include "child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exec_words.h"

namespace krg {
namespace {

[[noreturn]] void exec_child(char** words, char** environment, const ChildProcess::Streams& streams,
                             const std::vector<int>& keep, int error_pipe) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (streams.new_session) setsid();
  if (streams.input >= 0) dup2(streams.input, 0);
  if (streams.output >= 0) dup2(streams.output, 1);
  if (streams.error >= 0) dup2(streams.error, 2);
  for (int fd : keep) fcntl(fd, F_SETFD, 0);
  execvpe(words[0], words, environment);
  const int number = errno;
  if (write(error_pipe, &number, sizeof number) < 0) _exit(126);
  _exit(127);
}

}  // namespace

Result<ChildProcess> ChildProcess::start(std::vector<std::string> words, Streams streams,
                                         const std::vector<int>& keep,
                                         std::vector<std::string> environment) {
  auto arguments = pointers_to(words), variables = pointers_to(environment);
  int error_pipe[2];
  if (pipe2(error_pipe, O_CLOEXEC) != 0) return errno_error("pipe");
  UniqueFd errors(error_pipe[0]), child_errors(error_pipe[1]);
  const pid_t pid = fork();
  if (pid < 0) return errno_error("fork");
  if (pid == 0)
    exec_child(arguments.data(), environment.empty() ? environ : variables.data(), streams, keep,
               child_errors.get());
  child_errors.reset();
  ChildProcess child(pid, UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))));
  int number = 0;
  if (read(errors.get(), &number, sizeof number) == sizeof number)
    return errno_error("cannot start " + words[0], number);
  if (!child.pidfd_) return errno_error("pidfd_open");
  return child;
}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(pidfd_, other.pidfd_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void ChildProcess::signal(int number) const {
  if (pid_ > 0) kill(pid_, number);
}

std::optional<int> ChildProcess::wait_for(std::chrono::milliseconds limit) {
  if (pid_ < 0 || !wait_readable(pidfd_.get(), limit)) return std::nullopt;
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return status;
}

bool wait_readable(int fd, std::chrono::milliseconds limit) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + limit;
  while (true) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
    pollfd one{fd, POLLIN, 0};
    const int ready = poll(&one, 1, static_cast<int>(std::max<long>(left.count(), 0)));
    if (ready > 0) return true;
    if (ready == 0) return false;
    if (errno != EINTR) return true;
  }
}

}  // namespace krg
