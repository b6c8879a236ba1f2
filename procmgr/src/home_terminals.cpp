// SPDX-License-Identifier: GPL-2.0-or-later
#include "home_terminals.h"

#include <poll.h>

#include <cstring>

#include "job_control.h"
#include "krg/runtime/log.h"

namespace krg {
namespace {

constexpr std::chrono::milliseconds kTick{20};
constexpr unsigned kLookEvery = 25;      // ticks: half a second
constexpr size_t kMaxInputBytes = 4096;  // a line discipline holds no more

bool same(const TerminalSettings& a, const TerminalSettings& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

}  // namespace

Result<TerminalSettings> terminal_settings(int fd) {
  TerminalSettings settings;
  if (tcgetattr(fd, &settings.modes) != 0) return errno_error("tcgetattr");
  if (ioctl(fd, TIOCGWINSZ, &settings.size) != 0) return errno_error("TIOCGWINSZ");
  return settings;
}

HomeTerminals::HomeTerminals(NodeContext& node, RemoteHome& home) : node_(node), home_(home) {
  node_.messenger.on_request<TerminalSet>(
      [this](NodeId, const TerminalSet& message, std::string_view, Messenger::Reply reply) {
        const HomeFile* file = home_.find(message.home);
        if (file == nullptr) return reply.fail(EIO, "the terminal is gone");
        if (tcsetattr(file->real(), TCSANOW, &message.modes) != 0) return reply.fail(errno);
        reply.ok();
      });
  node_.messenger.on_request<TerminalRead>(
      [this](NodeId from, const TerminalRead& message, std::string_view, Messenger::Reply reply) {
        read_for(message, from, std::move(reply));
      });
}

void HomeTerminals::add(HomeId id, const TerminalSettings& settings) {
  terminals_.push_back({id, settings});
  if (!tick_) tick_ = node_.loop.every(kTick, [this] { look(); });
}

void HomeTerminals::look() {
  ++looks_;
  std::erase_if(terminals_, [&](Terminal& terminal) {
    const HomeFile* file = home_.find(terminal.id);
    if (file != nullptr) tell(terminal, *file);
    return file == nullptr;
  });
  if (terminals_.empty()) tick_.reset();
}

void HomeTerminals::tell(Terminal& terminal, const HomeFile& file) {
  auto settings = terminal_settings(file.real());
  if (!settings) return;  // hung up: reads and writes tell
  pollfd input{file.real(), POLLIN, 0};
  ::poll(&input, 1, 0);
  TerminalState state;
  state.home = terminal.id;
  state.settings = *settings;
  state.input_waits = (input.revents & (POLLIN | POLLHUP)) != 0;
  state.look_for_readers = looks_ % kLookEvery == 0;
  if (!state.input_waits && !state.look_for_readers && same(terminal.told, *settings)) return;
  terminal.told = *settings;
  for (NodeId node : home_.holders(terminal.id))
    if (!node_.messenger.send(node, state)) log_debug("tty", "n{} is gone", node.value);
}

// krgd has no controlling terminal, so the kernel lets it read; the rules for the reader are its
// shadow's, which may be on another node and has then been asked.
void HomeTerminals::read_for(const TerminalRead& message, NodeId from, Messenger::Reply reply) {
  HomeFile* file = home_.find(message.home);
  if (file == nullptr) return reply.fail(EIO, "the terminal is gone");
  const JobControl shadow = job_control_of(message.body);
  if (shadow.terminal != 0 && stop_if_in_background(shadow.group, shadow.foreground))
    return reply.fail(EAGAIN, "in the background");
  file->read({{from, 0}, kAtPosition, true}, kMaxInputBytes, std::move(reply));
}

}  // namespace krg
