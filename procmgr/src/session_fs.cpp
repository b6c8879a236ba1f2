// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>

#include <algorithm>
#include <climits>

#include "ioctl_taker.h"
#include "krg/runtime/log.h"
#include "process_status.h"
#include "session_fs_impl.h"
#include "stored_files.h"

namespace krg {
namespace {

constexpr size_t kMaxTrees = 255;
constexpr double kTreeRootValid_s = 3600;  // trees never go away while they are served

// The entries of an open directory as the protocol wants them, cut at `size` bytes.
std::string directory_piece(const std::vector<FsDirEntry>& entries, size_t first, size_t size) {
  std::string piece;
  for (size_t i = first; i < entries.size(); ++i) {
    const std::string& name = entries[i].name;
    const size_t bytes = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name.size());
    if (piece.size() + bytes > size) break;
    fuse_dirent head{};
    head.ino = 0xffffffff;  // unknown until looked up; 0 would hide the name from readdir(3)
    head.off = i + 1;
    head.namelen = static_cast<uint32_t>(name.size());
    head.type = (entries[i].type & S_IFMT) >> 12;
    piece.append(reinterpret_cast<const char*>(&head), FUSE_NAME_OFFSET);
    piece.append(name);
    piece.resize(FUSE_DIRENT_ALIGN(piece.size()));
  }
  return piece;
}

}  // namespace

void SessionFs::Impl::handle(const fuse_in_header& header, std::string_view body) {
  switch (header.opcode) {  // those that name no file
    case FUSE_INIT:
      return init(header.unique, body);
    case FUSE_FORGET:
      return forget(header.nodeid, parse<fuse_forget_in>(body).nlookup);
    case FUSE_BATCH_FORGET:
      return forget_batch(body);
    case FUSE_INTERRUPT:
      return interrupt(parse<fuse_interrupt_in>(body).unique);
    case FUSE_DESTROY:
      return channel.reply(header.unique, 0);
    default:
      break;
  }
  Request request{header.unique, header.nodeid, {}, 0, nullptr, 0};
  request.caller = {static_cast<pid_t>(header.pid), header.uid, header.gid, header.unique};
  if (header.nodeid != FUSE_ROOT_ID) {
    request.number = tree_number(header.nodeid);
    request.file = header.nodeid & kFileMask;
    if (request.number >= trees.size()) return channel.reply(header.unique, ESTALE);
    request.tree = trees[request.number].tree;
  }
  switch (header.opcode) {
    case FUSE_STATFS:
      return statfs(request);
    case FUSE_OPENDIR:
      return open_directory(request);
    case FUSE_READDIR:
      return read_directory(request, body);
    case FUSE_RELEASEDIR:
      directories.erase(parse<fuse_release_in>(body).fh);
      return channel.reply(header.unique, 0);
    default:
      break;
  }
  if (request.tree == nullptr) return handle_root(header, request, body);
  handle_name_request(header, request, body);
}

void SessionFs::Impl::handle_name_request(const fuse_in_header& header, const Request& request,
                                          std::string_view body) {
  FsTree& tree = *request.tree;
  switch (header.opcode) {
    case FUSE_LOOKUP:
      // All that takes a name looks it up first. The kernel lets FUSE's be longer.
      if (body.size() > NAME_MAX + 1) return channel.reply(header.unique, ENAMETOOLONG);
      return tree.lookup(request.caller, request.file, body.data(),  // ends with a NUL
                         reply_entry(request, request.number));
    case FUSE_GETATTR:
      return tree.getattr(request.caller, request.file, reply_attributes(request));
    case FUSE_READLINK:
      return tree.readlink(
          request.caller, request.file,
          reply_to<std::string>(request, [](Impl& self, uint64_t unique, std::string target) {
            self.channel.reply(unique, 0, target);
          }));
    case FUSE_OPEN:
      return open(request, body);
    default:
      if (!handle_change(header, request, body)) handle_file_request(header, request, body);
  }
}

