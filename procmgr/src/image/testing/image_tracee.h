// What the programs whose images tests take have in common: talking to the test.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

namespace krg::testing {

inline void say(const std::string& line) {
  const std::string text = line + "\n";
  if (write(1, text.data(), text.size()) != static_cast<ssize_t>(text.size())) _exit(90);
}
inline void wait_for_byte() {
  char byte;
  ssize_t got;
  do got = read(0, &byte, 1);
  while (got < 0 && errno == EINTR);
  if (got != 1) _exit(91);
}
inline void must(bool holds, const char* what) {
  if (holds) return;
  say(std::string("wrong: ") + what + " (" + strerror(errno) + ")");
  _exit(1);
}
inline std::string text_of(const char* path) {
  std::string text;
  FILE* file = fopen(path, "r");
  must(file != nullptr, path);
  for (int c; (c = fgetc(file)) != EOF;) text += static_cast<char>(c);
  fclose(file);
  return text;
}

// Has what no image can have, says "ready" and goes on when a byte comes.
int meet_obstacle(const std::string& what);

}  // namespace krg::testing
