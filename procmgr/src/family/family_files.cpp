// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kcmp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "family/family_pidfds.h"
#include "family/family_terminals.h"
#include "family/held_locks.h"
#include "family/pipe_ends.h"
#include "inotify_state.h"
#include "process_spec.h"
#include "process_status.h"
#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr mode_t kPermissions = 07777;
constexpr unsigned kMemoryDevices = 1;  // their major number (Linux Documentation, devices.txt)

Error not_kept(pid_t owner, const StolenFd& fd, std::string_view why) {
  return errno_error(fmt::format("process {}: descriptor {} is {}{}{}", owner, fd.number,
                                 describe_fd(fd), why.empty() ? "" : ", ", why),
                     ENOTSUP);
}

Error not_kept(pid_t owner, const StolenFd& fd, const Error& why) {
  return {why.code, fmt::format("process {}: descriptor {} is {}: {}", owner, fd.number,
                                describe_fd(fd), why.context)};
}

bool is_same_open_file(int a, int b) {
  const pid_t self = getpid();
  return syscall(SYS_kcmp, self, self, KCMP_FILE, a, b) == 0;
}

// A descriptor of krgd's own, as steal_fds() tells of others.
Result<StolenFd> stolen_from_here(UniqueFd fd) {
  StolenFd stolen;
  stolen.flags = fcntl(fd.get(), F_GETFL);
  auto link = read_link(fmt::format("/proc/self/fd/{}", fd.get()));
  if (stolen.flags < 0 || fstat(fd.get(), &stolen.attributes) != 0 || !link)
    return errno_error("a descriptor of another node", ESTALE);
  const off_t offset = lseek(fd.get(), 0, SEEK_CUR);
  stolen.offset = std::max<off_t>(offset, 0);
  stolen.link = std::move(*link);
  stolen.copy = std::move(fd);
  return stolen;
}

// What the links of all that a process has open read.
void add_links_of(pid_t pid, std::set<std::string>& links) {
  const std::string path = fmt::format("/proc/{}/fd", pid);
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  while (const dirent* entry = directory ? readdir(directory.get()) : nullptr) {
    if (entry->d_name[0] == '.') continue;
    if (auto target = read_link(fmt::format("{}/{}", path, entry->d_name)))
      links.insert(std::move(*target));
  }
}

}  // namespace

bool FamilyFiles::is_same(const Open& known, const StolenFd& fd,
                          const std::optional<Descriptors::Home>& home) const {
  if (known.is_apart || known.home.has_value() != home.has_value()) return false;
  if (home && !home->has_own_offset)
    return known.home->node == home->node && known.home->id == home->id;
  return known.fd.attributes.st_ino == fd.attributes.st_ino && known.fd.flags == fd.flags &&
         is_same_open_file(known.fd.copy.get(), fd.copy.get());
}

uint32_t FamilyFiles::insert(Open open) {
  opens_.push_back(std::move(open));
  return static_cast<uint32_t>(opens_.size() - 1);
}

// By its number, or as it was when the job began: a shell that redirects has it by another number
// meanwhile.
int FamilyFiles::standard_of(const StolenFd& fd) const {
  if (0 <= fd.number && fd.number <= STDERR_FILENO) return fd.number;
  const bool is_stream = S_ISFIFO(fd.attributes.st_mode) || S_ISSOCK(fd.attributes.st_mode);
  if (!is_stream || !stream_of_) return -1;
  return stream_of_(fd.attributes.st_dev, fd.attributes.st_ino, writes(fd));
}