void SessionFs::Impl::handle_file_request(const fuse_in_header& header, const Request& request,
                                          std::string_view body) {
  FsTree& tree = *request.tree;
  switch (header.opcode) {
    case FUSE_READ: {
      const auto in = parse<fuse_read_in>(body);
      return tree.read(
          request.caller, request.file, in.fh, in.offset, in.size, static_cast<int>(in.flags),
          reply_to<std::string>(
              request, [size = in.size](Impl& self, uint64_t unique, std::string data) {
                self.channel.reply(unique, 0, std::string_view(data).substr(0, size));
              }));
    }
    case FUSE_WRITE: {
      const auto in = parse<fuse_write_in>(body);
      return tree.write(
          request.caller, request.file, in.fh, in.offset, body.substr(0, in.size),
          static_cast<int>(in.flags),
          reply_to<size_t>(request, [](Impl& self, uint64_t unique, size_t written) {
            self.channel.reply_struct(unique, fuse_write_out{static_cast<uint32_t>(written), 0});
          }));
    }
    case FUSE_POLL:
      return poll(request, body);
    case FUSE_FLUSH:
      return tree.flush(request.caller, request.file, parse<fuse_flush_in>(body).fh,
                        reply_done(request));
    case FUSE_ACCESS:
      return check_access(request, static_cast<int>(parse<fuse_access_in>(body).mask));
    case FUSE_SETLK:
    case FUSE_SETLKW:
    case FUSE_GETLK:
      return lock(request, body, header.opcode);
    case FUSE_RELEASE:
      return release(request, body);
    case FUSE_IOCTL:
      return control(request, body);
    // The kernel takes ENOSYS as "never ask again" for fsync, xattr and SEEK_DATA.
    default:
      return channel.reply(header.unique, ENOSYS);
  }
}

// The root directory: the names of the trees.
void SessionFs::Impl::handle_root(const fuse_in_header& header, const Request& request,
                                  std::string_view body) {
  if (header.opcode == FUSE_GETATTR) {
    FsEntry entry;
    entry.attributes.st_mode = S_IFDIR | 0555;
    entry.attributes.st_nlink = 2 + trees.size();
    return answer_attributes(header.unique, FUSE_ROOT_ID, entry);
  }
  if (header.opcode != FUSE_LOOKUP) return channel.reply(header.unique, ENOSYS);
  auto found = std::find_if(trees.begin(), trees.end(),
                            [&](const NamedTree& tree) { return tree.name == body.data(); });
  if (found == trees.end()) return channel.reply(header.unique, ENOENT);
  const auto number = static_cast<size_t>(found - trees.begin());
  found->tree->getattr(
      request.caller, kTreeRoot,
      reply_to<FsEntry>(request, [number](Impl& self, uint64_t unique, FsEntry entry) {
        entry.valid_s = kTreeRootValid_s;
        self.answer_entry(unique, node_id(number, kTreeRoot), entry);
      }));
}

void SessionFs::Impl::init(uint64_t unique, std::string_view body) {
  const auto in = parse<fuse_init_in>(body);
  if (in.major != FUSE_KERNEL_VERSION || in.minor < 31) {
    log_error("krgfs", "the kernel speaks FUSE {}.{}, 7.31 is needed", in.major, in.minor);
    return channel.reply(unique, EPROTO);
  }
  constexpr uint32_t kWanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
                               FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV | FUSE_MAX_PAGES |
                               FUSE_ABORT_ERROR | FUSE_CACHE_SYMLINKS | FUSE_FLOCK_LOCKS |
                               FUSE_POSIX_LOCKS;
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = std::min<uint32_t>(in.minor, FUSE_KERNEL_MINOR_VERSION);
  out.max_readahead = in.max_readahead;
  out.flags = in.flags & kWanted;
  out.max_background = 256;
  out.congestion_threshold = 192;
  out.max_write = kMaxFuseIoBytes;
  out.max_pages = kMaxFuseIoBytes / 4096;
  out.time_gran = 1;
  channel.reply_struct(unique, out);
}

void SessionFs::Impl::open(const Request& request, std::string_view body) {
  const auto in = parse<fuse_open_in>(body);
  request.tree->open(request.caller, request.file, static_cast<int>(in.flags),
                     reply_to<FsOpened>(request, [](Impl& self, uint64_t unique, FsOpened opened) {
                       self.channel.reply_struct(unique, protocol_open(opened));
                     }));
}

