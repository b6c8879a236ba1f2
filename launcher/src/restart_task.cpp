// SPDX-License-Identifier: GPL-2.0-or-later
#include "restart_task.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "krg/procmgr/process_family.h"
#include "krg/procmgr/syscall_filter.h"
#include "krg/runtime/hex.h"

namespace krg {

using nlohmann::json;
using Kind = FamilyFile::Kind;

namespace {

// Krgrun's terminal among its streams; a stream that does as well where there is none.
int terminal_stream(int flags) {
  for (int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (isatty(stream)) return stream;
  return (flags & O_ACCMODE) == O_RDONLY ? STDIN_FILENO : STDOUT_FILENO;
}

// A terminal that takes another one's place is set as that was.
Result<UniqueFd> copy_of_stream(int fd, const std::string& settings) {
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) return errno_error("a standard stream");
  termios wanted{};
  if (settings.size() == sizeof wanted && isatty(fd)) {
    memcpy(&wanted, settings.data(), sizeof wanted);
    sigset_t stops, before;
    sigemptyset(&stops);
    sigaddset(&stops, SIGTTOU);
    sigprocmask(SIG_BLOCK, &stops, &before);
    tcsetattr(fd, TCSANOW, &wanted);
    sigprocmask(SIG_SETMASK, &before, nullptr);
  }
  return copy;
}

void allow_many_descriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// What the program wrote itself before it was ended is cut off; of the rest nothing is known.
void tell_changes(const RestartPlan::File& file, int fd) {
  struct stat found {};
  if (file.modified_ns == 0 || fstat(fd, &found) != 0) return;
  const bool is_read = (file.flags & O_ACCMODE) == O_RDONLY;
  const bool has_changed =
      is_read ? static_cast<uint64_t>(found.st_size) != file.bytes ||
                    found.st_mtim.tv_sec * 1'000'000'000 + found.st_mtim.tv_nsec != file.modified_ns
              : static_cast<uint64_t>(found.st_size) < file.bytes;
  if (has_changed) fmt::print(stderr, "krgrun: {} has changed since the checkpoint\n", file.path);
}

}  // namespace

RestartPlan RestartPlan::parse(const json& answer, uint32_t job) {
  RestartPlan plan;
  plan.job = job;
  plan.version = answer.value("version", 0u);
  plan.pid = answer.value("pid", 0);
  plan.program = answer.value("program", std::string());
  plan.first_slot = answer.value("first_slot", 3);
  for (const json& file : answer.value("files", json::array()))
    plan.files.push_back(
        {file.value("kind", 0u), file.value("path", std::string()), file.value("flags", 0),
         file.value("offset", int64_t{0}), file.value("stream", 0), file.value("flock", 0),
         file.value("socket", 0u), file.value("master", 0u), file.value("bytes", uint64_t{0}),
         file.value("modified_ns", int64_t{0}), file.value("mode", mode_t{0}),
         file.value("is_put_back", false), from_hex(file.value("terminal", std::string())),
         file.value("locks", std::vector<RestartPlan::Lock>())});
  for (const json& file : answer.value("mapped", json::array()))
    plan.mapped.push_back({file.value("path", std::string()), file.value("bytes", uint64_t{0}),
                           file.value("modified_ns", int64_t{0})});
  plan.sockets = RestartSockets::parse(answer.value("sockets", json::array()));
  plan.lost = answer.value("lost", std::vector<std::string>());
  plan.distant_threads = answer.value("distant_threads", false);
  return plan;
}

// In the places of their files; other ends come behind all.
Status RestartPlan::open_sockets(std::vector<UniqueFd>& slots) const {
  auto made = sockets.make();
  if (!made) return made.error();
  for (size_t i = 0; i < files.size(); ++i) {
    if (files[i].kind != static_cast<unsigned>(Kind::kSocket)) continue;
    UniqueFd& socket = made->sockets.at(files[i].socket);
    fcntl(socket.get(), F_SETFL, files[i].flags & (O_NONBLOCK | O_ASYNC));
    slots[i] = std::move(socket);
  }
  for (UniqueFd& end : made->other_ends) slots.push_back(std::move(end));
  return {};
}

Result<UniqueFd> RestartPlan::open_file(const File& file) const {
  if (file.kind == static_cast<unsigned>(Kind::kStandard))
    return copy_of_stream(file.stream, file.terminal);
  if (file.kind == static_cast<unsigned>(Kind::kTerminal))
    return copy_of_stream(terminal_stream(file.flags), file.terminal);
  constexpr int kNotAgain = O_CREAT | O_EXCL | O_TRUNC;
  const int flags = (file.flags & ~kNotAgain) | O_CLOEXEC | O_NOCTTY;
  UniqueFd opened(open(file.path.c_str(), file.is_put_back ? flags | O_CREAT : flags, file.mode));
  if (!opened) return errno_error("it had open " + file.path);
  if (!file.is_put_back) tell_changes(file, opened.get());
  if (file.offset != 0 && lseek(opened.get(), file.offset, SEEK_SET) < 0 && errno != ESPIPE)
    return errno_error("the position in " + file.path);
  if (file.flock != 0 && flock(opened.get(), file.flock | LOCK_NB) != 0)
    return errno_error("the lock of " + file.path);
  for (const auto& [is_write, start, bytes] : file.locks) {
    struct flock lock {};
    lock.l_type = is_write ? F_WRLCK : F_RDLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = start;
    lock.l_len = bytes;
    if (fcntl(opened.get(), F_OFD_SETLK, &lock) != 0)
      return errno_error("the lock of " + file.path);
  }
  return opened;
}

Result<UniqueFd> RestartPlan::open_slave(const File& file, int master) {
  char path[64];
  if (ptsname_r(master, path, sizeof path) != 0) return errno_error("a pseudo-terminal");
  UniqueFd opened(open(path, (file.flags & (O_ACCMODE | O_NONBLOCK)) | O_NOCTTY | O_CLOEXEC));
  if (!opened) return errno_error(path);
  return opened;
}

bool RestartPlan::is_put_back(const std::string& path) const {
  return std::any_of(files.begin(), files.end(),
                     [&](const File& file) { return file.is_put_back && file.path == path; });
}

Result<UniqueFd> RestartPlan::open_mapped(const Mapped& file) const {
  if (file.path.starts_with(kSharedMemoryPrefix)) {
    // What was in it is put there with the pages of the processes: but those of zeros.
    const std::string path = file.path.substr(kSharedMemoryPrefix.size());
    UniqueFd made(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!made || ftruncate(made.get(), static_cast<off_t>(file.bytes)) != 0)
      return errno_error(path);
    return made;
  }
  const bool may_change = file.modified_ns < 0;
  UniqueFd opened(open(file.path.c_str(), (may_change ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (!opened) return errno_error("it had mapped " + file.path);
  struct stat found {};
  if (fstat(opened.get(), &found) != 0) return errno_error(file.path);
  if (may_change) {
    if (static_cast<uint64_t>(found.st_size) >= file.bytes || is_put_back(file.path)) return opened;
    return text_error(file.path + " is shorter than what the program had mapped");
  }
  if (static_cast<uint64_t>(found.st_size) != file.bytes ||
      found.st_mtim.tv_sec * 1'000'000'000 + found.st_mtim.tv_nsec != file.modified_ns)
    return text_error(file.path + " is not the file any more that the program had mapped");
  return opened;
}

Status RestartPlan::open_mapped(std::vector<UniqueFd>& slots, bool may_change) const {
  for (size_t i = 0; i < mapped.size(); ++i) {
    UniqueFd& slot = slots[files.size() + i];
    if (slot || (mapped[i].modified_ns < 0) != may_change) continue;
    auto opened = open_mapped(mapped[i]);
    if (!opened) return opened.error();
    slot = std::move(*opened);
  }
  return {};
}

Result<std::vector<UniqueFd>> RestartPlan::open_slots(ControlClient& krgd) const {
  std::vector<UniqueFd> slots(files.size() + mapped.size());
  for (size_t got = 0;;) {
    auto made = krgd.call("restart.files", {{"job", job}, {"from", got}});
    if (!made) return made.error();
    const json numbers = made->result.value("slots", json::array());
    if (numbers.empty()) break;
    for (size_t i = 0; i < numbers.size() && i < made->fds.size(); ++i)
      slots.at(numbers[i].get<size_t>()) = std::move(made->fds[i]);
    got += numbers.size();
  }
  if (auto opened = open_mapped(slots, false); !opened) return opened.error();
  if (auto opened = open_sockets(slots); !opened) return opened.error();
  for (size_t i = 0; i < files.size(); ++i) {
    if (slots[i]) continue;
    const bool is_slave = files[i].kind == static_cast<unsigned>(Kind::kSlave);
    auto opened =
        is_slave ? open_slave(files[i], slots.at(files[i].master).get()) : open_file(files[i]);
    if (!opened) return opened.error();
    slots[i] = std::move(*opened);
  }
  // Those that are made anew, to be filled, are there now.
  if (auto opened = open_mapped(slots, true); !opened) return opened.error();
  return slots;
}

Error RestartPlan::exec(const std::string& control_path) const {
  allow_many_descriptors();
  auto krgd = ControlClient::connect(control_path);
  if (!krgd) return krgd.error();
  auto slots = open_slots(*krgd);
  if (!slots) return slots.error();
  // Out of the way of all slots.
  const int end = first_slot + static_cast<int>(slots->size());
  for (UniqueFd& slot : *slots) {
    UniqueFd moved(fcntl(slot.get(), F_DUPFD_CLOEXEC, end));
    if (!moved) return errno_error("more descriptors");
    slot = std::move(moved);
  }
  // krgd traces it from now on, which the change of user at the session's door forbids otherwise.
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  if (auto held = krgd->call("restart.hold", {{"job", job}}); !held) return held.error();
  for (size_t i = 0; i < slots->size(); ++i)
    if (dup2((*slots)[i].get(), first_slot + static_cast<int>(i)) < 0)
      return errno_error("descriptors");
  char* const arguments[] = {const_cast<char*>(program.c_str()), nullptr};
  char* const environment[] = {nullptr};
  exec_unnotified(program.c_str(), arguments, environment);
  return errno_error(program);
}

}  // namespace krg
