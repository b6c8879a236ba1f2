// SPDX-License-Identifier: GPL-2.0-or-later
#include "inotify_state.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <map>
#include <optional>

#include "process_spec.h"
#include "process_threads.h"
#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr unsigned long kSetNextNumber = _IOW('I', 0, int32_t);  // INOTIFY_IOC_SETNEXTWD

// A line "inotify wd:4d ino:3c51a sdev:fe00000 mask:84000100 ignored_mask:0 fhandle-bytes:8
// fhandle-type:1 f_handle:1ac5030000000000" of fdinfo, proc_pid_fdinfo(5).
struct Watched {
  int number = -1;
  uint32_t mask = 0;
  uint64_t inode = 0;
  uint32_t device = 0;  // the kernel's own form: 12 bits major, 20 bits minor
  std::string handle;   // "8 1ac5…": type and bytes; empty: the file system has none
  int handle_type = 0;
  std::string path;  // empty: not found yet
  bool is_followed = true;
  bool is_same_file(const Watched& other) const {
    return inode == other.inode && device == other.device;
  }
};

std::optional<std::string> bytes_of_digits(std::string_view digits) {
  std::string bytes;
  for (size_t i = 0; i + 1 < digits.size(); i += 2) {
    const auto byte = to_number<uint8_t>(digits.substr(i, 2), 16);
    if (!byte) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
  }
  return bytes;
}

Result<std::vector<Watched>> watched_by(int instance) {
  auto text = read_whole_file(fmt::format("/proc/self/fdinfo/{}", instance));
  if (!text) return text.error();
  std::vector<Watched> all;
  for (std::string_view rest = *text; !rest.empty();) {
    const std::string line(next_line(rest));
    Watched one;
    std::array<char, 2 * MAX_HANDLE_SZ + 1> digits{};
    unsigned bytes = 0;
    const int found =
        sscanf(line.c_str(),
               "inotify wd:%x ino:%" SCNx64 " sdev:%" SCNx32 " mask:%" SCNx32
               " ignored_mask:%*x fhandle-bytes:%x fhandle-type:%x f_handle:%256[0-9a-f]",
               reinterpret_cast<unsigned*>(&one.number), &one.inode, &one.device, &one.mask, &bytes,
               reinterpret_cast<unsigned*>(&one.handle_type), digits.data());
    if (found < 4) continue;
    if (auto handle = found == 7 ? bytes_of_digits(digits.data()) : std::nullopt;
        handle && handle->size() == bytes)
      one.handle = std::move(*handle);
    all.push_back(std::move(one));
  }
  return all;
}

bool is_complete(const std::vector<Watched>& all) {
  return std::none_of(all.begin(), all.end(), [](const Watched& one) { return one.path.empty(); });
}

// The kernel says of an instance of our own which of the paths lead to files that are watched.
void try_paths(std::vector<Watched>& all, const std::vector<std::string>& paths, bool follow,
               std::vector<UniqueFd>& to_close) {
  if (is_complete(all) || paths.empty()) return;
  const UniqueFd& own = to_close.emplace_back(inotify_init1(IN_CLOEXEC));
  std::map<int, const std::string*> by_number;
  for (const std::string& path : paths) {
    const int number =
        inotify_add_watch(own.get(), path.c_str(), IN_DELETE_SELF | (follow ? 0 : IN_DONT_FOLLOW));
    if (number >= 0) by_number.emplace(number, &path);
  }
  auto known = watched_by(own.get());
  if (!known) return;
  for (const Watched& candidate : *known)
    for (Watched& one : all)
      if (const auto path = by_number.find(candidate.number);
          one.path.empty() && one.is_same_file(candidate) && path != by_number.end()) {
        one.path = *path->second;
        one.is_followed = follow;
      }
}

// Where a file system is mounted, by its device as fdinfo has it.
std::map<uint32_t, std::string> mount_points() {
  std::map<uint32_t, std::string> points;
  auto text = read_whole_file("/proc/self/mountinfo");
  for (std::string_view rest = text ? *text : std::string_view(); !rest.empty();) {
    unsigned major = 0, minor = 0;
    std::array<char, PATH_MAX> point{};
    if (sscanf(std::string(next_line(rest)).c_str(), "%*d %*d %u:%u %*s %4095s", &major, &minor,
               point.data()) == 3)
      points.emplace(major << 20 | minor, point.data());
  }
  return points;
}

