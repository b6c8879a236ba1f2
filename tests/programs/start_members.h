// Programs whose first process starts the others, its members, which execute the program anew (then
// they are placed on nodes). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

// Runs `command` so many times, with a member's number and a name that is this run's own as its
// last arguments, and waits for all. Returns how many have failed.
inline int start_members(std::vector<std::string> command, unsigned members) {
  const std::string program = command.front().substr(command.front().rfind('/') + 1);
  const std::string name = program + "." + std::to_string(getpid());
  std::vector<pid_t> children;
  for (unsigned i = 0; i < members; ++i) {
    const pid_t child = fork();
    children.push_back(child);
    if (child > 0) continue;
    command.insert(command.end(), {std::to_string(i), name});
    std::vector<char*> arguments;
    for (std::string& argument : command) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  int failures = 0;
  for (const pid_t child : children) {
    int status = 0;
    failures += waitpid(child, &status, 0) != child || status != 0;
  }
  return failures;
}
