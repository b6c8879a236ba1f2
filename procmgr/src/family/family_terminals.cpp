// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_terminals.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "process_spec.h"

namespace krg {
namespace {

constexpr unsigned kSlaves = 136;    // their major number (Linux Documentation, devices.txt)
constexpr int kMoreComesMs = 5;      // from one half of the kernel's buffers into the other
constexpr int kMostWaits = 200;      // of a millisecond, for the same
constexpr unsigned kMostTaken = 64;  // numbers below the wanted one that may be free
constexpr size_t kMostInFlight = 256 << 10;  // the kernel keeps 64 KiB each way

// The beginning of `contents` of a master's file; what the slaves, then what the master has not
// read follows.
struct PseudoTerminal {
  termios settings{};
  winsize size{};
  pid_t session = 0, foreground = 0;  // 0: of none
  uint32_t is_locked = 0, is_packet = 0;
  uint32_t is_hung_up = 0;  // slaves were open, none is
  uint32_t input_bytes = 0, output_bytes = 0;
};

struct InFlight {
  std::string input, output;  // that slaves, that the master would read
};

// Of a master's file; nothing where it is malformed.
std::optional<PseudoTerminal> parse(const std::string& contents, InFlight* in_flight = nullptr) {
  PseudoTerminal terminal;
  if (contents.size() < sizeof terminal) return std::nullopt;
  memcpy(&terminal, contents.data(), sizeof terminal);
  const size_t bytes = size_t{terminal.input_bytes} + terminal.output_bytes;
  if (contents.size() != sizeof terminal + bytes) return std::nullopt;
  if (in_flight) {
    in_flight->input = contents.substr(sizeof terminal, terminal.input_bytes);
    in_flight->output = contents.substr(sizeof terminal + terminal.input_bytes);
  }
  return terminal;
}

Result<UniqueFd> open_peer(int master, int flags) {
  UniqueFd peer(ioctl(master, TIOCGPTPEER, flags | O_NOCTTY | O_CLOEXEC));
  if (!peer) return errno_error("the slave of a pseudo-terminal");
  return peer;
}

// All that is there to be read.
std::string drain(int fd) {
  std::string all;
  char buffer[4096];
  for (int timeout = 0; all.size() < kMostInFlight; timeout = kMoreComesMs) {
    pollfd polled{fd, POLLIN, 0};
    if (poll(&polled, 1, timeout) != 1 || !(polled.revents & POLLIN)) break;
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got <= 0) break;
    all.append(buffer, static_cast<size_t>(got));
  }
  return all;
}

Status write_all(int fd, std::string_view bytes) {
  for (int waits = 0; !bytes.empty();) {
    const ssize_t put = write(fd, bytes.data(), bytes.size());
    if (put > 0) {
      bytes.remove_prefix(static_cast<size_t>(put));
    } else if ((put < 0 && errno != EAGAIN) || ++waits > kMostWaits) {
      return errno_error("what a pseudo-terminal had in flight", put < 0 ? errno : EAGAIN);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  return {};
}

// The terminal is set otherwise meanwhile.
class OtherSettings {
 public:
  OtherSettings(int slave, const termios& before) : slave_(slave), before_(before) {}
  OtherSettings(const OtherSettings&) = delete;
  ~OtherSettings() { tcsetattr(slave_, TCSANOW, &before_); }
  void set(const termios& settings) const { tcsetattr(slave_, TCSANOW, &settings); }

 private:
  const int slave_;
  const termios before_;
};

termios raw(termios settings) {
  cfmakeraw(&settings);
  return settings;
}

// As the program wrote it, after what it does to output. Output that is stopped (^S) stays so.
Status put_output(int slave, const termios& settings, const std::string& bytes) {
  if (bytes.empty()) return {};
  const OtherSettings other(slave, settings);
  other.set(raw(settings));
  Status put = write_all(slave, bytes);
  if (put) return put;
  tcflow(slave, TCOON);
  put = write_all(slave, bytes);
  tcflow(slave, TCOOFF);
  return put;
}

// As the program will read it: lines are lines again, and nothing in them means anything else.
Status put_input(int master, int slave, const termios& settings, const std::string& bytes) {
  if (bytes.empty()) return {};
  const OtherSettings other(slave, settings);
  termios plain = raw(settings);
  const bool has_lines = settings.c_lflag & ICANON;
  if (has_lines) {
    plain.c_lflag |= ICANON;
    std::fill(std::begin(plain.c_cc), std::end(plain.c_cc), cc_t{_POSIX_VDISABLE});
  }
  other.set(plain);
  if (auto put = write_all(master, bytes); !put) return put;
  // It goes through a kernel's thread, under the settings of that moment. An unfinished line is not
  // counted.
  const size_t line_end = has_lines ? bytes.rfind('\n') + 1 : bytes.size();
  for (int waits = 0; waits < kMostWaits; ++waits) {
    int waiting = 0;
    if (ioctl(slave, FIONREAD, &waiting) != 0 || static_cast<size_t>(waiting) >= line_end) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (line_end < bytes.size()) std::this_thread::sleep_for(std::chrono::milliseconds(kMoreComesMs));
  return {};
}

std::string take_input(int slave, const termios& settings) {
  const OtherSettings other(slave, settings);
  other.set(raw(settings));
  return drain(slave);
}

// In packet mode reads would begin with a byte about the terminal.
std::string take_output(int master, bool is_packet) {
  int off = 0, on = 1;
  if (is_packet) ioctl(master, TIOCPKT, &off);
  std::string output = drain(master);
  if (is_packet) ioctl(master, TIOCPKT, &on);
  return output;
}

// What is taken is put back.
Result<InFlight> see_in_flight(int master, const PseudoTerminal& terminal, bool has_slaves) {
  InFlight seen;
  if (terminal.is_locked || (!has_slaves && !terminal.is_hung_up)) return seen;
  seen.output = take_output(master, terminal.is_packet);
  if (!has_slaves && seen.output.empty()) return seen;
  auto slave = open_peer(master, O_RDWR | O_NONBLOCK);
  if (!slave) return slave.error();
  if (auto put = put_output(slave->get(), terminal.settings, seen.output); !put) return put.error();
  if (has_slaves) seen.input = take_input(slave->get(), terminal.settings);
  if (auto put = put_input(master, slave->get(), terminal.settings, seen.input); !put)
    return put.error();
  return seen;
}

// The lowest free numbers are given first.
Result<UniqueFd> open_master(uint32_t wanted) {
  std::vector<UniqueFd> others;
  for (unsigned i = 0; i <= kMostTaken; ++i) {
    UniqueFd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!master) return errno_error("a pseudo-terminal");
    const auto number = number_of_master(master.get());
    if (number == wanted || (number > wanted && others.empty())) return master;
    if (number > wanted) break;
    others.push_back(std::move(master));
  }
  return std::move(others.front());
}

struct Master {
  uint32_t file = 0;
  PseudoTerminal terminal;
};

// Those of sessions that members lead, each once.
std::vector<Master> controlling(const ProcessFamily& family) {
  std::vector<Master> all;
  for (uint32_t i = 0; i < family.files.size(); ++i) {
    if (family.files[i].kind != FamilyFile::Kind::kMaster) continue;
    const auto terminal = parse(family.files[i].contents);
    const bool is_known = std::any_of(all.begin(), all.end(), [&](const Master& one) {
      return terminal && one.terminal.session == terminal->session;
    });
    if (terminal && terminal->session > 0 && !is_known) all.push_back({i, *terminal});
  }
  return all;
}

// Runs an ioctl of the slave in the process, which need not have it.
Status in_slave(FrozenProcess& process, uint64_t master, uint64_t request, uint64_t argument) {
  const int64_t slave =
      process.call(SYS_ioctl, {master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC});
  if (slave < 0) return errno_error("the slave of a pseudo-terminal", static_cast<int>(-slave));
  const auto number = static_cast<uint64_t>(slave);
  const int64_t result = process.call(SYS_ioctl, {number, request, argument});
  process.call(SYS_close, {number});
  if (result < 0) return errno_error("the controlling terminal", static_cast<int>(-result));
  return {};
}

}  // namespace

bool is_terminal(const StolenFd& fd) {
  termios settings;
  return S_ISCHR(fd.attributes.st_mode) && tcgetattr(fd.copy.get(), &settings) == 0;
}

// Field 8 of /proc/PID/stat, proc(5): only those who have the terminal may ask it.
std::string terminal_bytes(const StolenFd& fd, pid_t owner) {
  FamilyTerminal terminal;
  tcgetattr(fd.copy.get(), &terminal.settings);
  ioctl(fd.copy.get(), TIOCGWINSZ, &terminal.size);
  if (auto fields = stat_fields(owner))
    terminal.foreground = std::max(stat_number<int32_t>(*fields, 8), 0);
  return {reinterpret_cast<const char*>(&terminal), sizeof terminal};
}

std::optional<uint32_t> number_of_master(int fd) {
  unsigned number = 0;
  if (ioctl(fd, TIOCGPTN, &number) != 0) return std::nullopt;
  return number;
}

// The kernel tells a device number as 32 bits; of a master it tells its slaves'.
std::optional<uint32_t> number_of_slave(int fd) {
  unsigned device = 0;
  if (number_of_master(fd) || ioctl(fd, TIOCGDEV, &device) != 0 || major(device) != kSlaves)
    return std::nullopt;
  return minor(device);
}

Result<std::string> describe_pseudo_terminal(int master, bool has_slaves) {
  PseudoTerminal terminal;
  int is_locked = 0, is_packet = 0;
  if (tcgetattr(master, &terminal.settings) != 0) return errno_error("a pseudo-terminal");
  ioctl(master, TIOCGWINSZ, &terminal.size);
  ioctl(master, TIOCGPTLCK, &is_locked);
  ioctl(master, TIOCGPKT, &is_packet);
  if (ioctl(master, TIOCGSID, &terminal.session) != 0) terminal.session = 0;
  if (ioctl(master, TIOCGPGRP, &terminal.foreground) != 0) terminal.foreground = 0;
  pollfd polled{master, 0, 0};
  terminal.is_locked = is_locked != 0;
  terminal.is_packet = is_packet != 0;
  terminal.is_hung_up = poll(&polled, 1, 0) == 1 && (polled.revents & POLLHUP) != 0;
  auto in_flight = see_in_flight(master, terminal, has_slaves);
  if (!in_flight) return in_flight.error();
  terminal.input_bytes = static_cast<uint32_t>(in_flight->input.size());
  terminal.output_bytes = static_cast<uint32_t>(in_flight->output.size());
  return std::string(reinterpret_cast<const char*>(&terminal), sizeof terminal) + in_flight->input +
         in_flight->output;
}

// Slaves are opened by their paths, in the session, where programs look for them.
Result<UniqueFd> make_pseudo_terminal(const FamilyFile& file) {
  InFlight in_flight;
  const auto terminal = parse(file.contents, &in_flight);
  if (!terminal) return errno_error("a pseudo-terminal", EBADMSG);
  auto master = open_master(file.stream);
  if (!master) return master.error();
  const int locked = terminal->is_locked != 0, packet = terminal->is_packet != 0;
  ioctl(master->get(), TIOCSPTLCK, &locked);
  ioctl(master->get(), TIOCPKT, &packet);
  if (tcsetattr(master->get(), TCSANOW, &terminal->settings) != 0 ||
      ioctl(master->get(), TIOCSWINSZ, &terminal->size) != 0)
    return errno_error("settings of a pseudo-terminal");
  if (terminal->is_hung_up || terminal->input_bytes + terminal->output_bytes > 0) {
    auto slave = open_peer(master->get(), O_RDWR | O_NONBLOCK);
    if (!slave) return slave.error();
    auto put = put_output(slave->get(), terminal->settings, in_flight.output);
    if (put) put = put_input(master->get(), slave->get(), terminal->settings, in_flight.input);
    if (!put) return put.error();
  }
  fcntl(master->get(), F_SETFL, file.flags & (O_NONBLOCK | O_ASYNC));
  return master;
}

Status take_terminal(const ProcessFamily& family, int first_slot, const FamilyMember& member,
                     FrozenProcess& process) {
  for (const Master& master : controlling(family))
    if (master.terminal.session == member.pid)
      return in_slave(process, static_cast<uint64_t>(first_slot) + master.file, TIOCSCTTY, 0);
  return {};
}

Status put_foregrounds_back(const ProcessFamily& family, int first_slot,
                            const std::function<FrozenProcess&(uint32_t member)>& process) {
  for (const Master& master : controlling(family))
    for (uint32_t i = 0; i < family.members.size(); ++i) {
      const FamilyMember& member = family.members[i];
      const pid_t foreground = master.terminal.foreground;
      const bool is_members =
          std::any_of(family.members.begin(), family.members.end(),
                      [&](const FamilyMember& one) { return one.group == foreground; });
      if (member.pid != master.terminal.session || member.has_ended() || !is_members) continue;
      auto scratch = process(i).scratch();
      if (!scratch) return scratch.error();
      if (auto put = process(i).write_value(*scratch, foreground); !put) return put;
      auto set = in_slave(process(i), static_cast<uint64_t>(first_slot) + master.file, TIOCSPGRP,
                          scratch->value);
      if (!set) return set;
    }
  return {};
}

}  // namespace krg