Result<uint32_t> FamilyFiles::index_of(StolenFd fd, pid_t owner) {
  const int standard = standard_of(fd);
  auto home = descriptors_ ? descriptors_->home_of(fd.attributes) : std::nullopt;
  std::optional<Descriptors::RelayedSocket> relayed;
  if (descriptors_ && S_ISSOCK(fd.attributes.st_mode)) {
    auto found = descriptors_->relayed_socket(fd.copy.get());
    if (!found) return not_kept(owner, fd, found.error());
    relayed = std::move(*found);
    if (relayed) home = relayed->home;
  }
  for (uint32_t i = 0; i < opens_.size(); ++i) {
    if (!is_same(opens_[i], fd, home)) continue;
    if (standard >= 0 && opens_[i].standard < 0) opens_[i].standard = standard;
    return i;
  }
  return insert({std::move(fd), owner, standard, home, std::move(relayed)});
}

std::vector<StreamUse> FamilyFiles::streams() const {
  std::vector<StreamUse> streams;
  for (uint32_t i = 0; i < opens_.size(); ++i) {
    const Open& open = opens_[i];
    if (open.home)
      streams.push_back({.file = i,
                         .home = open.home->node,
                         .id = open.home->id,
                         .offset = open.home->has_own_offset ? open.fd.offset : -1,
                         .flags = open.fd.flags,
                         .standard = open.standard,
                         .owner = open.first_owner,
                         .arrived = open.relayed ? open.relayed->arrived : 0,
                         .unread = open.relayed ? open.relayed->unread : std::string(),
                         .unsent = open.relayed ? open.relayed->unsent : std::string()});
  }
  return streams;
}

Result<uint32_t> FamilyFiles::add(const StreamUse& use) {
  if (!descriptors_) return errno_error("a descriptor of another node", ENOTSUP);
  if (descriptors_->has_locks_from_elsewhere(use.owner))
    return errno_error("a lock by fcntl(2) of a process that has moved", ENOTSUP);
  auto copy = descriptors_->description(use.id);
  if (!copy) return copy.error();
  auto fd = stolen_from_here(std::move(*copy));
  if (!fd) return fd.error();
  fd->number = use.standard;
  const int standard = standard_of(*fd);
  // What was set there (O_NONBLOCK) is meant.
  fd->flags |= use.flags & O_NONBLOCK;
  if (use.offset < 0) {
    const int flags = fd->flags;
    for (uint32_t i = 0; i < opens_.size(); ++i) {
      fd->flags = opens_[i].fd.flags;
      if (!is_same(opens_[i], *fd, std::nullopt)) continue;
      if (standard >= 0 && opens_[i].standard < 0) opens_[i].standard = standard;
      if (auto added = add_relay(opens_[i], use); !added) return added.error();
      return i;
    }
    fd->flags = flags;
  } else {
    fd->offset = use.offset;
  }
  Open open{std::move(*fd), use.owner, standard};
  open.is_apart = use.offset >= 0;
  if (auto added = add_relay(open, use); !added) return added.error();
  return insert(std::move(open));
}

// What is on its way between a socket here and a process elsewhere that uses it.
Status FamilyFiles::add_relay(Open& open, const StreamUse& use) const {
  if (!S_ISSOCK(open.fd.attributes.st_mode)) return {};
  auto home = descriptors_->socket_at_home(use.id);
  if (!home) return home.error();
  if (home->has_waiting)
    return not_kept(use.owner, open.fd, errno_error("connections wait to be accepted", EAGAIN));
  // Those who relay a socket that listens have told it not to wait.
  if (is_listening(open.fd))
    open.fd.flags = (open.fd.flags & ~O_NONBLOCK) | (use.flags & O_NONBLOCK);
  const uint64_t skip = use.arrived - std::min(use.arrived, home->consumed);
  const std::string output = home->unwritten + use.unsent;
  const bool has_any = skip > 0 || !use.unread.empty() || !home->came.empty() || !output.empty();
  if (open.is_relayed && has_any)
    return not_kept(use.owner, open.fd, "which processes on several nodes use");
  open.is_relayed = true;
  if (has_any) open.relay = {skip, use.unread + home->came, output};
  return {};
}