// None: krgd may not, or there is no such file any more.
std::optional<std::string> path_of_handle(const Watched& one, const std::string& mount_point) {
  UniqueFd mount(open(mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  alignas(file_handle) std::array<char, sizeof(file_handle) + MAX_HANDLE_SZ> space{};
  if (!mount || one.handle.size() > MAX_HANDLE_SZ) return std::nullopt;
  auto* handle = reinterpret_cast<file_handle*>(space.data());
  handle->handle_bytes = static_cast<unsigned>(one.handle.size());
  handle->handle_type = one.handle_type;
  one.handle.copy(space.data() + offsetof(file_handle, f_handle), one.handle.size());
  UniqueFd file(open_by_handle_at(mount.get(), handle, O_PATH | O_CLOEXEC));
  auto path = file ? read_link(fmt::format("/proc/self/fd/{}", file.get()))
                   : Result<std::string>(errno_error("a file's handle"));
  return path ? std::optional(std::move(*path)) : std::nullopt;
}

std::vector<std::string> paths_of_handles(const std::vector<Watched>& all) {
  std::vector<std::string> paths;
  const auto points = mount_points();
  for (const Watched& one : all) {
    const auto point = points.find(one.device);
    if (!one.path.empty() || one.handle.empty() || point == points.end()) continue;
    if (auto path = path_of_handle(one, point->second)) paths.push_back(std::move(*path));
  }
  return paths;
}

std::set<pid_t> threads_of(const std::set<pid_t>& processes) {
  std::set<pid_t> threads;
  for (const pid_t pid : processes)
    for (const pid_t tid : krg::threads_of(pid)) threads.insert(tid);
  return threads;
}

void find_paths(std::vector<Watched>& all, const WatchedPaths* known,
                const std::set<pid_t>& processes, std::vector<UniqueFd>& to_close) {
  if (known) {
    const std::set<pid_t> threads = threads_of(processes);
    for (const auto& paths : {known->of(threads), known->of_others(threads)})
      for (const bool follow : {true, false}) try_paths(all, paths, follow, to_close);
  }
  if (!is_complete(all)) try_paths(all, paths_of_handles(all), false, to_close);
}

// ---- one like it ----

Error misread() {
  return errno_error("description of an inotify instance", EPROTO);
}

// "wd:3 mask:100 follow:1 path:/tmp", and a zero behind each.
Result<std::vector<Watched>> parse(std::string_view description) {
  std::vector<Watched> all;
  for (std::string_view rest = description; !rest.empty();) {
    const size_t end = rest.find('\0');
    if (end == std::string_view::npos) return misread();
    const std::string text(rest.substr(0, end));
    rest.remove_prefix(end + 1);
    Watched one;
    int follow = 0, path_at = 0;
    if (sscanf(text.c_str(), "wd:%d mask:%" SCNx32 " follow:%d path:%n", &one.number, &one.mask,
               &follow, &path_at) != 3 ||
        path_at == 0 || one.number < 1)
      return misread();
    one.is_followed = follow != 0;
    one.path = text.substr(static_cast<size_t>(path_at));
    all.push_back(std::move(one));
  }
  return all;
}

// The queue is filled to the brim, which makes the kernel add IN_Q_OVERFLOW and drop what comes
// behind it; then the events that filled it are read.
Status tell_of_loss(int instance) {
  const Error failed = errno_error("telling of lost events", EPROTO);
  auto limit = read_whole_file("/proc/sys/fs/inotify/max_queued_events");
  const size_t most = limit ? to_number<size_t>(trimmed(*limit)).value_or(0) : 0;
  UniqueFd file(static_cast<int>(memfd_create("krg-inotify", MFD_CLOEXEC)));
  const int watch = inotify_add_watch(instance, fmt::format("/proc/self/fd/{}", file.get()).c_str(),
                                      IN_ATTRIB | IN_MODIFY);
  if (most == 0 || watch < 0) return failed;
  // Two of the same one after the other would be one.
  for (size_t i = 0; i <= most; ++i)
    if ((i % 2 == 0 ? fchmod(file.get(), 0600) : ftruncate(file.get(), 0)) != 0) return failed;
  inotify_rm_watch(instance, watch);
  std::vector<char> events(4096 * sizeof(inotify_event));
  for (size_t left = most * sizeof(inotify_event); left > 0;) {
    const ssize_t got = read(instance, events.data(), std::min(left, events.size()));
    if (got <= 0) return failed;
    left -= static_cast<size_t>(got);
  }
  int queued = 0;
  if (ioctl(instance, FIONREAD, &queued) != 0 || queued != sizeof(inotify_event)) return failed;
  return {};
}

Status watch_again(int instance, const Watched& one) {
  ioctl(instance, kSetNextNumber, one.number);
  const int number = inotify_add_watch(instance, one.path.c_str(),
                                       one.mask | (one.is_followed ? 0 : IN_DONT_FOLLOW));
  if (number < 0) return errno_error("inotify watches " + one.path);
  if (number == one.number) return {};
  return errno_error(
      fmt::format("inotify watches {} by number {}, which cannot be chosen: two of its paths lead "
                  "to one file by now, or the kernel lacks CONFIG_CHECKPOINT_RESTORE",
                  one.path, one.number),
      ENOTSUP);
}

}  // namespace

Result<std::string> describe_inotify(int instance, const WatchedPaths* paths,
                                     const std::set<pid_t>& processes,
                                     std::vector<UniqueFd>& to_close) {
  auto all = watched_by(instance);
  if (!all) return all.error();
  if (!all->empty()) find_paths(*all, paths, processes, to_close);
  std::string description;
  for (const Watched& one : *all) {
    if (one.path.empty())
      return errno_error(
          fmt::format("watch {} is of a file (inode {}) that cannot be found by a path: it has "
                      "been removed, renamed, or is one of the session's",
                      one.number, one.inode),
          ENOTSUP);
    description += fmt::format("wd:{} mask:{:x} follow:{} path:{}", one.number, one.mask,
                               one.is_followed ? 1 : 0, one.path);
    description += '\0';
  }
  return description;
}

Result<UniqueFd> make_inotify(std::string_view description, int flags) {
  auto all = parse(description);
  if (!all) return all.error();
  UniqueFd instance(inotify_init1(IN_CLOEXEC | flags));
  if (!instance) return errno_error("inotify");
  if (!all->empty())
    if (auto told = tell_of_loss(instance.get()); !told) return told.error();
  std::ranges::sort(*all, {}, &Watched::number);
  for (const Watched& one : *all)
    if (auto watched = watch_again(instance.get(), one); !watched) return watched.error();
  return instance;
}

std::vector<std::string> paths_of_inotify(std::string_view description) {
  std::vector<std::string> paths;
  const auto all = parse(description);
  for (const Watched& one : all ? *all : std::vector<Watched>()) paths.push_back(one.path);
  return paths;
}

}  // namespace krg
