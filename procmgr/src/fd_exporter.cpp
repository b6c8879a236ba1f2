// SPDX-License-Identifier: GPL-2.0-or-later
#include "fd_exporter.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/kcmp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <functional>
#include <set>
#include <tuple>
#include <utility>

#include "home_socket.h"
#include "ipc/posix_queue_tree.h"
#include "krg/procmgr/exec_spec.h"
#include "local_shared_memory.h"
#include "shadow_protocol.h"
#include "shared_tree.h"
#include "socket_shape.h"

namespace krg {
namespace {

constexpr unsigned kMemoryDevices = 1;  // their major number (Linux Documentation, devices.txt)

// What open(2) is given again elsewhere.
constexpr int kKeptFlags = O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECT | O_SYNC | O_DSYNC |
                           O_NOATIME | O_DIRECTORY | O_PATH;

// Mostly it does, and others need not be looked for then.
bool shares_with_parent(pid_t pid, const StolenFd& fd) {
  const auto caller = read_exec_caller(pid);
  return caller && syscall(SYS_kcmp, pid, caller->parent, KCMP_FILE, fd.number, fd.number) == 0;
}

std::string_view memory_device_path(dev_t device) {
  if (major(device) != kMemoryDevices) return {};
  switch (minor(device)) {
    case 3:
      return "/dev/null";
    case 5:
      return "/dev/zero";
    case 7:
      return "/dev/full";
    case 8:
      return "/dev/random";
    case 9:
      return "/dev/urandom";
    default:
      return {};
  }
}

bool is_new_socket(const StolenFd& fd) {
  return S_ISSOCK(fd.attributes.st_mode) && describe_new_socket(fd.copy.get()).has_value();
}

uint64_t hash_of_boot_id() {
  UniqueFd file(open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  std::array<char, 64> text{};
  const ssize_t got = file ? read(file.get(), text.data(), text.size()) : -1;
  return got <= 0 ? 0 : std::hash<std::string_view>{}({text.data(), static_cast<size_t>(got)}) | 1;
}

}  // namespace

Error not_taken_along(const StolenFd& fd, std::string_view why) {
  const std::string kind = describe_fd(fd);
  return errno_error(
      fmt::format("descriptor {} is {}{}{}", fd.number, kind, why.empty() ? "" : ", ", why),
      ENOTSUP);
}

uint64_t filesystem_identity(dev_t device) {
  static const uint64_t boot = hash_of_boot_id();
  return boot == 0 ? 0 : boot ^ (static_cast<uint64_t>(device) << 1);
}

FileIdentity identity_of(const struct stat& attributes) {
  return {attributes.st_ino, attributes.st_size, attributes.st_mtim.tv_sec,
          attributes.st_mtim.tv_nsec, filesystem_identity(attributes.st_dev)};
}

std::vector<uint64_t> FdExporter::own_relays(pid_t pid) const {
  std::vector<uint64_t> numbers;
  auto stolen = relays_.size() > 0 ? steal_fds(pid, WhichFds::kAll) : std::vector<StolenFd>();
  if (!stolen) return numbers;  // export_all() says why
  OthersDescriptors others(pid);
  for (const StolenFd& fd : *stolen) {
    if (!S_ISSOCK(fd.attributes.st_mode)) continue;
    const auto number = relays_.find(fd.copy.get());
    if (number && !others.have(fd) &&
        std::find(numbers.begin(), numbers.end(), *number) == numbers.end())
      numbers.push_back(*number);
  }
  return numbers;
}

Result<std::vector<ExportedFd>> FdExporter::export_all(pid_t pid, WhichFds which) {
  auto stolen = steal_fds(pid, which);
  if (!stolen) return stolen.error();
  std::vector<ExportedFd> exported;
  exported_terminals_.clear();
  exported_sockets_.clear();
  exported_relays_.clear();
  mark_locked(*stolen);
  OthersDescriptors others(pid);
  for (StolenFd& fd : *stolen) {
    const int number = fd.number;
    const bool close_on_exec = fd.close_on_exec;
    const bool may_share = may_share_offset(fd);
    const bool stays = which == WhichFds::kForked && uses_offset(fd) && !may_share &&
                       !is_standard_output(fd, *stolen);
    const bool has_sharers = may_share && (which == WhichFds::kForked ||
                                           shares_with_parent(pid, fd) || have(others, fd));
    const bool has_own_state = event_kind_of(fd) || is_inotify(fd) || is_pidfd(fd) ||
                               is_pty_master(fd) || S_ISREG(fd.attributes.st_mode);
    const bool is_own = is_listening(fd) || is_new_socket(fd) || event_kind_of(fd);
    const int first = (which == WhichFds::kAll && has_own_state) || is_own
                          ? first_of_description(pid, number, *stolen)
                          : number;
    // Others that have it write where it stands, too; or accept.
    const bool may_be_alone =
        S_ISREG(fd.attributes.st_mode)
            ? (fd.flags & O_ACCMODE) != O_RDONLY && !is_standard_output(fd, *stolen)
            : is_listening(fd) || is_new_socket(fd);
    const bool leaves = which == WhichFds::kAll ||
                        (which == WhichFds::kKeptByExec && (is_listening(fd) || is_new_socket(fd)));
    const bool is_alone = leaves && may_be_alone && !have(others, fd);
    const bool holds_lock = fd.record_locked;
    const std::string_view obstacle = lock_obstacle(fd, which, is_alone);
    auto recipe = !obstacle.empty()   ? not_taken_along(fd, obstacle)
                  : stays             ? not_taken_along(fd, "whose offset its parent shares")
                  : first != number   ? export_same(fd, first)
                  : event_kind_of(fd) ? export_event(std::move(fd), pid, which, *stolen, others)
                  : is_inotify(fd)    ? export_inotify(std::move(fd), which, others)
                  : is_pidfd(fd)      ? export_pidfd(std::move(fd), pid)
                  : is_pty_master(fd)
                      ? export_master(std::move(fd), which, others)
                      : export_one(std::move(fd), is_alone, has_sharers, which, pid);
    if (!recipe) {
      cancel(exported);
      return recipe.error();
    }
    exported.push_back({number, std::move(*recipe), close_on_exec, holds_lock});
  }
  return exported;
}

// Here, or on other nodes.
bool FdExporter::have(OthersDescriptors& others, const StolenFd& fd) const {
  return others.have(fd) ||
         (S_ISREG(fd.attributes.st_mode) && home_.of_description(fd.copy.get()).value != 0);
}

// A lock by fcntl(2) ends when its process closes any of its descriptors of the file.
void FdExporter::mark_locked(std::vector<StolenFd>& fds) {
  std::set<std::pair<dev_t, ino_t>> locked;
  for (const StolenFd& fd : fds)
    if (fd.record_locked) locked.insert({fd.attributes.st_dev, fd.attributes.st_ino});
  for (StolenFd& fd : fds)
    fd.record_locked = locked.contains({fd.attributes.st_dev, fd.attributes.st_ino});
}

// Locks by flock(2) stay with the description, which stays at its home; those by fcntl(2) are the
// shadow's, which needs its first descriptors for itself. Why not, or nothing.
std::string_view FdExporter::lock_obstacle(const StolenFd& fd, WhichFds which,
                                           bool is_alone) const {
  if (fd.leased) return "which is leased";
  const bool is_own = fs_.is_serving() && fd.attributes.st_dev == fs_.device();
  const ino_t inode = fd.attributes.st_ino;
  if (is_own && (tree_.is_flocked(inode) || tree_.is_record_locked(inode)))
    return "which is locked";
  if (!fd.record_locked) return {};
  if (which != WhichFds::kAll || fd.number <= kShadowProgramFd) return "which is locked";
  const bool read_only = (fd.flags & O_ACCMODE) == O_RDONLY;
  return read_only || is_alone ? "" : "which is locked, and others have it, too";
}

// What is written there goes home, in order: programs neither seek nor read in it.
bool FdExporter::is_standard_output(const StolenFd& fd, const std::vector<StolenFd>& all) {
  if ((fd.flags & O_ACCMODE) != O_WRONLY) return false;
  return std::any_of(all.begin(), all.end(), [&](const StolenFd& other) {
    return (other.number == STDOUT_FILENO || other.number == STDERR_FILENO) &&
           other.attributes.st_dev == fd.attributes.st_dev &&
           other.attributes.st_ino == fd.attributes.st_ino;
  });
}

// They are krgd's own by now: their numbers here are those that it asks by.
Result<std::vector<ExportedFd>> FdExporter::export_passed(std::vector<UniqueFd> fds) {
  std::vector<ExportedFd> exported;
  // A process may be in the middle of being exported: what its sockets have goes along with it.
  const auto before =
      std::tuple(std::exchange(exported_terminals_, {}), std::exchange(exported_sockets_, {}),
                 std::exchange(exported_relays_, {}));
  Status all;
  for (UniqueFd& fd : fds) {
    auto own = describe_own_fd(std::move(fd));
    auto recipe = own ? export_passed_one(std::move(*own)) : own.error();
    if (!recipe) {
      all = recipe.error();
      break;
    }
    exported.push_back({static_cast<int>(exported.size()), std::move(*recipe)});
  }
  std::tie(exported_terminals_, exported_sockets_, exported_relays_) = before;
  if (all) return exported;
  cancel(exported);
  return all.error();
}

// Who passes a file mostly closes it: whoever gets it has an offset of his own.
Result<std::string> FdExporter::export_passed_one(StolenFd fd) {
  constexpr WhichFds kSenderStays = WhichFds::kForked;
  const std::string_view obstacle = lock_obstacle(fd, kSenderStays, false);
  if (!obstacle.empty()) return not_taken_along(fd, obstacle);
  OthersDescriptors others(getpid());
  if (event_kind_of(fd)) return export_event(std::move(fd), getpid(), kSenderStays, {}, others);
  if (is_inotify(fd)) return export_inotify(std::move(fd), kSenderStays, others);
  if (is_pidfd(fd)) return export_pidfd(std::move(fd), 0);
  if (is_pty_master(fd)) return export_master(std::move(fd), kSenderStays, others);
  const bool has_own_offset = S_ISREG(fd.attributes.st_mode) && !fd.link.starts_with("/memfd:");
  return export_one(std::move(fd), has_own_offset, false, kSenderStays, 0);
}

void FdExporter::cancel(const std::vector<ExportedFd>& fds) {
  for (const ExportedFd& fd : fds) {
    auto recipe = decode_recipe(fd.recipe);
    check(recipe.has_value(), "a recipe of ours can be read");
    if (recipe->fixed.exporter != node_.self) continue;
    if (recipe->fixed.kind == FdKind::kStream && recipe->fixed.home != node_.self)
      if (const auto guarded = own_fd_identity(home_.guarded(recipe->fixed.guard)))
        tree_.stays(guarded->inode);
    home_.export_done(recipe->fixed.guard);
  }
  resume_sockets(fds);
}

void FdExporter::resume_sockets(const std::vector<ExportedFd>& fds) {
  for (const ExportedFd& fd : fds) {
    auto recipe = decode_recipe(fd.recipe);
    check(recipe.has_value(), "a recipe of ours can be read");
    const auto number = static_cast<uint64_t>(recipe->fixed.offset);
    if (recipe->fixed.exporter != node_.self || number == 0) continue;
    if (recipe->fixed.kind == FdKind::kListener) listeners_.resume(number);
    if (recipe->fixed.kind == FdKind::kSocket) relays_.resume(number);
  }
}

// A stream's is at its home. A file of /dev/shm is there to be mapped: where nobody has read or
// written it yet by its offset, nobody will miss that it is shared.
bool FdExporter::uses_offset(const StolenFd& fd) const {
  const bool only_appends = (fd.flags & O_ACCMODE) == O_WRONLY && (fd.flags & O_APPEND);
  if (!S_ISREG(fd.attributes.st_mode) || (fd.flags & O_PATH) || only_appends) return false;
  if (!fs_.is_serving() || fd.attributes.st_dev != fs_.device()) return true;
  const ino_t inode = fd.attributes.st_ino;
  if (fs_.file_of(SharedTree::kName, inode) != 0) return fd.offset != 0;
  if (auto source = tree_.source_of(inode)) return source->seekable && !source->shared_offset;
  return fs_.file_of(PosixQueueTree::kName, inode) == 0;
}

// Its offset can be had from its home with each read (shared_offset.h).
bool FdExporter::may_share_offset(const StolenFd& fd) const {
  const bool is_read_only = (fd.flags & (O_ACCMODE | O_PATH)) == O_RDONLY;
  if (!S_ISREG(fd.attributes.st_mode) || !is_read_only || !fs_.is_serving()) return false;
  if (fd.attributes.st_dev == fs_.device()) {
    const auto source = tree_.source_of(fd.attributes.st_ino);
    return source && source->shared_offset;
  }
  return !fd.link.starts_with("/proc/") && !fd.link.starts_with("/sys/") &&
         !fd.link.starts_with("/memfd:") && !is_posix_shared_memory(fd.link);
}

FdRecipe FdExporter::recipe_for(FdKind kind, const StolenFd& fd) const {
  FdRecipe recipe;
  recipe.kind = kind;
  recipe.flags = fd.flags & kKeptFlags;
  if (!S_ISDIR(fd.attributes.st_mode)) recipe.flags &= ~O_DIRECTORY;  // part of O_TMPFILE, too
  recipe.home = recipe.exporter = node_.self;
  recipe.offset = fd.offset;
  recipe.identity = identity_of(fd.attributes);
  return recipe;
}

std::string FdExporter::export_same(const StolenFd& fd, int first) const {
  FdRecipe same = recipe_for(FdKind::kSame, fd);
  same.detail = static_cast<uint32_t>(first);
  return encode_recipe(same, {});
}

Result<std::string> FdExporter::export_one(StolenFd fd, bool is_alone, bool has_sharers,
                                           WhichFds which, pid_t pid) {
  // A fork's child does not: its parent's locks stay.
  const pid_t leaves = which == WhichFds::kForked ? 0 : pid;
  const mode_t type = fd.attributes.st_mode & S_IFMT;
  if (fs_.is_serving() && fd.attributes.st_dev == fs_.device()) {
    if (auto source = tree_.source_of(fd.attributes.st_ino))
      return export_again(std::move(fd), *source, leaves);
    if (fs_.file_of(StreamTree::kName, fd.attributes.st_ino) != 0)
      return not_taken_along(fd, "no longer known");
    const FileId shared = fs_.file_of(SharedTree::kName, fd.attributes.st_ino);
    const FileId queue = fs_.file_of(PosixQueueTree::kName, fd.attributes.st_ino);
    if (type == S_IFIFO) return not_taken_along(fd, "a FIFO of this node");
    if (shared != 0 && type == S_IFREG && !(fd.flags & O_PATH))
      return export_shared(std::move(fd), FdKind::kShared, shared);
    if (queue != 0 && type == S_IFREG && !(fd.flags & O_PATH))
      return export_shared(std::move(fd), FdKind::kQueue, queue);
    return encode_recipe(recipe_for(FdKind::kPath, fd), fd.link);
  }
  if (type == S_IFCHR) return export_character_device(std::move(fd));
  if (type == S_IFSOCK) return export_socket(std::move(fd), is_alone);
  if (type == S_IFIFO) return export_stream(std::move(fd));
  if (type != S_IFREG && type != S_IFDIR) return not_taken_along(fd);
  if (fd.link.starts_with("/memfd:")) {
    if (!is_alone) return not_taken_along(fd, "which others may have, too");
    const int seals = fcntl(fd.copy.get(), F_GET_SEALS);
    if (seals > 0 && (seals & ~F_SEAL_SEAL)) return not_taken_along(fd, "which is sealed");
  }
  if (is_posix_shared_memory(fd.link)) return not_taken_along(fd, "shared memory of this node");
  const bool read_only = (fd.flags & O_ACCMODE) == O_RDONLY;
  if (read_only && (fd.link.starts_with("/proc/") || fd.link.starts_with("/sys/")))
    return encode_recipe(recipe_for(FdKind::kPath, fd), fd.link);
  if (type == S_IFDIR || (fd.flags & O_PATH)) {
    if (fd.attributes.st_nlink == 0) return not_taken_along(fd, "deleted");
    return encode_recipe(recipe_for(FdKind::kDirectory, fd), fd.link);
  }
  return export_regular(std::move(fd), is_alone, has_sharers);
}

Result<std::string> FdExporter::export_character_device(StolenFd fd) {
  const std::string_view path = memory_device_path(fd.attributes.st_rdev);
  if (!path.empty()) return encode_recipe(recipe_for(FdKind::kDevice, fd), path);
  auto settings = terminal_settings(fd.copy.get());
  if (!settings) return not_taken_along(fd);
  return export_terminal(std::move(fd), *settings);
}

// All of a process's descriptors of one terminal are one terminal elsewhere, too.
Result<std::string> FdExporter::export_terminal(StolenFd fd, const TerminalSettings& settings) {
  FdRecipe recipe = recipe_for(FdKind::kTerminal, fd);
  const dev_t device = fd.attributes.st_rdev;
  auto encode = [](const FdRecipe& made, const TerminalSettings& its) {
    return encode_recipe(made, {reinterpret_cast<const char*>(&its), sizeof its});
  };
  if (auto source = mirrors_.source_of(device)) {  // a terminal of another node: no chain
    recipe.home = source->home;
    recipe.id = source->id;
    recipe.guard = home_.add_guard(std::move(fd.copy));
    return encode(recipe, source->settings);
  }
  auto known = exported_terminals_.find(device);
  if (known == exported_terminals_.end()) {
    const int number = fd.number;
    auto file = make_home_file(node_, std::move(fd.copy), fd.attributes, O_RDWR);
    if (!file)
      return errno_error(fmt::format("descriptor {}: {}", number, file.error().message()), ENOTSUP);
    known = exported_terminals_.emplace(device, home_.add(std::move(*file))).first;
    terminals_.add(known->second, settings);
  }
  recipe.id = recipe.guard = known->second;
  return encode(recipe, settings);
}

Result<std::string> FdExporter::export_socket(StolenFd fd, bool is_alone) {
  auto option = [&](int name) {
    int value = 0;
    socklen_t size = sizeof value;
    return getsockopt(fd.copy.get(), SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
  };
  const int domain = option(SO_DOMAIN), type = option(SO_TYPE);
  const bool known = domain == AF_UNIX ? true
                                       : (domain == AF_INET || domain == AF_INET6) &&
                                             option(SO_PROTOCOL) == IPPROTO_TCP;
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  if (is_alone)
    if (auto made = describe_new_socket(fd.copy.get()))
      return encode_recipe(recipe_for(FdKind::kNewSocket, fd), *made);
  if (!known) return not_taken_along(fd, "neither unix nor TCP");
  if (option(SO_ACCEPTCONN) == 1) {
    if (type != SOCK_STREAM) return not_taken_along(fd, "listening for packets");
    return export_listener(std::move(fd), is_alone);
  }
  if (getpeername(fd.copy.get(), reinterpret_cast<sockaddr*>(&peer), &size) != 0)
    return not_taken_along(fd, "not connected");
  const std::string options = limits_of_socket(fd.copy.get());
  if (auto moved = export_relay(fd)) return *moved;
  FdRecipe recipe = recipe_for(FdKind::kSocket, fd);
  recipe.offset = 0;
  recipe.detail = static_cast<uint32_t>(type) | (domain == AF_UNIX ? kPassesFds : 0);
  auto made = exported_sockets_.find(fd.attributes.st_ino);
  if (made == exported_sockets_.end()) {
    auto socket = std::make_unique<HomeSocket>(node_, relays_.passing(), std::move(fd.copy));
    if (!is_alone) socket->share(relays_.turns());
    const HomeId id = home_.add(std::move(socket));
    made = exported_sockets_.emplace(fd.attributes.st_ino, id).first;
  }
  recipe.id = recipe.guard = made->second;
  return encode_recipe(recipe, encode_connected({options, {}}));
}

// A socket of another node, whose relay is paused: it keeps its home.
std::optional<std::string> FdExporter::export_relay(StolenFd& fd) {
  auto made = exported_relays_.find(fd.attributes.st_ino);
  if (made != exported_relays_.end()) return made->second;
  const auto number = relays_.find(fd.copy.get());
  const auto carried = number ? relays_.carry(*number, fd.copy.get()) : std::nullopt;
  if (number && !carried) relays_.resume(*number);
  if (!carried) return std::nullopt;
  FdRecipe recipe = recipe_for(FdKind::kSocket, fd);
  recipe.detail = relays_.detail(*number);
  recipe.home = carried->home;
  recipe.id = carried->id;
  recipe.offset = static_cast<int64_t>(*number);
  const std::string all = encode_connected({limits_of_socket(fd.copy.get()), carried->encode()});
  recipe.guard = home_.add_guard(std::move(fd.copy));
  return exported_relays_.emplace(fd.attributes.st_ino, encode_recipe(recipe, all)).first->second;
}

// It stays here, or where it came from: connections go to where the process is.
Result<std::string> FdExporter::export_listener(StolenFd fd, bool is_alone) {
  auto shape = listener_shape_of(fd.copy.get());
  if (!shape) return shape.error();
  FdRecipe recipe = recipe_for(FdKind::kListener, fd);
  recipe.offset = 0;
  recipe.detail = is_alone ? 0 : 1;
  if (auto source = listeners_.source_of(fd.attributes.st_ino)) {
    recipe.home = source->home;
    recipe.id = source->id;
    if (is_alone) {
      recipe.offset = static_cast<int64_t>(source->number);
      listeners_.pause(source->number, fd.copy.get());
    }
    recipe.guard = home_.add_guard(std::move(fd.copy));
  } else {
    recipe.id = listeners_.keep(std::move(fd.copy), !is_alone, recipe.guard);
  }
  return encode_recipe(recipe, {reinterpret_cast<const char*>(&*shape), sizeof *shape});
}

// By path where offsets need not be shared: every write at the end, or nobody else's.
Result<std::string> FdExporter::export_regular(StolenFd fd, bool is_alone, bool has_sharers) {
  const int mode = fd.flags & O_ACCMODE;
  const bool read_only = mode == O_RDONLY;
  const bool append_only = mode == O_WRONLY && (fd.flags & O_APPEND);
  const bool linked = fd.attributes.st_nlink > 0;
  FdRecipe recipe = recipe_for(FdKind::kFile, fd);
  const bool is_locked = fd.flocked || fd.record_locked;
  if (!linked || is_locked || has_sharers || !(read_only || append_only || is_alone))
    recipe.kind = FdKind::kStream;
  if (read_only || is_alone) recipe.offsets = is_locked ? Offsets::kOwnUncached : Offsets::kOwn;
  if (has_sharers) recipe.offsets = Offsets::kShared;
  recipe.known_offset = fd.offset;
  recipe.pollable = 0;
  const std::string path = fd.link;
  recipe.id = recipe.guard =
      home_.add(std::make_unique<HomeRegular>(node_.workers, std::move(fd.copy)));
  return encode_recipe(recipe, path);
}

Result<std::string> FdExporter::export_stream(StolenFd fd) {
  FdRecipe recipe = recipe_for(FdKind::kStream, fd);
  const int number = fd.number;
  auto file = make_home_file(node_, std::move(fd.copy), fd.attributes, fd.flags);
  if (!file)
    return errno_error(fmt::format("descriptor {}: {}", number, file.error().message()), ENOTSUP);
  recipe.id = recipe.guard = home_.add(std::move(*file));
  return encode_recipe(recipe, {});
}

// The guard keeps a file without a name until it is open there, too.
Result<std::string> FdExporter::export_shared(StolenFd fd, FdKind kind, FileId file) {
  FdRecipe recipe = recipe_for(kind, fd);
  recipe.identity.inode = file;
  const std::string path = fd.link;
  recipe.guard = home_.add_guard(std::move(fd.copy));
  return encode_recipe(recipe, path);
}

// A stream whose home is elsewhere keeps its home: no chain through this node.
Result<std::string> FdExporter::export_again(StolenFd fd, const StreamSource& source,
                                             pid_t leaves) {
  if (leaves != 0) tree_.leaves(fd.attributes.st_ino, leaves);
  FdRecipe recipe = recipe_for(source.is_inotify  ? FdKind::kInotify
                               : source.is_master ? FdKind::kMaster
                               : source.process   ? FdKind::kPidfd
                                                  : FdKind::kStream,
                               fd);
  recipe.detail = static_cast<uint32_t>(source.process.value_or(0));
  recipe.home = source.home;
  recipe.id = source.id;
  recipe.offsets = !source.seekable       ? Offsets::kAtHome
                   : source.shared_offset ? Offsets::kShared
                   : source.cached        ? Offsets::kOwn
                                          : Offsets::kOwnUncached;
  if (source.shared_offset) {
    const auto [known, now] =
        tree_.settle_offset(tree_.import_of(fd.attributes.st_ino), fd.copy.get(), false);
    recipe.known_offset = known;
    recipe.offset = now;
  }
  recipe.pollable = source.pollable;
  recipe.guard = home_.add_guard(std::move(fd.copy));
  return encode_recipe(recipe, {});
}

}  // namespace krg
