// SPDX-License-Identifier: GPL-2.0-or-later
#include "task_io.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>

namespace krg {
namespace {

// Writes all of it, waiting where the reader is slow. A reader that has gone is no error here: the
// task gets SIGPIPE from its own stream when this side closes.
bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN) {
      pollfd one{fd, POLLOUT, 0};
      poll(&one, 1, -1);
      continue;
    }
    if (put < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(put));
  }
  return true;
}

std::string value_for(char letter, const PatternValues& values) {
  switch (letter) {
    case 'j':
    case 'J':
      return values.job;
    case 'N':
      return values.node_name;
    case 'n':
      return std::to_string(values.node);
    case 't':
      return std::to_string(values.task);
    case 'u': {
      const passwd* user = getpwuid(getuid());
      return user ? user->pw_name : std::to_string(getuid());
    }
    case '%':
      return "%";
    default:
      return std::string("%") + letter;
  }
}

}  // namespace

std::string expand_pattern(const std::string& pattern, const PatternValues& values) {
  std::string name;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%' || i + 1 == pattern.size()) {
      name += pattern[i];
      continue;
    }
    size_t width = 0;
    for (++i; i + 1 < pattern.size() && std::isdigit(static_cast<unsigned char>(pattern[i])); ++i)
      width = std::min<size_t>(width * 10 + static_cast<size_t>(pattern[i] - '0'), 10);
    std::string value = value_for(pattern[i], values);
    const bool is_number =
        !value.empty() &&
        std::all_of(value.begin(), value.end(), [](unsigned char c) { return std::isdigit(c); });
    if (is_number && value.size() < width) value.insert(0, width - value.size(), '0');
    name += value;
  }
  return name;
}

Result<std::unique_ptr<TaskIo>> TaskIo::open(const RunOptions& options,
                                             const PatternValues& values) {
  std::unique_ptr<TaskIo> io(new TaskIo);
  io->streams_.resize(options.tasks);
  if (auto opened = io->open_files(options, values); !opened) return opened.error();
  if (options.label)
    if (auto opened = io->open_labels(options); !opened) return opened.error();
  if (options.pty)
    if (auto opened = io->open_terminal(); !opened) return opened.error();
  return io;
}

TaskIo::~TaskIo() {
  if (saved_) tcsetattr(0, TCSADRAIN, &*saved_);
}

// A name without %t is opened once: all tasks share the file and its offset.
Status TaskIo::open_files(const RunOptions& options, PatternValues values) {
  std::map<std::pair<std::string, int>, int> opened;
  auto descriptor = [&](const std::string& pattern, int flags) -> Result<int> {
    if (pattern.empty() || pattern == "all") return -1;
    const std::string name = pattern == "none" ? "/dev/null" : expand_pattern(pattern, values);
    auto [entry, is_new] = opened.emplace(std::pair(name, flags), -1);
    if (!is_new) return entry->second;
    UniqueFd fd(::open(name.c_str(), flags | O_CLOEXEC, 0666));
    if (!fd) return errno_error("cannot open " + name);
    entry->second = fd.get();
    files_.push_back(std::move(fd));
    return entry->second;
  };
  constexpr int kWrite = O_WRONLY | O_CREAT | O_TRUNC;
  for (values.task = 0; values.task < options.tasks; ++values.task) {
    auto input = descriptor(options.input, O_RDONLY);
    auto output = descriptor(options.output, kWrite);
    auto error = descriptor(options.error.empty() ? options.output : options.error, kWrite);
    for (const auto* one : {&input, &output, &error})
      if (!*one) return one->error();
    streams_[values.task] = {*input, *output, *error, false};
  }
  return {};
}

Status TaskIo::open_labels(const RunOptions& options) {
  const auto width = std::to_string(options.tasks - 1).size();
  for (unsigned task = 0; task < options.tasks; ++task)
    for (int stream : {1, 2}) {
      int ends[2];
      if (pipe2(ends, O_CLOEXEC) != 0) return errno_error("pipe");
      int& slot = stream == 1 ? streams_[task].output : streams_[task].error;
      lines_.push_back(Lines{UniqueFd(ends[0]), slot < 0 ? stream : slot,
                             fmt::format("{:>{}}: ", task, width), ""});
      slot = ends[1];
      given_.emplace_back(ends[1]);
    }
  return {};
}

