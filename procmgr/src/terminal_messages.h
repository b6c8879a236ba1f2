// The messages between a terminal's home and the nodes that mirror it. Ids: message_ids::kTty and
// up. Input and output themselves: StreamWrite, and TerminalRead below.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/ioctl.h>
#include <termios.h>

#include <cstdint>

#include "stream_messages.h"

namespace krg {

// What a terminal is set to; inside recipes too.
struct TerminalSettings {
  struct termios modes {};
  struct winsize size {};
};

// Notice from the home: the settings have changed, input waits to be read, or it is time to look
// for those who read in the background.
struct TerminalState {
  static constexpr uint16_t kId = message_ids::kTty;
  uint8_t version = 1;
  uint8_t input_waits = 0;
  uint8_t look_for_readers = 0;
  uint8_t unused[5] = {};
  HomeId home;
  TerminalSettings settings;
};
static_assert(sizeof(TerminalState) == 88);

// Request from a mirror: a process changed its terminal's modes. Reply: empty; a TerminalState that
// arrives before it tells older modes.
struct TerminalSet {
  static constexpr uint16_t kId = message_ids::kTty + 1;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  HomeId home;
  struct termios modes {};
  uint8_t unused_tail[4] = {};
};
static_assert(sizeof(TerminalSet) == 80);

// Request: a process below `body` waits for input, and may read (TerminalJob). Reply: the bytes
// (none: end of file); EAGAIN when there are none, or when the body's group has come to be in the
// background and gets SIGTTIN.
struct TerminalRead {
  static constexpr uint16_t kId = message_ids::kTty + 2;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t body = 0;
  HomeId home;
};
static_assert(sizeof(TerminalRead) == 16);

// Request to the origin of a body: job control of the terminal `home` of node `home_node`, as the
// shadow `pid` stands to it. Carried on from origin to origin until the terminal is there, or a
// shell on the way has it in its hands. Reply: a TerminalJobAnswer; to who wants to read, EAGAIN
// when its group, or one above it, is in the background: that group gets SIGTTIN.
struct TerminalJob {
  static constexpr uint16_t kId = message_ids::kTty + 3;
  uint8_t version = 1;
  uint8_t set = 0;  // make `group` the foreground group
  uint16_t home_node = 0;
  int32_t pid = 0;
  HomeId home;
  int32_t group = 0;
  uint8_t read = 0;  // wants to read
  uint8_t unused[3] = {};
};
static_assert(sizeof(TerminalJob) == 24);

struct TerminalJobAnswer {
  int32_t foreground = 0, session = 0;
};
static_assert(sizeof(TerminalJobAnswer) == 8);

}  // namespace krg
