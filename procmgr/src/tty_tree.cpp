// SPDX-License-Identifier: GPL-2.0-or-later
#include "tty_tree.h"

namespace krg {
namespace {

constexpr FileId kLink = 2;
constexpr double kValid_s = 3600;  // of name and attributes, which never change; not of the target

FsEntry link_entry() {
  FsEntry entry;
  entry.id = kLink;
  entry.attributes.st_mode = S_IFLNK | 0777;
  entry.attributes.st_nlink = 1;
  entry.valid_s = kValid_s;
  return entry;
}

}  // namespace

void TtyTree::lookup(const FsCaller&, FileId, std::string_view name, FsReply<FsEntry> reply) {
  if (name != "tty") return reply(errno_error("lookup", ENOENT));
  reply(link_entry());
}

void TtyTree::getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) {
  if (file != kLink) return FsTree::getattr(caller, file, std::move(reply));
  reply(link_entry());
}

void TtyTree::readlink(const FsCaller& caller, FileId, FsReply<std::string> reply) {
  target_(caller, std::move(reply));
}

}  // namespace krg