Status FamilyFiles::add(FamilyMember& member, int not_its) {
  auto stolen = steal_fds(member.pid, WhichFds::kAll);
  if (!stolen) return stolen.error();
  std::sort(stolen->begin(), stolen->end(),
            [](const StolenFd& a, const StolenFd& b) { return a.number < b.number; });
  std::erase_if(*stolen, [&](const StolenFd& fd) { return fd.number == not_its; });
  for (StolenFd& fd : *stolen) {
    FamilyFd kept{fd.number, 0, fd.close_on_exec ? 1u : 0u};
    auto number = index_of(std::move(fd), member.pid);
    if (!number) return number.error();
    kept.file = *number;
    member.fds.push_back(kept);
    if (auto locks = add_locks(member, kept); !locks) return locks;
  }
  fds_[member.pid] = member.fds;
  return {};
}

// Those of a description every descriptor of it tells.
Status FamilyFiles::add_locks(FamilyMember& member, const FamilyFd& fd) {
  HeldLocks held = held_locks(member.pid, fd.number, fd.file);
  if (!held.other.empty())
    return not_kept(member.pid, opens_[fd.file].fd,
                    fmt::format("with a lock of kind {}", held.other));
  if (held.flock != 0) opens_[fd.file].flock = held.flock;
  opens_[fd.file].locks = std::move(held.of_description);
  std::move(held.of_process.begin(), held.of_process.end(), std::back_inserter(member.locks));
  return {};
}

// All are looked at once.
bool FamilyFiles::is_held_outside(const Open& open, const std::set<pid_t>& members) {
  if (outside_) return outside_->contains(open.fd.link);
  outside_.emplace();
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir("/proc"), closedir);
  while (const dirent* entry = directory ? readdir(directory.get()) : nullptr) {
    auto pid = to_number<pid_t>(std::string_view(entry->d_name));
    if (!pid || *pid <= 1 || *pid == asker_ || members.contains(*pid)) continue;
    add_links_of(*pid, *outside_);
  }
  return outside_->contains(open.fd.link);
}

Status FamilyFiles::describe(const std::set<pid_t>& members, FamilyDescription& into) {
  auto left_out = members;
  left_out.insert(asker_);
  OthersDescriptors outside(0, std::move(left_out));
  for (uint32_t i = 0; i < opens_.size(); ++i) {
    const Open& open = opens_[i];
    if (open.home) continue;
    auto file = describe_one(open, members, outside, into);
    if (!file) return file.error();
    file->flock = open.flock;
    file->locks = open.locks;
    const bool is_own =
        (file->kind == FamilyFile::Kind::kPipe && !into.pipes[file->pipe].is_lost) ||
        file->kind == FamilyFile::Kind::kQueue || file->kind == FamilyFile::Kind::kMaster ||
        (file->kind == FamilyFile::Kind::kSocket && open.standard < 0);
    if (is_own && is_held_outside(open, members))
      return not_kept(open.first_owner, open.fd, "which a process outside of the family has, too");
    into.files.push_back(std::move(*file));
    into.numbers.push_back(i);
  }
  return {};
}

