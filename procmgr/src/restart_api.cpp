// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <string>
#include <vector>

#include "krg/procmgr/checkpoint.h"
#include "krg/runtime/unique_fd.h"
#include "libkrg_calls.h"

namespace {

using krg::failed;
using krg::UniqueFd;

// What krgrun says how it went: 0, or an error's number; EIO: it ended before.
int read_outcome(int fd) {
  std::string line;
  char next = 0;
  ssize_t got = 0;
  while ((got = read(fd, &next, 1)) != 0) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 || next == '\n') break;
    line += next;
  }
  int outcome = EIO;
  std::from_chars(line.data(), line.data() + line.size(), outcome);
  return outcome;
}

}  // namespace

pid_t application_restart(const char* folder, int version) {
  if (folder == nullptr || version < 0) return failed(EINVAL);
  if (krg::ControlClient::connect_to_session()) return failed(ENOTSUP);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  const UniqueFd told(ends[0]);
  UniqueFd tells(ends[1]);
  std::vector<std::string> words = {"krgrun", std::string("--restart=") + folder,
                                    "--restart-version=" + std::to_string(version),
                                    "--restart-fd=" + std::to_string(tells.get())};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, tells.get(), tells.get());  // open over the exec
  pid_t child = 0;
  const int spawned =
      posix_spawnp(&child, words.front().c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (spawned != 0) return failed(spawned);
  tells.reset();
  const int outcome = read_outcome(told.get());
  if (outcome == 0) return child;
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return failed(outcome);
}
