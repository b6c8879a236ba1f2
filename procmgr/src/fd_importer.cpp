// SPDX-License-Identifier: GPL-2.0-or-later
#include "fd_importer.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/openat2.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>

#include "event_fds.h"
#include "fd_exporter.h"
#include "home_socket.h"
#include "ipc/posix_queue_tree.h"
#include "krg/runtime/log.h"
#include "shared_tree.h"
#include "socket_shape.h"

namespace krg {
namespace {

// Opens `path` as a process of the session would.
UniqueFd open_in(int root, const std::string& path, int flags) {
  open_how how{};
  // openat2(2) refuses flags that mean nothing together with O_PATH.
  how.flags = O_CLOEXEC | static_cast<uint64_t>(flags & O_PATH ? flags & (O_PATH | O_DIRECTORY)
                                                               : flags | O_NOCTTY);
  how.resolve = RESOLVE_IN_ROOT;
  return UniqueFd(static_cast<int>(syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
}

bool has_offset_of_its_own(const FdRecipe& recipe) {
  return recipe.offsets == Offsets::kOwn || recipe.offsets == Offsets::kOwnUncached;
}

bool is_stream(FdKind kind) {
  return kind == FdKind::kStream || kind == FdKind::kInotify || kind == FdKind::kMaster ||
         kind == FdKind::kPidfd;
}

std::optional<CarriedSocket> carried_by(const DecodedRecipe& recipe) {
  const auto connected = decode_connected(recipe.path);
  if (!connected || connected->carried.empty()) return std::nullopt;
  auto carried = CarriedSocket::decode(recipe.fixed.home, recipe.fixed.id, connected->carried);
  return carried ? std::optional(std::move(*carried)) : std::nullopt;
}

// True when an opened file is the one that the recipe means.
bool is_same_file(int fd, const FdRecipe& recipe) {
  struct stat found {};
  if (fstat(fd, &found) != 0) return false;
  const FileIdentity here = identity_of(found);
  const FileIdentity& there = recipe.identity;
  const bool same_filesystem = here.filesystem != 0 && here.filesystem == there.filesystem;
  if (here.inode != there.inode) return false;
  if (recipe.kind == FdKind::kDirectory) return S_ISDIR(found.st_mode) || (recipe.flags & O_PATH);
  // What is written must not go into a file that only looks the same; sizes may have changed.
  if ((recipe.flags & O_ACCMODE) != O_RDONLY) return same_filesystem;
  return here.size == there.size && here.mtime_s == there.mtime_s &&
         here.mtime_ns == there.mtime_ns;
}

// By its path, so that /proc/PID/fd shows it; where that leads to another file by now, by its
// number.
UniqueFd open_shared(const SessionFs& fs, int root, const DecodedRecipe& recipe) {
  UniqueFd file = open_in(root, recipe.path, recipe.fixed.flags);
  struct stat found {};
  if (file && fstat(file.get(), &found) == 0 && found.st_dev == fs.device() &&
      fs.file_of(SharedTree::kName, found.st_ino) == recipe.fixed.identity.inode)
    return file;
  const std::string by_number = SharedTree::path_of(recipe.fixed.identity.inode);
  return UniqueFd(openat(fs.root(), by_number.c_str(), recipe.fixed.flags | O_CLOEXEC));
}

}  // namespace

void FdImporter::import_all(pid_t pid, const std::vector<ExportedFd>& fds, Done done) {
  auto job = std::make_shared<Job>();
  job->pid = pid;
  job->done = std::move(done);
  // What it has here would be in the way of what it is to have.
  if (record_locks_.has_locks(pid))
    return fail(*job, errno_error("it has a lock by fcntl(2) of a file of this node", ENOTSUP));
  begin(job, fds);
}

void FdImporter::import_passed(pid_t pid, const std::vector<ExportedFd>& fds, Done done) {
  auto job = std::make_shared<Job>();
  job->pid = pid;
  job->done = std::move(done);
  job->is_passed = true;
  begin(job, fds);
}

void FdImporter::begin(const std::shared_ptr<Job>& job, const std::vector<ExportedFd>& fds) {
  bool needs_worker = false;
  for (const ExportedFd& fd : fds) {
    auto recipe = decode_recipe(fd.recipe);
    if (!recipe) return fail(*job, recipe.error());
    Item item;
    item.number = fd.number;
    item.close_on_exec = fd.close_on_exec;
    item.recipe = std::move(*recipe);
    Status prepared = prepare(*job, item);
    needs_worker |= !item.fd && item.recipe.fixed.kind != FdKind::kSame;
    job->items.push_back(std::move(item));
    if (!prepared) return fail(*job, prepared.error());
  }
  if (!needs_worker) return finish(*job);
  open_in_worker(job);
}

// What can be had without waiting is made here.
Status FdImporter::prepare(const Job& job, Item& item) {
  const FdRecipe& recipe = item.recipe.fixed;
  // What stands for one here asks which process has it.
  if (job.pid == 0 && recipe.home != node_.self &&
      (recipe.kind == FdKind::kTerminal || recipe.kind == FdKind::kListener))
    return errno_error("a terminal or listening socket of another node", ENOTSUP);
  switch (recipe.kind) {
    case FdKind::kDevice:
      item.fd = UniqueFd(open(item.recipe.path.c_str(), recipe.flags | O_CLOEXEC));
      if (!item.fd) return errno_error("open of " + item.recipe.path);
      return {};
    case FdKind::kEvent:
      return prepare_event(item);
    case FdKind::kNewSocket:
      return prepare_new_socket(item);
    case FdKind::kSame:
      return {};  // when all others are there
    case FdKind::kStream:
    case FdKind::kInotify:
    case FdKind::kMaster:
    case FdKind::kPidfd:
      return prepare_stream(job.pid, item);
    case FdKind::kTerminal:
      return recipe.home == node_.self ? prepare_stream(job.pid, item)
                                       : prepare_terminal(job.pid, item);
    case FdKind::kSocket:
      return may_be_native(item) ? prepare_native_socket(job.pid, item) : prepare_socket(job, item);
    case FdKind::kListener:
      return prepare_listener(job.pid, item);
    case FdKind::kPath:
    case FdKind::kFile:
    case FdKind::kDirectory:
    case FdKind::kShared:
    case FdKind::kQueue:
      return find_session_root();
    default:
      return errno_error("descriptor of an unknown kind", ENOTSUP);
  }
}

Status FdImporter::prepare_stream(pid_t pid, Item& item) {
  const FdRecipe& recipe = item.recipe.fixed;
  if (recipe.home == node_.self) {  // back at home: the description itself
    auto copy = home_.native_copy(recipe.id);
    if (!copy) return copy.error();
    item.fd = std::move(*copy);
    const bool moved_by_others = recipe.offsets == Offsets::kShared &&
                                 lseek(item.fd.get(), 0, SEEK_CUR) != recipe.known_offset;
    if (recipe.offsets != Offsets::kAtHome && !moved_by_others)
      lseek(item.fd.get(), recipe.offset, SEEK_SET);
    if (recipe.kind == FdKind::kMaster) fcntl(item.fd.get(), F_SETFL, recipe.flags & O_NONBLOCK);
    return {};
  }
  if (!fs_.is_serving())
    return errno_error("streams of other nodes need /dev/fuse, which is not to be had here",
                       ENOTSUP);
  acquire(item);
  StreamSource source{recipe.home, recipe.id, recipe.offsets != Offsets::kAtHome,
                      recipe.pollable != 0, recipe.offsets != Offsets::kOwnUncached};
  if (recipe.offsets == Offsets::kShared) {
    source.cached = false;
    source.shared_offset = recipe.known_offset;
  }
  source.is_inotify = recipe.kind == FdKind::kInotify;
  source.is_master = recipe.kind == FdKind::kMaster;
  if (recipe.kind == FdKind::kPidfd) source.process = static_cast<pid_t>(recipe.detail);
  if (auto ready = tree_.take_from_stock(source, recipe.flags, pid))
    item.fd = std::move(*ready);
  else
    item.import = tree_.add_import(source, pid);
  return {};
}

// Takes a reference at the home.
void FdImporter::acquire(Item& item) {
  const FdRecipe& recipe = item.recipe.fixed;
  if (recipe.home == recipe.exporter) {
    StreamTaken taken;
    taken.home = recipe.id;
    taken.guard = recipe.guard;
    item.settled = std::make_shared<int>();  // nothing more to tell
    if (!node_.messenger.send(recipe.home, taken))
      log_debug("streams", "import: n{} is gone", recipe.home.value);
    return;
  }
  StreamAcquire message;
  message.home = recipe.id;
  // The exporter lets go once the home knows us, and what we want of the exporter itself is asked.
  item.settled = std::shared_ptr<void>(this, [this, recipe](void*) { tell_exporter(recipe); });
  node_.messenger.request(recipe.home, message, {},
                          [settled = item.settled](Result<std::string> acquired) {
                            if (!acquired)
                              log_warn("streams", "import: {}", acquired.error().message());
                          });
}

Status FdImporter::prepare_terminal(pid_t pid, Item& item) {
  const FdRecipe& recipe = item.recipe.fixed;
  TerminalMirrors::Source source{recipe.home, recipe.id, {}};
  if (item.recipe.path.size() != sizeof source.settings)
    return errno_error("recipe of a terminal", EPROTO);
  std::memcpy(&source.settings, item.recipe.path.data(), sizeof source.settings);
  bool is_new = false;
  auto slave = mirrors_.open(pid, source, recipe.flags, is_new);
  if (!slave) return slave.error();
  if (is_new) acquire(item);
  item.fd = std::move(*slave);
  return {};
}

Status FdImporter::prepare_event(Item& item) {
  const FdRecipe& recipe = item.recipe.fixed;
  auto made = make_event_fd(static_cast<EventKind>(recipe.detail), item.recipe.path,
                            recipe.flags & O_NONBLOCK);
  if (!made) return made.error();
  item.fd = std::move(*made);
  return {};
}

Status FdImporter::prepare_new_socket(Item& item) {
  auto made = make_new_socket(item.recipe.path, item.recipe.fixed.flags);
  if (!made) return made.error();
  item.fd = std::move(*made);
  return {};
}

Status FdImporter::share_description(const Job& job, Item& item) {
  for (const Item& other : job.items)
    if (other.number == static_cast<int>(item.recipe.fixed.detail) && other.fd)
      item.fd = UniqueFd(fcntl(other.fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!item.fd) return errno_error("recipe of a descriptor", EPROTO);
  return {};
}

// Several descriptors of one socket are one socket here, too.
Status FdImporter::prepare_socket(const Job& job, Item& item) {
  const FdRecipe& recipe = item.recipe.fixed;
  for (const Item& other : job.items) {
    const FdRecipe& made = other.recipe.fixed;
    if (made.kind != FdKind::kSocket || made.home != recipe.home || made.id != recipe.id) continue;
    item.fd = UniqueFd(fcntl(other.fd.get(), F_DUPFD_CLOEXEC, 0));
    if (!item.fd) return errno_error("dup");
    return {};
  }
  const auto connected = decode_connected(item.recipe.path);
  if (!connected) return errno_error("recipe of a socket", EPROTO);
  const auto carried = carried_by(item.recipe);
  if (!carried && !connected->carried.empty()) return errno_error("recipe of a socket", EPROTO);
  acquire(item);
  const SocketRelays::Shape shape{static_cast<int>(recipe.detail & ~kPassesFds), recipe.flags,
                                  (recipe.detail & kPassesFds) != 0};
  auto opened = relays_.open(job.pid, recipe.home, recipe.id, shape, carried ? &*carried : nullptr);
  if (!opened) return opened.error();
  item.fd = std::move(*opened);
  set_options(item.fd.get(), connected->options);
  return {};
}

// At its home, unless the body has to have something before what the socket has.
bool FdImporter::may_be_native(const Item& item) const {
  if (item.recipe.fixed.home != node_.self) return false;
  const auto carried = carried_by(item.recipe);
  if (!carried) return true;
  const auto* socket = dynamic_cast<HomeSocket*>(home_.find(item.recipe.fixed.id));
  return socket != nullptr && socket->can_be_native(*carried);
}

Status FdImporter::prepare_native_socket(pid_t pid, Item& item) {
  if (Status made = prepare_stream(pid, item); !made) return made;
  const auto carried = carried_by(item.recipe);
  if (!carried) return {};
  dynamic_cast<HomeSocket&>(*home_.find(item.recipe.fixed.id)).become_native(*carried);
  for (const CarriedPiece& piece : carried->came) relays_.drop_passed(piece.passed);
  if (const auto connected = decode_connected(item.recipe.path))
    set_options(item.fd.get(), connected->options);
  if (carried->state.body_ended) shutdown(item.fd.get(), SHUT_WR);
  fcntl(item.fd.get(), F_SETFL, item.recipe.fixed.flags & O_NONBLOCK);
  return {};
}

Status FdImporter::prepare_listener(pid_t pid, Item& item) {
  const FdRecipe& recipe = item.recipe.fixed;
  ListenerShape shape;
  if (item.recipe.path.size() != sizeof shape)
    return errno_error("recipe of a listening socket", EPROTO);
  std::memcpy(&shape, item.recipe.path.data(), sizeof shape);
  const ListenerRelays::Origin from{recipe.home,
                                    recipe.id,
                                    recipe.exporter,
                                    {recipe.exporter, 0, static_cast<uint64_t>(recipe.offset)},
                                    recipe.detail != 0};
  if (recipe.home == node_.self) {
    auto native = home_.native_copy(recipe.id);
    if (!native) return native.error();
    item.fd = std::move(*native);
    listeners_.come_home(pid, from);
    fcntl(item.fd.get(), F_SETFL, recipe.flags & O_NONBLOCK);
    return {};
  }
  acquire(item);
  auto opened = listeners_.open(pid, from, shape, recipe.flags);
  if (!opened) return opened.error();
  item.fd = std::move(*opened);
  return {};
}

Status FdImporter::find_session_root() {
  if (session_root_) return {};
  return run_in_mount_namespace(node_.session_mount_ns, [this]() -> Status {
    session_root_ = UniqueFd(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!session_root_) return errno_error("open of the session's root directory");
    return {};
  });
}

void FdImporter::open_in_worker(const std::shared_ptr<Job>& job) {
  auto open_all = [job, root = session_root_.get(), &tree = tree_, &fs = fs_] {
    for (Item& item : job->items) {
      const FdRecipe& recipe = item.recipe.fixed;
      if (item.fd || recipe.kind == FdKind::kSame) continue;
      if (item.import != 0) {
        auto opened = tree.open_import(item.import, has_offset_of_its_own(recipe), recipe.flags);
        if (!opened) {
          item.error = opened.error();
          continue;
        }
        item.fd = std::move(*opened);
      } else if (recipe.kind == FdKind::kQueue) {
        const std::string path =
            PosixQueueTree::path_of(static_cast<int64_t>(recipe.identity.inode));
        item.fd = UniqueFd(openat(fs.root(), path.c_str(), recipe.flags | O_CLOEXEC));
        if (!item.fd) item.error = errno_error("open of a message queue");
      } else if (recipe.kind == FdKind::kShared) {
        item.fd = open_shared(fs, root, item.recipe);
        if (!item.fd) item.error = errno_error("open of " + item.recipe.path);
      } else {
        item.fd = open_in(root, item.recipe.path, recipe.flags);
        if (!item.fd) item.error = errno_error("open of " + item.recipe.path);
        if (recipe.kind != FdKind::kPath && item.fd && !is_same_file(item.fd.get(), recipe)) {
          item.fd.reset();
          item.error = errno_error(item.recipe.path + " is another file here", ENOTSUP);
        }
        item.elsewhere = !item.fd && recipe.kind == FdKind::kFile;
      }
      if (item.fd && recipe.offset != 0) lseek(item.fd.get(), recipe.offset, SEEK_SET);
    }
  };
  node_.workers.submit(open_all, [this, job] { open_streams_for_missing_files(job); });
}

void FdImporter::open_streams_for_missing_files(const std::shared_ptr<Job>& job) {
  bool again = false;
  for (Item& item : job->items) {
    if (item.elsewhere) {
      item.elsewhere = false;
      item.recipe.fixed.kind = FdKind::kStream;
      if (Status prepared = prepare_stream(job->pid, item); !prepared)
        return fail(*job, prepared.error());
      again = true;
    } else if (!item.fd && item.recipe.fixed.kind != FdKind::kSame) {
      return fail(*job, item.error);
    }
  }
  if (again) return open_in_worker(job);
  finish(*job);
}

void FdImporter::finish(Job& job) {
  for (Item& item : job.items)
    if (item.recipe.fixed.kind == FdKind::kSame)
      if (Status shared = share_description(job, item); !shared) return fail(job, shared.error());
  std::vector<ImportedFd> imported;
  for (Item& item : job.items) {
    if (!job.is_passed) lend_offset(job.pid, item);
    if (!item.settled) tell_exporter(item.recipe.fixed);
    const FdRecipe& recipe = item.recipe.fixed;
    const bool polls =
        recipe.kind == FdKind::kEvent && recipe.detail == static_cast<uint32_t>(EventKind::kPoll);
    imported.push_back({item.number, std::move(item.fd), item.close_on_exec,
                        polls ? std::move(item.recipe.path) : std::string(),
                        is_stream(recipe.kind) && recipe.home != node_.self});
  }
  job.done(std::move(imported));
}

void FdImporter::fail(Job& job, Error error) {
  for (Item& item : job.items)
    if (item.import != 0 && !item.fd) tree_.drop_import(item.import);
  job.items.clear();  // closes what was opened
  job.done(std::move(error));
}

void FdImporter::tell_exporter(const FdRecipe& recipe) {
  if (recipe.guard.value == 0) return;
  StreamExportDone message;
  message.guard = recipe.guard;
  if (!node_.messenger.send(recipe.exporter, message))
    log_debug("streams", "export of n{} settled: the node is gone", recipe.exporter.value);
}

// A reopened file has an offset of its own; whoever goes on with the original after the body has
// ended expects it where the body left it.
void FdImporter::lend_offset(pid_t pid, const Item& item) {
  const FdRecipe& recipe = item.recipe.fixed;
  if (item.import != 0 && recipe.offsets == Offsets::kShared) return share_offset(pid, item);
  const bool by_path = recipe.kind == FdKind::kFile && (recipe.flags & O_ACCMODE) == O_RDONLY;
  const bool by_stream =
      item.import != 0 && has_offset_of_its_own(recipe) && (recipe.flags & O_ACCMODE) == O_RDONLY;
  if (!by_path && !by_stream) return;
  Loan loan{UniqueFd(fcntl(item.fd.get(), F_DUPFD_CLOEXEC, 0)), recipe.exporter, recipe.guard,
            recipe.offset};
  if (!loan.fd) return log_warn("streams", "dup for the offset of descriptor {}", item.number);
  StreamAcquire acquire;
  acquire.home = recipe.guard;
  node_.messenger.request(recipe.exporter, acquire, {}, [](Result<std::string>) {});
  loans_[pid].push_back(std::move(loan));
}

// Where it has sought to last is told when it ends.
void FdImporter::share_offset(pid_t pid, const Item& item) {
  const FdRecipe& recipe = item.recipe.fixed;
  Loan loan{UniqueFd(fcntl(item.fd.get(), F_DUPFD_CLOEXEC, 0)), recipe.home, recipe.id, 0,
            item.import};
  if (!loan.fd) return log_warn("streams", "dup for the offset of descriptor {}", item.number);
  loans_[pid].push_back(std::move(loan));
}

void FdImporter::settle_offsets() {
  for (const auto& [pid, loans] : loans_) settle(loans, true);
}

void FdImporter::settle(const std::vector<Loan>& loans, bool may_be_reading) {
  for (const Loan& loan : loans) {
    if (loan.shared != 0) tree_.settle_offset(loan.shared, loan.fd.get(), may_be_reading);
  }
}

void FdImporter::body_ended(pid_t pid, std::function<void()> done) {
  auto found = loans_.find(pid);
  if (found == loans_.end()) return done();
  const std::vector<Loan> loans = std::move(found->second);
  settle(loans, false);
  loans_.erase(found);
  auto all_home = std::shared_ptr<void>(nullptr, [done = std::move(done)](void*) { done(); });
  for (const Loan& loan : loans) {
    if (loan.shared != 0) continue;
    const int64_t now = lseek(loan.fd.get(), 0, SEEK_CUR);
    if (now < 0 || now == loan.lent) {
      StreamClose close;
      close.home = loan.guard;
      if (!node_.messenger.send(loan.exporter, close)) continue;
      continue;
    }
    StreamOffsetBack back;
    back.home = loan.guard;
    back.lent = loan.lent;
    back.returned = now;
    node_.messenger.request(loan.exporter, back, {}, [all_home](Result<std::string>) {});
  }
}

}  // namespace krg