Result<FamilyFile> FamilyFiles::describe_one(const Open& open, const std::set<pid_t>& members,
                                             OthersDescriptors& outside, FamilyDescription& into) {
  const StolenFd& fd = open.fd;
  const auto refused = [&](std::string_view why) { return not_kept(open.first_owner, fd, why); };
  FamilyFile file;
  file.flags = fd.flags;
  file.offset = fd.offset;
  file.path = fd.link;
  if (event_kind_of(fd)) return describe_event(open, std::move(file), outside);
  if (is_inotify(fd)) return describe_inotify(open, std::move(file), members, outside);
  if (is_pidfd(fd)) return describe_pidfd(open, std::move(file), members);
  const mode_t type = fd.attributes.st_mode & S_IFMT;
  if (type == S_IFIFO) {
    if (auto described = describe_pipe(open, file, into.pipes); !described)
      return described.error();
    return file;
  }
  if (const int64_t queue = ipc_ ? ipc_->posix_queue_of(fd.attributes) : 0; queue != 0) {
    file.kind = FamilyFile::Kind::kQueue;
    file.stream = kSharedQueue;
    file.offset = queue;
    return file;
  }
  if (const uint64_t memory = shared_ ? shared_->file_of(fd.attributes) : 0; memory != 0) {
    file.kind = FamilyFile::Kind::kMemory;
    file.bytes = memory;
    return file;
  }
  if (is_served_(fd.attributes.st_dev)) {
    if (fd.link == "/dev/tty") {
      file.kind = FamilyFile::Kind::kTerminal;
      return file;
    }
    if (!fd.link.starts_with("/proc/") && !fd.link.starts_with("/sys/"))
      return refused("of the session or of another node");
    return file;
  }
  if (type == S_IFSOCK) return describe_socket(open, std::move(file), into);
  if (type == S_IFCHR) {
    if (major(fd.attributes.st_rdev) == kMemoryDevices) return file;
    if (number_of_master(fd.copy.get())) return describe_master(open, std::move(file));
    if (!is_terminal(fd)) return refused("");
    if (const auto number = number_of_slave(fd.copy.get()); number && master_of(*number)) {
      file.kind = FamilyFile::Kind::kSlave;
      file.stream = *number;
      return file;
    }
    file.kind = open.standard >= 0 ? FamilyFile::Kind::kStandard : FamilyFile::Kind::kTerminal;
    file.stream = static_cast<uint32_t>(std::max(open.standard, 0));
    file.contents = terminal_bytes(fd, open.first_owner);
    return file;
  }
  if (type != S_IFREG && type != S_IFDIR) return refused("");
  if (!fd.link.starts_with('/')) return refused("");
  if (is_native_posix_queue(fd.copy.get())) return describe_queue(open, std::move(file));
  file.is_regular = type == S_IFREG && !(fd.flags & O_PATH);
  file.bytes = static_cast<uint64_t>(fd.attributes.st_size);
  file.modified_ns = fd.attributes.st_mtim.tv_sec * 1'000'000'000 + fd.attributes.st_mtim.tv_nsec;
  file.mode = fd.attributes.st_mode & 07777;
  if (fd.link.starts_with("/proc/") || fd.link.starts_with("/sys/")) file.is_regular = 0;
  if (fd.attributes.st_nlink > 0 && !fd.link.starts_with("/memfd:")) return file;
  if (!file.is_regular) return refused("deleted");
  if (auto described = describe_deleted(fd, file); !described)
    return not_kept(open.first_owner, fd, described.error());
  return file;
}

// The master of a pseudo-terminal, if it is a member's.
const FamilyFiles::Open* FamilyFiles::master_of(uint32_t number) const {
  const auto master = std::find_if(opens_.begin(), opens_.end(), [number](const Open& open) {
    return !open.home && S_ISCHR(open.fd.attributes.st_mode) &&
           number_of_master(open.fd.copy.get()) == number;
  });
  return master == opens_.end() ? nullptr : &*master;
}

Result<FamilyFile> FamilyFiles::describe_master(const Open& open, FamilyFile file) const {
  const uint32_t number = *number_of_master(open.fd.copy.get());
  const bool has_slaves = std::any_of(opens_.begin(), opens_.end(), [number](const Open& other) {
    return !other.home && S_ISCHR(other.fd.attributes.st_mode) &&
           number_of_slave(other.fd.copy.get()) == number;
  });
  auto description = describe_pseudo_terminal(open.fd.copy.get(), has_slaves);
  if (!description) return not_kept(open.first_owner, open.fd, description.error());
  file.kind = FamilyFile::Kind::kMaster;
  file.stream = number;
  file.contents = std::move(*description);
  return file;
}