Status TaskIo::open_terminal() {
  terminal_ = UniqueFd(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  std::array<char, 64> name{};
  if (!terminal_ || grantpt(terminal_.get()) != 0 || unlockpt(terminal_.get()) != 0 ||
      ptsname_r(terminal_.get(), name.data(), name.size()) != 0)
    return errno_error("cannot make a pseudo-terminal");
  UniqueFd task_side(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!task_side) return errno_error(name.data());
  const int fd = task_side.get();
  streams_[0] = {fd, fd, fd, true};
  termios settings{};
  if (tcgetattr(0, &settings) == 0) {
    tcsetattr(fd, TCSANOW, &settings);
    saved_ = settings;
    cfmakeraw(&settings);
    tcsetattr(0, TCSADRAIN, &settings);
  }
  window_changed();
  given_.push_back(std::move(task_side));
  reads_input_ = true;
  return {};
}

void TaskIo::tasks_started() {
  given_.clear();
  files_.clear();
}

void TaskIo::window_changed() const {
  winsize size{};
  if (terminal_ && (ioctl(0, TIOCGWINSZ, &size) == 0 || ioctl(2, TIOCGWINSZ, &size) == 0))
    ioctl(terminal_.get(), TIOCSWINSZ, &size);
}

void TaskIo::add_descriptors(std::vector<pollfd>& polled) const {
  for (const Lines& lines : lines_) polled.push_back({lines.from.get(), POLLIN, 0});
  if (!terminal_) return;
  polled.push_back({terminal_.get(), POLLIN, 0});
  if (reads_input_) polled.push_back({0, POLLIN, 0});
}

void TaskIo::handle(const pollfd& ready) {
  if (!ready.revents) return;
  if (terminal_ && ready.fd == terminal_.get() && !relay_terminal_output()) terminal_.reset();
  if (terminal_ && ready.fd == 0) relay_terminal_input();
  std::erase_if(lines_,
                [&](Lines& lines) { return lines.from.get() == ready.fd && !relay(lines); });
}

// Passes whole lines on, each in one write; false at the end of the stream.
bool TaskIo::relay(Lines& lines) {
  std::array<char, 65536> buffer;
  const ssize_t got = read(lines.from.get(), buffer.data(), buffer.size());
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  if (got > 0) lines.partial.append(buffer.data(), static_cast<size_t>(got));
  if (got <= 0 && !lines.partial.empty()) lines.partial += '\n';
  std::string out;
  size_t start = 0;
  for (size_t end; (end = lines.partial.find('\n', start)) != std::string::npos; start = end + 1)
    out += lines.label + lines.partial.substr(start, end + 1 - start);
  lines.partial.erase(0, start);
  return write_all(lines.to, out) && got > 0;
}

bool TaskIo::relay_terminal_output() {
  std::array<char, 65536> buffer;
  const ssize_t got = read(terminal_.get(), buffer.data(), buffer.size());
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  // EIO: the last holder of the other side has closed it (pty(7)).
  return got > 0 && write_all(1, {buffer.data(), static_cast<size_t>(got)});
}

void TaskIo::relay_terminal_input() {
  std::array<char, 4096> buffer;
  const ssize_t got = read(0, buffer.data(), buffer.size());
  if (got < 0 && errno == EINTR) return;
  if (got > 0) {
    write_all(terminal_.get(), {buffer.data(), static_cast<size_t>(got)});
    return;
  }
  // The end of the input is typed, as a person would.
  reads_input_ = false;
  termios settings{};
  if (tcgetattr(terminal_.get(), &settings) == 0)
    write_all(terminal_.get(), {reinterpret_cast<const char*>(&settings.c_cc[VEOF]), 1});
}

void TaskIo::drain() {
  reads_input_ = false;
  while (true) {
    std::vector<pollfd> polled;
    add_descriptors(polled);
    // What is left of the job is dead: what is readable now is all that comes.
    if (polled.empty() || poll(polled.data(), polled.size(), 0) <= 0) return;
    for (const pollfd& ready : polled) handle(ready);
  }
}

}  // namespace krg