void SessionFs::Impl::poll(const Request& request, std::string_view body) {
  const auto in = parse<fuse_poll_in>(body);
  std::function<void()> wake;
  if (in.flags & FUSE_POLL_SCHEDULE_NOTIFY) {
    wake = [weak = weak_from_this(), kernel_handle = in.kh] {
      if (auto self = weak.lock()) self->channel.notify_poll(kernel_handle);
    };
  }
  request.tree->poll(request.caller, request.file, in.fh, std::move(wake),
                     reply_to<uint32_t>(request, [](Impl& self, uint64_t unique, uint32_t events) {
                       self.channel.reply_struct(unique, fuse_poll_out{events, 0});
                     }));
}

void SessionFs::Impl::lock(const Request& request, std::string_view body, uint32_t opcode) {
  const auto in = parse<fuse_lk_in>(body);
  if (!flocks) return channel.reply(request.unique, ENOLCK);
  const bool waits = opcode == FUSE_SETLKW;
  if (!(in.lk_flags & FUSE_LK_FLOCK)) {
    const int command = opcode == FUSE_GETLK ? F_GETLK : F_SETLK;
    return flocks->record_lock(request.caller, request.node, in.fh,
                               {in.owner, command, waits, from_protocol(in.lk)},
                               command == F_GETLK ? reply_lock(request) : reply_locked(request));
  }
  using What = FlockRequest::What;
  const FlockRequest asked{in.owner,
                           in.lk.type == F_UNLCK   ? What::kUnlock
                           : in.lk.type == F_RDLCK ? What::kShared
                                                   : What::kExclusive,
                           waits};
  flocks->flock(request.caller, request.node, in.fh, asked, reply_done(request));
}

// The other trees' files may be looked for only; what may be done with them, opening them tells.
void SessionFs::Impl::check_access(const Request& request, int mode) {
  if (mode == F_OK || !dynamic_cast<StoredFiles*>(request.tree))
    return channel.reply(request.unique, 0);
  const FsCaller caller = request.caller;
  request.tree->getattr(
      caller, request.file,
      reply_to<FsEntry>(request, [caller, mode](Impl& self, uint64_t unique, const FsEntry& file) {
        const auto groups = read_supplementary_groups(caller.tid);
        const bool granted =
            grants_access(caller, groups ? *groups : std::vector<gid_t>(), file.attributes, mode);
        self.channel.reply(unique, granted ? 0 : EACCES);
      }));
}

bool grants_access(const FsCaller& caller, const std::vector<gid_t>& groups,
                   const struct stat& file, int mode) {
  if (caller.uid == 0) return !(mode & X_OK) || S_ISDIR(file.st_mode) || (file.st_mode & 0111);
  mode_t granted = file.st_mode;
  if (caller.uid == file.st_uid)
    granted >>= 6;
  else if (caller.gid == file.st_gid ||
           std::find(groups.begin(), groups.end(), file.st_gid) != groups.end())
    granted >>= 3;
  return (granted & static_cast<mode_t>(mode)) == static_cast<mode_t>(mode);
}

void SessionFs::Impl::control(const Request& request, std::string_view body) {
  const auto in = parse<fuse_ioctl_in>(body);
  auto* taker = dynamic_cast<IoctlTaker*>(request.tree);
  if (taker == nullptr) return channel.reply(request.unique, ENOTTY);
  taker->ioctl(request.caller, {in.fh, in.cmd, in.arg, body.substr(0, in.in_size)},
               reply_to<std::string>(
                   request, [size = in.out_size](Impl& self, uint64_t unique, std::string out) {
                     const fuse_ioctl_out head{};
                     std::string answer(reinterpret_cast<const char*>(&head), sizeof head);
                     self.channel.reply(unique, 0, answer.append(out, 0, size));
                   }));
}

void SessionFs::Impl::release(const Request& request, std::string_view body) {
  const auto in = parse<fuse_release_in>(body);
  if (flocks && (in.release_flags & FUSE_RELEASE_FLOCK_UNLOCK))
    flocks->drop_flock(request.node, in.lock_owner);
  if (flocks) flocks->drop_record_locks(request.node);
  request.tree->release(request.file, in.fh);
  channel.reply(request.unique, 0);
}