Result<FamilyFile> FamilyFiles::describe_event(const Open& open, FamilyFile file,
                                               OthersDescriptors& outside) {
  const EventKind kind = *event_kind_of(open.fd);
  if (outside.have(open.fd))
    return not_kept(open.first_owner, open.fd, "which a process outside of the family has, too");
  // By krgd's copy: its member may be elsewhere.
  auto description = describe_event_fd(getpid(), open.fd.copy.get(), kind);
  if (!description) return not_kept(open.first_owner, open.fd, description.error().context);
  file.kind = FamilyFile::Kind::kEvent;
  file.pipe = static_cast<uint32_t>(kind);
  std::map<int, uint32_t> places;
  for (const PolledFd& polled : polled_by(*description)) {
    auto watched = find_watched(open, polled, places[polled.number]++);
    if (!watched) return watched.error();
    file.watches.push_back({*watched, polled.number, polled.events, 0, polled.data});
  }
  file.contents = std::move(*description);
  return file;
}

Result<FamilyFile> FamilyFiles::describe_inotify(const Open& open, FamilyFile file,
                                                 const std::set<pid_t>& members,
                                                 OthersDescriptors& outside) {
  if (outside.have(open.fd))
    return not_kept(open.first_owner, open.fd, "which a process outside of the family has, too");
  const WatchedPaths* paths = descriptors_ ? &descriptors_->watched_paths() : nullptr;
  auto description = krg::describe_inotify(open.fd.copy.get(), paths, members, to_close_);
  if (!description) return not_kept(open.first_owner, open.fd, description.error());
  file.kind = FamilyFile::Kind::kEvent;
  file.pipe = static_cast<uint32_t>(EventKind::kInotify);
  file.contents = std::move(*description);
  return file;
}

// Others may have one of the same process: there is nothing in it.
Result<FamilyFile> FamilyFiles::describe_pidfd(const Open& open, FamilyFile file,
                                               const std::set<pid_t>& members) const {
  auto description = krg::describe_pidfd(open.fd, members);
  if (!description) return not_kept(open.first_owner, open.fd, description.error());
  file.kind = FamilyFile::Kind::kEvent;
  file.pipe = static_cast<uint32_t>(EventKind::kPidfd);
  file.contents = std::move(*description);
  return file;
}

Result<FamilyFile> FamilyFiles::describe_queue(const Open& open, FamilyFile file) {
  auto queue = std::find_if(queues_.begin(), queues_.end(), [&](const NativePosixQueue& one) {
    return one.attributes.st_ino == open.fd.attributes.st_ino;
  });
  if (queue == queues_.end()) {
    auto opened = native_posix_queue_of(open.fd.copy.get());
    if (!opened) return not_kept(open.first_owner, open.fd, opened.error());
    queues_.push_back(std::move(*opened));
    queue = queues_.end() - 1;
  }
  file.kind = FamilyFile::Kind::kQueue;
  file.pipe = static_cast<uint32_t>(queue - queues_.begin());
  return file;
}

// A stream of another node is a file of its own in each process: there the number tells.
Result<uint32_t> FamilyFiles::find_watched(const Open& epoll, const PolledFd& polled,
                                           uint32_t place) const {
  for (uint32_t i = 0; i < opens_.size(); ++i)
    if (opens_[i].fd.attributes.st_ino == polled.inode &&
        is_polled(epoll.fd.copy.get(), polled.number, place, opens_[i].fd.copy.get()))
      return i;
  const auto owned = fds_.find(epoll.first_owner);
  if (owned != fds_.end())
    for (const FamilyFd& fd : owned->second)
      if (fd.number == polled.number && opens_[fd.file].home) return fd.file;
  return not_kept(epoll.first_owner, epoll.fd,
                  fmt::format("which watches what was descriptor {} and none of them has any more",
                              polled.number));
}

// The other end is this krgd's own, not a copy of a member's.
bool FamilyFiles::is_krgds(ino_t peer) const {
  if (peer == 0) return false;
  const bool is_members = std::any_of(opens_.begin(), opens_.end(), [peer](const Open& open) {
    return open.fd.attributes.st_ino == peer && S_ISSOCK(open.fd.attributes.st_mode);
  });
  std::set<std::string> links;
  if (!is_members) add_links_of(getpid(), links);
  return links.contains(fmt::format("socket:[{}]", peer));
}

