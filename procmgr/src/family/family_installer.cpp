// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/family_installer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <optional>
#include <tuple>

#include "family/family_installer_impl.h"
#include "family/family_ipc.h"
#include "family/family_pidfds.h"
#include "family/family_proc_files.h"
#include "family/family_terminals.h"
#include "family/family_watches.h"
#include "family/fill_sockets.h"
#include "family/range_pieces.h"
#include "family/shared_again.h"
#include "image/exec_hold.h"
#include "image/first_pages.h"
#include "image/image_installer.h"
#include "image/install_parts.h"
#include "image/task_memory.h"
#include "inotify_state.h"
#include "krg/runtime/write_at.h"

namespace krg {
namespace {

Error about(const FamilyMember& member, const Error& error) {
  return {error.code, fmt::format("process {} ({}): {}", member.pid, member.name, error.context)};
}

}  // namespace

bool FamilyInstaller::MappedFile::is_memory() const {
  return path.starts_with(kSharedMemoryPrefix) && !path.ends_with('/') &&
         path[kSharedMemoryPrefix.size()] != '/';
}

uint32_t FamilyInstaller::Impl::index_of(const ImageFile& file) {
  if (file.path.starts_with(kSharedMemoryPrefix)) {
    for (uint32_t i = 0; i < mapped.size(); ++i) {
      if (mapped[i].path != file.path) continue;
      mapped[i].bytes = std::max(mapped[i].bytes, file.bytes);
      return i;
    }
  }
  const auto known = std::find_if(mapped.begin(), mapped.end(), [&](const MappedFile& m) {
    return m.path == file.path && m.bytes == file.bytes && m.modified_ns == file.modified_ns;
  });
  if (known != mapped.end()) return static_cast<uint32_t>(known - mapped.begin());
  mapped.push_back({file.path, file.bytes, file.modified_ns});
  return static_cast<uint32_t>(mapped.size() - 1);
}

Status FamilyInstaller::Impl::parse() {
  first_slot = std::max(first_slot, after_watched_numbers(family));
  for (const FamilyMember& member : family.members) {
    for (const FamilyFd& fd : member.fds) first_slot = std::max(first_slot, fd.number + 1);
    ProcessImage& image = images.emplace_back();
    programs.push_back(-1);
    if (member.has_ended()) continue;
    auto parsed = ProcessImage::parse(member.image);
    if (!parsed) return parsed.error();
    image = std::move(*parsed);
    if (image.threads.front().tid != member.pid) return errno_error("process image", EBADMSG);
    if (!memory.is_shared()) memory.make_native(image);
    std::vector<uint32_t> numbers;
    for (const ImageFile& file : image.files) numbers.push_back(index_of(file));
    for (ImageMapping& mapping : image.mappings)
      if (mapping.kind == ImageMapping::Kind::kFile) mapping.file = numbers.at(mapping.file);
    if (numbers.front() != 0) programs.back() = static_cast<int>(numbers.front());
  }
  return {};
}

// ---- the tree, then each of them ----

void FamilyInstaller::Impl::choose_places(const std::function<NodeId(const FamilyMember&)>& place) {
  for (uint32_t i = 0; i < family.members.size(); ++i)
    places.push_back(may_go(i) ? place(family.members[i]) : node.self);
}

// Only connections of a stream or of packets in order can be had elsewhere.
bool FamilyInstaller::Impl::stays(const FamilyFile& file) const {
  if (file.kind == FamilyFile::Kind::kMaster || file.kind == FamilyFile::Kind::kSlave) return true;
  if (file.kind != FamilyFile::Kind::kSocket) return false;
  const FamilySocket& socket = family.sockets[file.pipe];
  return socket.state != FamilySocket::State::kConnected || socket.type == SOCK_DGRAM;
}

// Shared memory is made here, locks are a process's, and only the user opens files to be written.
bool FamilyInstaller::Impl::may_go(uint32_t index) const {
  const FamilyMember& member = family.members[index];
  const auto& files = images[index].files;
  return !member.has_ended() && member.locks.empty() && member.spread.empty() &&
         may_go_with_events(family, member) &&
         std::none_of(files.begin(), files.end(),
                      [](const ImageFile& file) {
                        return file.path.starts_with(kSharedMemoryPrefix) ||
                               file.modified_ns == ImageFile::kMayChange;
                      }) &&
         std::none_of(member.fds.begin(), member.fds.end(), [this](const FamilyFd& fd) {
           const FamilyFile& file = family.files[fd.file];
           return file.flock != 0 || !file.locks.empty() || !file.memory.empty() || stays(file);
         });
}

void FamilyInstaller::Impl::on_held(Result<FrozenThread> held) {
  if (is_given_up) {
    if (held) kill(held->tid(), SIGKILL);
    return;
  }
  const Status done = held ? lay_out(std::move(*held)) : Status(held.error());
  done ? start_bodies() : std::exchange(laid_out, nullptr)(done);
}

// Behind all other slots the root has the ends of connections that none of the family has.
Status FamilyInstaller::Impl::fill_all_sockets() const {
  const pid_t root_pid = family.members.front().pid;
  return fill_sockets(family, [&](uint32_t socket, bool other) {
    auto slot = static_cast<size_t>(first_slot);
    slot += other ? family.files.size() + mapped.size() + family.place_of_other_end(socket)
                  : family.file_of_socket(socket);
    return take_descriptor(root_pid, static_cast<int>(slot));
  });
}

Status FamilyInstaller::Impl::lay_out(FrozenThread root) {
  if (auto filled = fill_all_sockets(); !filled) return filled;
  tree = std::make_unique<FamilyTree>(*node.children, family,
                                      [this](const FamilyMember& leader, FrozenProcess& process) {
                                        return take_terminal(family, first_slot, leader, process);
                                      });
  if (auto grown = tree->grow(std::move(root)); !grown) return grown;
  const auto process = [this](uint32_t member) -> FrozenProcess& { return *tree->process(member); };
  if (auto put = put_foregrounds_back(family, first_slot, process); !put) return put;
  if (auto opened = open_pidfds(family, first_slot, process); !opened) return opened;
  if (auto watched = add_watches(family, first_slot, process); !watched) return watched;
  for (uint32_t i = 0; i < family.members.size(); ++i) {
    const FamilyMember& member = family.members[i];
    if (member.has_ended()) continue;
    const Status done =
        places[i] == node.self ? install(i) : place_descriptors(*tree->process(i), member);
    if (!done) return about(member, done.error());
  }
  for (uint32_t i = 0; i < family.members.size(); ++i) {
    const FamilyMember& member = family.members[i];
    if (member.has_ended()) continue;
    const Status opened = open_proc_files(family, member, process(i));
    if (!opened) return about(member, opened.error());
  }
  // Of what nodes share their home knows it.
  auto undone =
      put_undo_back(shared_ipc ? SavedIpc() : family.ipc, [this](pid_t pid) -> FrozenProcess* {
        const auto member = member_of(pid);
        return member ? tree->process(*member).get() : nullptr;
      });
  if (!undone) return undone;
  put_terminal_back();
  return tree->end_zombies();
}

// The root has the terminal; a group of another size than before is told by SIGWINCH. What fails
// leaves the terminal with the root.
void FamilyInstaller::Impl::put_terminal_back() const {
  const FamilyMember& first = family.members.front();
  for (const FamilyFd& fd : first.fds) {
    const auto terminal = family.terminal_of(fd.file);
    auto ours = terminal ? take_descriptor(first.pid, fd.number) : Result<UniqueFd>(UniqueFd());
    if (!terminal || !ours || !isatty(ours->get())) continue;
    FrozenProcess& root = *tree->process(0);
    const bool is_members =
        std::any_of(family.members.begin(), family.members.end(),
                    [&](const FamilyMember& m) { return m.group == terminal->foreground; });
    if (auto scratch = root.scratch();
        is_members && scratch && root.write_value(*scratch, terminal->foreground))
      root.call(SYS_ioctl, {static_cast<uint64_t>(fd.number), TIOCSPGRP, scratch->value});
    winsize size{};
    if (ioctl(ours->get(), TIOCGWINSZ, &size) == 0 &&
        std::tie(size.ws_row, size.ws_col) !=
            std::tie(terminal->size.ws_row, terminal->size.ws_col))
      for (const FamilyMember& m : family.members)
        if (!m.has_ended() && (m.group == terminal->foreground || !is_members))
          kill(m.pid, SIGWINCH);
    return;
  }
}

// Only now no two have all descriptors of all.
void FamilyInstaller::Impl::start_bodies() {
  for (uint32_t i = 0; i < family.members.size(); ++i)
    if (places[i] == node.self && !family.members[i].has_ended()) take_files_to_cut(i);
  starting = 1;
  for (uint32_t i = 0; i < family.members.size(); ++i)
    if (places[i] != node.self) start_body(i);
  one_body_less();
}

void FamilyInstaller::Impl::start_body(uint32_t index) {
  const FamilyMember& member = family.members[index];
  const bool has_children =
      std::any_of(family.members.begin(), family.members.end(),
                  [&](const FamilyMember& child) { return child.parent == member.pid; });
  auto image = ProcessImage::parse(member.image);
  check(image.has_value(), "an image that could be read can be read again");
  memory.rename(*image);
  MovedProcess moved;
  moved.image = std::move(*image);
  moved.is_supplied = has_late_pages && may_be_late(index);
  ++starting;
  bodies->start(
      tree->process(index), member, std::move(moved), places[index], has_children,
      [self = shared_from_this(), index] { self->take_files_to_cut(index); },
      [self = shared_from_this(), index](const Status& started) {
        if (started && self->tree) self->tree->release(index);
        if (!started && !self->failure)
          self->failure = about(self->family.members[index], started.error());
        self->one_body_less();
      });
}

void FamilyInstaller::Impl::one_body_less() {
  if (--starting > 0) return;
  if (is_given_up) return bodies->kill_all();
  auto done = std::exchange(laid_out, nullptr);
  if (done) done(failure ? Status(*failure) : Status());
}

void FamilyInstaller::Impl::take_files_to_cut(uint32_t index) {
  const FamilyMember& member = family.members[index];
  for (const FamilyFd& fd : member.fds) {
    if (!family.may_change(fd.file) || cuts.contains(fd.file)) continue;
    if (auto taken = take_descriptor(member.pid, fd.number))
      cuts[fd.file] = {std::move(*taken), family.files[fd.file].bytes};
  }
}

bool FamilyInstaller::Impl::may_be_late(uint32_t index) const {
  const FamilyMember& member = family.members[index];
  return member.spread.empty() && !sharing_again.contains(member.pid);
}

Status FamilyInstaller::Impl::install(uint32_t index) {
  const FamilyMember& member = family.members[index];
  std::shared_ptr<FrozenProcess> process = tree->process(index);
  const int first_mapped = first_slot + static_cast<int>(family.files.size());
  const int program = programs[index] < 0 ? -1 : first_mapped + programs[index];
  const auto maps_shared = [&](FrozenProcess& held, const ProcessImage& image) {
    return first_shared
               ? memory.install(held, image, first_mapped + static_cast<int>(*first_shared))
               : Status();
  };
  auto made = ImageInstaller::install_into(process, images[index], first_mapped, program,
                                           has_late_pages && may_be_late(index), maps_shared);
  if (!made) return made.error();
  installed.emplace(index, std::move(*made));
  if (auto placed = place_descriptors(*process, member); !placed) return placed;
  if (auto set = set_locks(*process, member); !set) return set;
  return parts.capabilities.adopt(member.pid, member.capabilities);
}

Status FamilyInstaller::Impl::place_descriptors(FrozenProcess& process,
                                                const FamilyMember& member) const {
  const auto first = static_cast<uint64_t>(first_slot);
  auto done = done_by_call("descriptors", process.call(SYS_close_range, {0, first - 1, 0}));
  if (!done) return done;
  for (const FamilyFd& fd : member.fds) {
    done = done_by_call(
        "descriptors",
        process.call(SYS_dup3, {first + fd.file, static_cast<uint64_t>(fd.number),
                                fd.close_on_exec ? static_cast<uint64_t>(O_CLOEXEC) : 0}));
    if (!done) return done;
  }
  return done_by_call("descriptors", process.call(SYS_close_range, {first, ~0U, 0}));
}

Status FamilyInstaller::Impl::set_locks(FrozenProcess& process, const FamilyMember& member) const {
  for (const FamilyLock& lock : member.locks) {
    const auto fd =
        std::find_if(member.fds.begin(), member.fds.end(),
                     [&](const FamilyFd& candidate) { return candidate.file == lock.file; });
    if (fd == member.fds.end()) continue;
    struct flock wanted {};
    wanted.l_type = lock.is_write ? F_WRLCK : F_RDLCK;
    wanted.l_whence = SEEK_SET;
    wanted.l_start = lock.start;
    wanted.l_len = lock.bytes;
    auto scratch = process.scratch();
    if (!scratch) return scratch.error();
    if (auto put = process.write_value(*scratch, wanted); !put) return put;
    const std::string what = "lock of " + family.files[lock.file].path;
    auto set = done_by_call(
        what.c_str(),
        process.call(SYS_fcntl, {static_cast<uint64_t>(fd->number), F_SETLK, scratch->value}));
    if (!set) return set;
  }
  return {};
}

// ---- the interface ----

Result<std::unique_ptr<FamilyInstaller>> FamilyInstaller::create(
    const Parts& parts, ProcessFamily family,
    const std::function<NodeId(const FamilyMember&)>& place) {
  auto again = parts.shared ? share_again(family) : Result<std::set<pid_t>>(std::set<pid_t>());
  if (!again) return again.error();
  auto impl = std::make_shared<Impl>(parts, std::move(family));
  impl->sharing_again = std::move(*again);
  if (auto parsed = impl->parse(); !parsed) return parsed.error();
  impl->choose_places(place);
  return std::unique_ptr<FamilyInstaller>(new FamilyInstaller(std::move(impl)));
}

FamilyInstaller::~FamilyInstaller() {
  impl_->is_given_up = true;
  impl_->installed.clear();  // kills those that have not been thawed
  impl_->tree.reset();
  impl_->bodies->kill_all();
}

const ProcessFamily& FamilyInstaller::family() const {
  return impl_->family;
}
pid_t FamilyInstaller::root() const {
  return impl_->family.members.front().pid;
}
std::vector<pid_t> FamilyInstaller::all_ids() const {
  std::vector<pid_t> ids;
  for (const FamilyMember& member : impl_->family.members) ids.push_back(member.pid);
  for (const ProcessImage& image : impl_->images)
    for (const ImageThread& thread : image.threads)
      if (thread.tid != image.threads.front().tid) ids.push_back(thread.tid);
  // Nobody else may have a group by such a number.
  for (pid_t leader : impl_->family.ended_leaders()) ids.push_back(leader);
  return ids;
}
NodeId FamilyInstaller::node_of(uint32_t member) const {
  return impl_->places.at(member);
}
const std::string& FamilyInstaller::program() const {
  return impl_->mapped.front().path;
}
int FamilyInstaller::first_slot() const {
  return impl_->first_slot;
}
const std::vector<FamilyInstaller::MappedFile>& FamilyInstaller::mapped() const {
  return impl_->mapped;
}

Status FamilyInstaller::hold(bool has_late_pages, std::function<void(Status)> laid_out) {
  impl_->has_late_pages = has_late_pages;
  impl_->laid_out = std::move(laid_out);
  return hold_at_exec(*impl_->node.children, root(), [impl = impl_](Result<FrozenThread> held) {
    impl->on_held(std::move(held));
  });
}

UniqueFd FamilyInstaller::take_userfaultfd(uint32_t member) {
  const auto found = impl_->installed.find(member);
  return found == impl_->installed.end() ? UniqueFd() : found->second->take_userfaultfd();
}

Result<std::vector<PageRange>> FamilyInstaller::mark_first_pages(
    const FamilyMember& member, const std::vector<PageRange>& ranges) {
  auto image = ProcessImage::parse(member.image);
  if (!image) return image.error();
  return krg::mark_first_pages(ranges, *image);
}

Status FamilyInstaller::write(pid_t member, std::span<const PageRange> ranges,
                              std::span<const std::byte> contents) {
  auto task = TaskMemory::open(member);
  if (!task) return task.error();
  std::vector<MemoryPiece> pieces;
  for (const PageRange& range : ranges) pieces.push_back({range.start, range.bytes});
  return task->write(pieces, contents);
}

// By a description of our own: one that appends writes at the end, wherever it is told to.
Status FamilyInstaller::clear_file(uint32_t file) const {
  if (impl_->written.contains(file)) return {};  // made anew
  const auto cut = impl_->cuts.find(file);
  if (cut == impl_->cuts.end()) return errno_error("a saved file", EBADF);
  const FamilyFile& what = impl_->family.files[file];
  UniqueFd own(
      open(fmt::format("/proc/self/fd/{}", cut->second.fd.get()).c_str(), O_WRONLY | O_CLOEXEC));
  if (!own || ftruncate(own.get(), 0) != 0 ||
      ftruncate(own.get(), static_cast<off_t>(what.bytes)) != 0)
    return errno_error(what.path);
  impl_->written[file] = std::move(own);
  return {};
}

Status FamilyInstaller::write_file(uint32_t file, std::span<const PageRange> ranges,
                                   std::span<const std::byte> contents) const {
  const FamilyFile& what = impl_->family.files[file];
  const int fd = impl_->written.at(file).get();
  return for_each_piece(what.bytes, ranges, contents,
                        [&](uint64_t at, std::span<const std::byte> bytes) {
                          return write_at(fd, at, bytes, what.path);
                        });
}

// What was written to files after the checkpoint is not theirs any more.
Status FamilyInstaller::Impl::cut_files() {
  for (const auto& [number, cut] : std::exchange(cuts, {})) {
    struct stat found {};
    if (fstat(cut.fd.get(), &found) != 0 || static_cast<uint64_t>(found.st_size) <= cut.bytes)
      continue;
    if (ftruncate(cut.fd.get(), static_cast<off_t>(cut.bytes)) != 0)
      return errno_error(family.files[number].path);
  }
  return {};
}

Status FamilyInstaller::write_memory(uint32_t memory, std::span<const PageRange> ranges,
                                     std::span<const std::byte> contents) const {
  return impl_->memory.write(memory, ranges, contents);
}

void FamilyInstaller::thaw(std::function<void(Status)> done) {
  const auto impl = impl_;  // `done` may drop this
  if (auto cut = impl->cut_files(); !cut) return done(cut);
  impl->spread_next(std::move(done));
}

// One after the other; then all others are thawed.
void FamilyInstaller::Impl::spread_next(std::function<void(Status)> done) {
  const auto next = std::find_if(installed.begin(), installed.end(), [this](const auto& entry) {
    return !family.members[entry.first].spread.empty();
  });
  if (next == installed.end()) return done(thaw());
  const FamilyMember& member = family.members[next->first];
  auto process = next->second->complete();
  installed.erase(next);
  if (!process) return done(end(about(member, process.error())));
  parts.spread.restore(
      std::move(*process), member.spread,
      [self = shared_from_this(), &member, done = std::move(done)](const Status& spread) {
        if (!spread) return done(self->end(about(member, spread.error())));
        self->is_given_up ? done(self->end(errno_error("given up", ECANCELED)))
                          : self->spread_next(done);
      });
}

// None goes on before all can: the first thing that one does may be to kill another.
Status FamilyInstaller::Impl::thaw() {
  std::vector<std::shared_ptr<FrozenProcess>> complete;
  for (auto& [index, process] : installed) {
    auto one = process->complete();
    if (!one) return end(about(family.members[index], one.error()));
    complete.push_back(std::move(*one));
  }
  for (const auto& process : complete) process->thaw();
  return end({});
}

// For the next checkpoint: nobody adds those watches again.
void FamilyInstaller::Impl::know_watched_paths() const {
  for (const FamilyFile& file : family.files)
    if (is_event_of(file, EventKind::kInotify))
      for (std::string& path : paths_of_inotify(file.contents))
        parts.watched_paths->add(family.members.front().pid, std::move(path));
}

std::optional<uint32_t> FamilyInstaller::Impl::member_of(pid_t pid) const {
  for (uint32_t i = 0; i < family.members.size(); ++i)
    if (family.members[i].pid == pid) return i;
  return std::nullopt;
}

Status FamilyInstaller::Impl::end(Status how) {
  if (!how)
    for (const FamilyMember& member : family.members)
      if (!member.has_ended()) kill(member.pid, SIGKILL);
  if (how && parts.watched_paths) know_watched_paths();
  if (how) ipc.keep();
  if (how) memory.keep();
  memory.release();
  if (how && shared_ipc)
    shared_ipc->keep([this](pid_t pid) {
      const auto member = member_of(pid);
      return member ? places[*member] : node.self;
    });
  shared_ipc.reset();
  how ? bodies->thaw() : bodies->kill_all();
  installed.clear();
  tree.reset();
  return how;
}

}  // namespace krg