void SessionFs::Impl::open_directory(const Request& request) {
  const uint64_t handle = next_directory++;
  directories.emplace(handle, OpenDirectory{});
  fuse_open_out out{};
  out.fh = handle;
  channel.reply_struct(request.unique, out);
}

// The list is taken once per rewind, so that what is read in pieces is one state of the directory.
void SessionFs::Impl::read_directory(const Request& request, std::string_view body) {
  const auto in = parse<fuse_read_in>(body);
  auto found = directories.find(in.fh);
  if (found == directories.end()) return channel.reply(request.unique, EBADF);
  if (found->second.filled && in.offset > 0) return read_filled_directory(request.unique, in);
  auto fill = [in](Impl& self, uint64_t unique, std::vector<FsDirEntry> entries) {
    auto directory = self.directories.find(in.fh);
    if (directory == self.directories.end()) return self.channel.reply(unique, EBADF);
    entries.insert(entries.begin(), {{".", S_IFDIR}, {"..", S_IFDIR}});
    directory->second = {true, std::move(entries)};
    self.read_filled_directory(unique, in);
  };
  if (request.tree != nullptr) {
    return request.tree->readdir(request.caller, request.file,
                                 reply_to<std::vector<FsDirEntry>>(request, fill));
  }
  std::vector<FsDirEntry> names;
  for (const NamedTree& tree : trees) names.push_back({tree.name, S_IFDIR});
  fill(*this, request.unique, std::move(names));
}

void SessionFs::Impl::read_filled_directory(uint64_t unique, const fuse_read_in& in) {
  channel.reply(unique, 0, directory_piece(directories.at(in.fh).entries, in.offset, in.size));
}

void SessionFs::Impl::forget(uint64_t node, uint64_t count) {
  auto found = lookups.find(node);
  if (found == lookups.end()) return;
  found->second -= std::min(found->second, count);
  if (found->second > 0) return;
  lookups.erase(found);
  const size_t number = tree_number(node);
  if (number < trees.size()) trees[number].tree->forget(node & kFileMask);
}

void SessionFs::Impl::forget_batch(std::string_view body) {
  const auto in = parse<fuse_batch_forget_in>(body);
  for (uint32_t i = 0; i < in.count && body.size() >= sizeof(fuse_forget_one); ++i) {
    const auto one = parse<fuse_forget_one>(body);
    forget(one.nodeid, one.nlookup);
  }
}

// The kernel sends an interrupt only for a request that was read before: what is not known here is
// answered already.
void SessionFs::Impl::interrupt(uint64_t unique) {
  auto found = waiting.find(unique);
  if (found == waiting.end() || found->second == nullptr) return;
  found->second->interrupt(unique);
  auto* keeper = dynamic_cast<FsTree*>(flocks);
  if (keeper && keeper != found->second) keeper->interrupt(unique);
}

SessionFs::SessionFs(NodeContext& node) : SessionFs(node.loop) {}
SessionFs::SessionFs(EventLoop& loop) : impl_(std::make_shared<Impl>(loop)) {}
SessionFs::~SessionFs() = default;

void SessionFs::add_tree(std::string name, FsTree& tree) {
  check(!is_serving(), "trees are added before serve()");
  check(impl_->trees.size() < kMaxTrees, "at most 255 trees");
  impl_->trees.push_back({std::move(name), &tree});
  if (auto* keeper = dynamic_cast<FlockKeeper*>(&tree)) impl_->flocks = keeper;
}

Status SessionFs::serve(KrgfsMount mount) {
  impl_->root = std::move(mount.root);
  impl_->device = mount.device;
  return impl_->channel.start(std::move(mount.fuse));
}

bool SessionFs::is_serving() const {
  return impl_->channel.is_open();
}

int SessionFs::root() const {
  return impl_->root.get();
}

dev_t SessionFs::device() const {
  return is_serving() ? impl_->device : 0;
}

FileId SessionFs::file_of(std::string_view name, ino_t inode) const {
  const size_t number = tree_number(inode);
  if (number >= impl_->trees.size() || impl_->trees[number].name != name) return 0;
  return inode & kFileMask;
}

}  // namespace krg
