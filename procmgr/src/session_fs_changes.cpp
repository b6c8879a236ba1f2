// What changes a tree of krgfs: names, attributes, sizes.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>

#include "session_fs_impl.h"
#include "stored_files.h"

namespace krg {
namespace {

constexpr uint64_t kBlockBytes = 4096;
constexpr uint32_t kLongestName = 255;

timespec time_of(uint64_t seconds, uint32_t nanoseconds) {
  return {static_cast<time_t>(seconds), static_cast<long>(nanoseconds)};
}

FsChange change_of(const fuse_setattr_in& in) {
  FsChange change;
  if (in.valid & FATTR_MODE) change.mode = in.mode & ~static_cast<mode_t>(S_IFMT);
  if (in.valid & FATTR_UID) change.uid = in.uid;
  if (in.valid & FATTR_GID) change.gid = in.gid;
  if (in.valid & FATTR_ATIME) change.accessed = time_of(in.atime, in.atimensec);
  if (in.valid & FATTR_MTIME) change.modified = time_of(in.mtime, in.mtimensec);
  change.times_are_now = in.valid & FATTR_MTIME_NOW;
  return change;
}

}  // namespace

bool SessionFs::Impl::handle_change(const fuse_in_header& header, const Request& request,
                                    std::string_view body) {
  FsTree& tree = *request.tree;
  const FsCaller& caller = request.caller;
  switch (header.opcode) {
    case FUSE_SETATTR:
      set_attributes(request, body);
      return true;
    case FUSE_CREATE:
      create(request, body);
      return true;
    case FUSE_MKNOD: {
      const auto in = parse<fuse_mknod_in>(body);
      tree.make(caller, request.file, parse_name(body), in.mode, {},
                reply_entry(request, request.number));
      return true;
    }
    case FUSE_MKDIR: {
      const auto in = parse<fuse_mkdir_in>(body);
      tree.make(caller, request.file, parse_name(body), (in.mode & ~S_IFMT) | S_IFDIR, {},
                reply_entry(request, request.number));
      return true;
    }
    case FUSE_SYMLINK: {
      const std::string_view name = parse_name(body);
      tree.make(caller, request.file, name, S_IFLNK | 0777, parse_name(body),
                reply_entry(request, request.number));
      return true;
    }
    case FUSE_LINK:
      link(request, body);
      return true;
    case FUSE_UNLINK:
    case FUSE_RMDIR:
      tree.unlink(caller, request.file, parse_name(body), header.opcode == FUSE_RMDIR,
                  reply_done(request));
      return true;
    case FUSE_RENAME: {
      const auto in = parse<fuse_rename_in>(body);
      rename(request, in.newdir, 0, body);
      return true;
    }
    case FUSE_RENAME2: {
      const auto in = parse<fuse_rename2_in>(body);
      rename(request, in.newdir, in.flags, body);
      return true;
    }
    case FUSE_FALLOCATE: {
      const auto in = parse<fuse_fallocate_in>(body);
      auto* stored = dynamic_cast<StoredFiles*>(&tree);
      if (in.mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) && stored)
        stored->punch_hole(request.file, in.offset, in.length, reply_done(request));
      else if (in.mode == FALLOC_FL_KEEP_SIZE && stored)
        channel.reply(header.unique, 0);  // room is found when it is used
      else if (in.mode != 0)
        channel.reply(header.unique, EOPNOTSUPP);
      else
        tree.extend(caller, request.file, in.offset + in.length, reply_done(request));
      return true;
    }
    default:
      return false;
  }
}

void SessionFs::Impl::set_attributes(const Request& request, std::string_view body) {
  const auto in = parse<fuse_setattr_in>(body);
  if (in.valid & FATTR_SIZE) {
    // The kernel sets a size alone, or with the time that it gives a truncated file.
    return request.tree->truncate(request.caller, request.file, in.size, in.valid & FATTR_FH,
                                  reply_attributes(request));
  }
  request.tree->setattr(request.caller, request.file, change_of(in), reply_attributes(request));
}

void SessionFs::Impl::create(const Request& request, std::string_view body) {
  const auto in = parse<fuse_create_in>(body);
  auto answered = [number = request.number](Impl& self, uint64_t unique, FsCreated made) {
    struct {
      fuse_entry_out entry;
      fuse_open_out open;
    } out{self.enter(node_id(number, made.entry.id), made.entry), protocol_open(made.opened)};
    self.channel.reply_struct(unique, out);
  };
  request.tree->create(request.caller, request.file, parse_name(body), in.mode,
                       static_cast<int>(in.flags), reply_to<FsCreated>(request, answered));
}

void SessionFs::Impl::link(const Request& request, std::string_view body) {
  const auto in = parse<fuse_link_in>(body);
  if (tree_number(in.oldnodeid) != request.number) return channel.reply(request.unique, EXDEV);
  request.tree->link(request.caller, in.oldnodeid & kFileMask, request.file, parse_name(body),
                     reply_entry(request, request.number));
}

void SessionFs::Impl::rename(const Request& request, uint64_t to, unsigned flags,
                             std::string_view names) {
  if (to == FUSE_ROOT_ID || tree_number(to) != request.number)
    return channel.reply(request.unique, EXDEV);
  const std::string_view name = parse_name(names);
  request.tree->rename(request.caller, request.file, name, to & kFileMask, parse_name(names), flags,
                       reply_done(request));
}

void SessionFs::Impl::statfs(const Request& request) {
  auto answered = [](Impl& self, uint64_t unique, const FsSpace& space) {
    fuse_statfs_out out{};
    out.st.bsize = out.st.frsize = kBlockBytes;
    out.st.namelen = kLongestName;
    out.st.blocks = space.total / kBlockBytes;
    out.st.bfree = out.st.bavail = space.available / kBlockBytes;
    out.st.files = space.files;
    out.st.ffree = space.files_available;
    self.channel.reply_struct(unique, out);
  };
  auto reply = reply_to<FsSpace>(request, answered);
  if (request.tree == nullptr) return reply(FsSpace{});
  request.tree->statfs(request.caller, std::move(reply));
}

}  // namespace krg
