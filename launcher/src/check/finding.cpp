// SPDX-License-Identifier: GPL-2.0-or-later
#include "check/finding.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

// A finding as bytes: state, detail, NUL, mend. Short enough for one write to a pipe.
std::string encode(const Finding& finding) {
  std::string bytes(1, static_cast<char>('0' + static_cast<int>(finding.state)));
  return bytes + finding.detail + '\0' + finding.mend;
}

Finding decode(std::string_view bytes) {
  Finding finding;
  finding.state = static_cast<ProbeState>(bytes[0] - '0');
  const size_t end = bytes.find('\0');
  finding.detail = bytes.substr(1, end - 1);
  if (end != bytes.npos) finding.mend = bytes.substr(end + 1);
  return finding;
}

[[noreturn]] void run_and_report(const std::function<Finding()>& probe, int report) {
  // A probe must not outlive the asker, nor stop it with a signal to its group.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::setpgid(0, 0);
  const std::string bytes = encode(probe());
  const bool told =
      ::write(report, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  ::_exit(told ? 0 : 1);
}

// Waits for the report, which comes in one piece (it is one short write), or for the end of the
// child. False when the deadline is over.
bool read_report(int report, std::chrono::milliseconds deadline, std::string& bytes) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    pollfd readable{report, POLLIN, 0};
    const int ready = ::poll(&readable, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    char buffer[4096];
    const ssize_t count = ::read(report, buffer, sizeof buffer);
    if (count > 0) bytes.assign(buffer, static_cast<size_t>(count));
    return true;
  }
}

std::string describe_death(int status) {
  if (WIFSIGNALED(status)) return fmt::format("the probe died of signal {}", WTERMSIG(status));
  return fmt::format("the probe ended with status {} and told nothing", WEXITSTATUS(status));
}

}  // namespace

std::string_view to_string(ProbeState state) {
  switch (state) {
    case ProbeState::kOk:
      return "ok";
    case ProbeState::kLimited:
      return "limited";
    case ProbeState::kLacking:
      break;
  }
  return "lacking";
}

Finding found(std::string detail) {
  return {ProbeState::kOk, std::move(detail)};
}
Finding limited(std::string detail) {
  return {ProbeState::kLimited, std::move(detail)};
}
Finding lacking(std::string detail) {
  return {ProbeState::kLacking, std::move(detail)};
}
Finding lacking_errno(std::string_view what) {
  const int number = errno;
  return lacking(fmt::format("{}: {}", what, std::strerror(number)));
}

Finding run_in_child(const std::function<Finding()>& probe, std::chrono::milliseconds deadline) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return lacking_errno("pipe");
  UniqueFd report(ends[0]);
  UniqueFd child_end(ends[1]);

  const pid_t child = ::fork();
  if (child < 0) return lacking_errno("fork");
  if (child == 0) run_and_report(probe, child_end.get());
  ::setpgid(child, child);  // here too: whoever comes first
  child_end.reset();

  std::string bytes;
  const bool in_time = read_report(report.get(), deadline, bytes);
  ::kill(-child, SIGKILL);
  ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!bytes.empty()) return decode(bytes);
  if (!in_time) return lacking(fmt::format("no answer within {} ms", deadline.count()));
  return lacking(describe_death(status));
}

}  // namespace krg