Result<FamilyFile> FamilyFiles::describe_socket(const Open& open, FamilyFile file,
                                                FamilyDescription& into) {
  auto state = SocketState::take(open.fd.copy.get(), open.relay);
  if (!state && open.standard >= 0) {
    file.kind = FamilyFile::Kind::kStandard;
    file.stream = static_cast<uint32_t>(open.standard);
    return file;
  }
  if (!state) return not_kept(open.first_owner, open.fd, state.error());
  FamilySocket& socket = state->socket;
  if (is_krgds(state->identity.peer_inode)) {
    // What a program asks its krgd on: after a restart it asks another one.
    state->identity.peer_inode = 0;
    socket.contents.clear();
  }
  socket.standard = open.standard;
  if (socket.domain == AF_UNIX)
    if (auto folder = read_link(fmt::format("/proc/{}/cwd", open.first_owner)))
      socket.folder = std::move(*folder);
  file.kind = FamilyFile::Kind::kSocket;
  file.pipe = static_cast<uint32_t>(into.sockets.size());
  file.path = describe_socket_for_people(socket);
  into.sockets.push_back(std::move(socket));
  into.identities.push_back(state->identity);
  return file;
}

// Of a pipe, but for a standard stream to outside.
Result<FamilyFiles::PipeEnds*> FamilyFiles::pipe_of(const Open& open,
                                                    std::vector<FamilyPipe>& pipes) {
  const ino_t inode = open.fd.attributes.st_ino;
  for (auto& [known, ends] : pipes_)
    if (known == inode) return &ends;
  PipeEnds ends;
  for (const Open& other : opens_) {
    if (other.home || other.fd.attributes.st_ino != inode || !S_ISFIFO(other.fd.attributes.st_mode))
      continue;
    if (reads(other.fd)) ends.reader = &other;
    if (writes(other.fd)) ends.writer = &other;
  }
  const bool is_whole = ends.reader && ends.writer;
  const bool is_outer =
      !is_whole && !has_no_other_end(open.fd) && !(asker_ != 0 && has_other_end(asker_, open.fd));
  FamilyPipe pipe;
  pipe.path = path_of_fifo(open.fd);
  const bool is_quiet =
      is_outer && !pipe.path.empty() && ends.reader && has_no_writer(ends.reader->fd);
  const bool is_lost = is_outer && !is_quiet;
  if (is_lost && open.standard >= 0) return nullptr;
  const int capacity = fcntl(open.fd.copy.get(), F_GETPIPE_SZ);
  // What has been written to outside is not the family's any more.
  auto contents = is_lost && !ends.reader ? std::string() : contents_of_pipe(open.fd, capacity);
  if (!contents) return contents.error();
  pipe.capacity = static_cast<uint32_t>(std::max(capacity, 0));
  pipe.mode = open.fd.attributes.st_mode & kPermissions;
  pipe.is_quiet = is_quiet ? 1 : 0;
  pipe.is_lost = is_lost ? 1 : 0;
  pipe.contents = std::move(*contents);
  ends.number = static_cast<uint32_t>(pipes.size());
  pipes.push_back(std::move(pipe));
  return &pipes_.emplace_back(inode, ends).second;
}

Status FamilyFiles::describe_pipe(const Open& open, FamilyFile& file,
                                  std::vector<FamilyPipe>& pipes) {
  auto ends = pipe_of(open, pipes);
  if (!ends) return ends.error();
  if (*ends) {
    file.kind = FamilyFile::Kind::kPipe;
    file.pipe = (*ends)->number;
    return {};
  }
  file.kind = FamilyFile::Kind::kStandard;
  file.stream = static_cast<uint32_t>(open.standard);
  return {};
}

}  // namespace krg
