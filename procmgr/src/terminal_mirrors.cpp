// SPDX-License-Identifier: GPL-2.0-or-later
#include "terminal_mirrors.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <utility>

#include "krg/runtime/log.h"
#include "tty_readers.h"

namespace krg {
namespace {

constexpr size_t kMaxOutputBytes = 64 * 1024;
constexpr std::chrono::milliseconds kLongestSettling{250};

// The slave's modes: those of home, but input is edited and echoed at home only.
termios with_extproc(termios modes) {
  modes.c_lflag |= EXTPROC;
  return modes;
}
termios without_extproc(termios modes) {
  modes.c_lflag &= ~static_cast<tcflag_t>(EXTPROC);
  return modes;
}

bool adds_carriage_returns(const termios& modes) {
  return (modes.c_oflag & OPOST) && (modes.c_oflag & ONLCR);
}

// The home terminal turns each newline into CR NL again: takes back what the slave did. Exact,
// since every newline has got its own CR.
std::string undo_carriage_returns(std::string_view output) {
  std::string plain;
  plain.reserve(output.size());
  for (size_t i = 0; i < output.size(); ++i)
    if (output[i] != '\r' || i + 1 == output.size() || output[i + 1] != '\n') plain += output[i];
  return plain;
}

}  // namespace

struct TerminalMirrors::Mirror {
  uint64_t number;
  pid_t body;
  Source source;
  UniqueFd master;
  dev_t slave = 0;
  std::string slave_name;
  bool sending = false;      // output is on its way home; no more is read
  bool held_return = false;  // a CR at the end of a read, whose NL may follow
  bool asking = false;       // for input
  pid_t foreground = 0;      // a group below the body that has the terminal
  int settings_sent = 0;     // changes of modes that home has not answered yet
  EventLoop::Watch watch;
  std::vector<std::function<void()>> drained;
  std::vector<std::function<void()>> answered;  // when it does not ask for input any more
};

TerminalMirrors::TerminalMirrors(NodeContext& node) : node_(node) {
  node_.messenger.on<TerminalState>([this](NodeId from, const TerminalState& state,
                                           std::string_view) { state_arrived(from, state); });
}
TerminalMirrors::~TerminalMirrors() = default;

TerminalMirrors::Mirror* TerminalMirrors::find(uint64_t number) const {
  for (auto& mirror : mirrors_)
    if (mirror->number == number) return mirror.get();
  return nullptr;
}

TerminalMirrors::Mirror* TerminalMirrors::find(pid_t body, NodeId home, HomeId id) const {
  for (auto& mirror : mirrors_)
    if (mirror->body == body && mirror->source.home == home && mirror->source.id == id)
      return mirror.get();
  return nullptr;
}

std::string TerminalMirrors::slave_of(pid_t body) const {
  for (auto& mirror : mirrors_)
    if (mirror->body == body) return mirror->slave_name;
  return {};
}

pid_t TerminalMirrors::foreground(pid_t body, NodeId home, HomeId id) const {
  const Mirror* mirror = find(body, home, id);
  return mirror ? mirror->foreground : 0;
}

void TerminalMirrors::set_foreground(pid_t body, NodeId home, HomeId id, pid_t group) {
  if (Mirror* mirror = find(body, home, id)) mirror->foreground = group;
}

pid_t TerminalMirrors::foreground(pid_t body) const {
  for (auto& mirror : mirrors_)
    if (mirror->body == body && mirror->foreground != 0) return mirror->foreground;
  return 0;
}

std::optional<TerminalMirrors::Source> TerminalMirrors::source_of(dev_t slave) const {
  for (auto& mirror : mirrors_)
    if (mirror->slave == slave) return mirror->source;
  return std::nullopt;
}

std::optional<TerminalMirrors::Source> TerminalMirrors::source_of(const std::string& slave) const {
  for (auto& mirror : mirrors_)
    if (mirror->slave_name == slave) return mirror->source;
  return std::nullopt;
}

Result<UniqueFd> TerminalMirrors::open(pid_t body, const Source& source, int flags, bool& is_new) {
  Mirror* mirror = find(body, source.home, source.id);
  is_new = mirror == nullptr;
  if (is_new) {
    auto made = make(body, source);
    if (!made) return made.error();
    mirror = *made;
  }
  // With O_CLOEXEC the description itself keeps that flag (Linux 6.18), and every descriptor of it
  // would look close-on-exec in /proc/PID/fdinfo.
  const int wanted = (flags & (O_ACCMODE | O_NONBLOCK)) | O_NOCTTY;
  UniqueFd slave(ioctl(mirror->master.get(), TIOCGPTPEER, wanted));
  if (!slave || fcntl(slave.get(), F_SETFD, FD_CLOEXEC) != 0) return errno_error("TIOCGPTPEER");
  return slave;
}

Result<TerminalMirrors::Mirror*> TerminalMirrors::make(pid_t body, const Source& source) {
  auto mirror = std::make_unique<Mirror>();
  mirror->number = next_++;
  mirror->body = body;
  mirror->source = source;
  mirror->master = UniqueFd(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  const int master = mirror->master.get();
  std::array<char, 64> name;
  const int on = 1;
  const termios modes = with_extproc(source.settings.modes);
  struct stat attributes {};
  if (master < 0 || unlockpt(master) != 0 || ptsname_r(master, name.data(), name.size()) != 0 ||
      ioctl(master, TIOCPKT, &on) != 0 || tcsetattr(master, TCSANOW, &modes) != 0 ||
      ioctl(master, TIOCSWINSZ, &source.settings.size) != 0 || stat(name.data(), &attributes) != 0)
    return errno_error("making a pseudo-terminal");
  mirror->slave_name = name.data();
  mirror->slave = attributes.st_rdev;
  mirrors_.push_back(std::move(mirror));
  watch(*mirrors_.back());
  return mirrors_.back().get();
}

void TerminalMirrors::watch(Mirror& mirror) {
  auto made = node_.loop.watch(mirror.master.get(), EPOLLIN,
                               [this, &mirror](uint32_t) { read_output(mirror); });
  check(made.has_value(), "a pseudo-terminal can be watched");
  mirror.watch = std::move(*made);
}

void TerminalMirrors::read_output(Mirror& mirror) {
  std::array<char, kMaxOutputBytes> buffer;
  const ssize_t got = ::read(mirror.master.get(), buffer.data(), buffer.size());
  if (got < 0 && errno == EAGAIN) {
    if (std::exchange(mirror.held_return, false)) return send_home(mirror, "\r");
    for (auto& done : std::exchange(mirror.drained, {})) done();
    return;
  }
  if (got <= 0) return close(mirror);  // EIO: the last process has closed the slave
  // ioctl_tty(2), packet mode: the first byte tells what the rest is.
  if (buffer[0] != TIOCPKT_DATA) {
    if (buffer[0] & TIOCPKT_IOCTL) modes_changed_here(mirror);
    return;
  }
  std::string output = std::exchange(mirror.held_return, false) ? "\r" : "";
  output.append(buffer.data() + 1, static_cast<size_t>(got) - 1);
  if (adds_carriage_returns(mirror.source.settings.modes)) {
    if (output.back() == '\r') {
      mirror.held_return = true;
      output.pop_back();
    }
    output = undo_carriage_returns(output);
  }
  if (!output.empty()) send_home(mirror, std::move(output));
}

// One piece at a time: order and back pressure.
void TerminalMirrors::send_home(Mirror& mirror, std::string output) {
  mirror.watch.reset();
  mirror.sending = true;
  StreamWrite message;
  message.home = mirror.source.id;
  message.operation = mirror.number;
  node_.messenger.request(
      mirror.source.home, message, output,
      [this, number = mirror.number, output](Result<std::string> answer) {
        Mirror* mirror = find(number);
        if (mirror == nullptr) return;
        mirror->sending = false;
        uint64_t written = output.size();
        if (answer && answer->size() == sizeof written)
          std::memcpy(&written, answer->data(), sizeof written);
        if (answer && written < output.size()) return send_home(*mirror, output.substr(written));
        watch(*mirror);  // after an error too: the output is lost, as on a terminal that hung up
        if (!mirror->drained.empty()) read_output(*mirror);
      });
}

void TerminalMirrors::modes_changed_here(Mirror& mirror) {
  termios modes{};
  if (tcgetattr(mirror.master.get(), &modes) != 0) return;
  termios plain = without_extproc(modes);
  plain.c_cflag = mirror.source.settings.modes.c_cflag;  // a pseudo-terminal has its own
  if (std::memcmp(&plain, &mirror.source.settings.modes, sizeof plain) == 0) return;
  mirror.source.settings.modes = plain;
  const termios wanted = with_extproc(modes);
  tcsetattr(mirror.master.get(), TCSANOW, &wanted);
  TerminalSet set;
  set.home = mirror.source.id;
  set.modes = plain;
  ++mirror.settings_sent;
  node_.messenger.request(mirror.source.home, set, {},
                          [this, number = mirror.number](Result<std::string>) {
                            if (Mirror* mirror = find(number)) --mirror->settings_sent;
                          });
}

void TerminalMirrors::state_arrived(NodeId from, const TerminalState& state) {
  for (auto& mirror : mirrors_) {
    if (mirror->source.home != from || mirror->source.id != state.home) continue;
    TerminalSettings& known = mirror->source.settings;
    if (mirror->settings_sent == 0 &&
        std::memcmp(&known.modes, &state.settings.modes, sizeof known.modes) != 0) {
      known.modes = state.settings.modes;
      const termios wanted = with_extproc(known.modes);
      tcsetattr(mirror->master.get(), TCSANOW, &wanted);
    }
    if (std::memcmp(&known.size, &state.settings.size, sizeof known.size) != 0) {
      known.size = state.settings.size;
      ioctl(mirror->master.get(), TIOCSWINSZ, &known.size);
      kill(-receivers(*mirror), SIGWINCH);
    }
    if (state.input_waits || state.look_for_readers) look_for_readers(*mirror, state.input_waits);
  }
}

// Asks for the input that waits, or, when none does, whether those who read may.
void TerminalMirrors::look_for_readers(Mirror& mirror, bool input_waits) {
  if (mirror.asking) return;
  const pid_t entitled = receivers(mirror);
  bool wanted = false;
  for (const TtyReaders& readers : find_tty_readers(mirror.slave_name)) {
    wanted |= readers.group == entitled && (input_waits || readers.is_reading);
    // As the kernel does to those who read in the background (termios(3)).
    if (readers.group != entitled && readers.is_reading) kill(-readers.group, SIGTTIN);
  }
  if (!wanted) return;
  mirror.asking = true;
  may_read_(mirror.body, mirror.source,
            [this, number = mirror.number, input_waits](const Status& allowed) {
              Mirror* mirror = find(number);
              if (mirror == nullptr) return;
              if (allowed && input_waits) return ask_for_input(*mirror);
              end_asking(*mirror);
            });
}

void TerminalMirrors::ask_for_input(Mirror& mirror) {
  TerminalRead message;
  message.home = mirror.source.id;
  message.body = mirror.body;
  node_.messenger.request(mirror.source.home, message, {},
                          [this, number = mirror.number](Result<std::string> input) {
                            Mirror* mirror = find(number);
                            if (mirror == nullptr) return;
                            if (input) put_input(*mirror, *input);
                            end_asking(*mirror);
                          });
}

void TerminalMirrors::end_asking(Mirror& mirror) {
  mirror.asking = false;
  for (auto& done : std::exchange(mirror.answered, {})) done();
}

pid_t TerminalMirrors::receivers(const Mirror& mirror) {
  return mirror.foreground != 0 ? mirror.foreground : mirror.body;
}

pid_t TerminalMirrors::receivers(pid_t body, NodeId home, HomeId id) const {
  const Mirror* mirror = find(body, home, id);
  return mirror ? receivers(*mirror) : body;
}

// End of file has no bytes: for it the slave edits lines for a moment and gets its VEOF character.
void TerminalMirrors::put_input(Mirror& mirror, const std::string& input) {
  const termios& modes = mirror.source.settings.modes;
  const bool end_of_file = input.empty();
  if (end_of_file && !(modes.c_lflag & ICANON)) return;
  const termios wanted = end_of_file ? without_extproc(modes) : with_extproc(modes);
  tcsetattr(mirror.master.get(), TCSANOW, &wanted);
  const std::string bytes =
      end_of_file ? std::string(1, static_cast<char>(modes.c_cc[VEOF])) : input;
  if (::write(mirror.master.get(), bytes.data(), bytes.size()) < 0)
    log_warn("tty", "{} bytes of input lost: {}", bytes.size(), errno);
}

void TerminalMirrors::drain(pid_t body, std::function<void()> done) {
  auto all_drained = std::shared_ptr<void>(nullptr, [done = std::move(done)](void*) { done(); });
  std::vector<uint64_t> numbers;
  for (auto& mirror : mirrors_)
    if (mirror->body == body) numbers.push_back(mirror->number);
  for (uint64_t number : numbers) {
    Mirror* mirror = find(number);
    mirror->drained.push_back([all_drained] {});
    if (!mirror->sending) read_output(*mirror);
  }
}

void TerminalMirrors::settle(pid_t body, const std::function<void(Status)>& done) {
  if (slave_of(body).empty()) return done({});
  struct Settling {
    std::function<void(Status)> done;  // empty: it is over
    EventLoop::Timer limit;
  };
  auto settling = std::make_shared<Settling>(Settling{done, {}});
  const auto end = [settling](const Status& how) {
    const auto limit = std::move(settling->limit);
    if (settling->done) std::exchange(settling->done, nullptr)(how);
  };
  settling->limit = node_.loop.after(kLongestSettling, alive_.guard([end] {
    end(errno_error("its terminal takes no output, or gives no answer", EAGAIN));
  }));
  auto all = std::shared_ptr<void>(nullptr, [settled = alive_.guard([this, end, body] {
                                     end(has_read_all(body));
                                   })](void*) mutable { settled(); });
  for (auto& mirror : mirrors_)
    if (mirror->body == body && mirror->asking) mirror->answered.push_back([all] {});
  drain(body, [all] {});
}

Status TerminalMirrors::has_read_all(pid_t body) const {
  for (auto& mirror : mirrors_) {
    if (mirror->body != body) continue;
    const UniqueFd slave(ioctl(mirror->master.get(), TIOCGPTPEER, O_RDONLY | O_NOCTTY | O_CLOEXEC));
    pollfd input{slave.get(), POLLIN, 0};
    int unread = 0;
    // What was put in a moment ago is there once somebody has asked for it by poll (n_tty_poll).
    if (!slave || ::poll(&input, 1, 0) < 0 || ioctl(slave.get(), FIONREAD, &unread) != 0)
      return errno_error("a terminal");
    if (unread > 0)
      return errno_error("input of its terminal has come that it has not read yet", EAGAIN);
  }
  return {};
}

void TerminalMirrors::close(Mirror& mirror) {
  StreamClose message;
  message.home = mirror.source.id;
  if (!node_.messenger.send(mirror.source.home, message))
    log_debug("tty", "the home of {} is gone", mirror.slave_name);
  auto found = std::find_if(mirrors_.begin(), mirrors_.end(),
                            [&](auto& one) { return one.get() == &mirror; });
  auto ended = std::move(*found);  // it may be in its own callback
  mirrors_.erase(found);
}

}  // namespace krg
