// What an FsTree answers to that does not say otherwise: as an empty, read-only file system would.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <poll.h>

#include "krg/procmgr/session_fs.h"

namespace krg {
namespace {

template <class T>
void refuse(FsReply<T>& reply, int number) {
  reply(errno_error({}, number));
}

}  // namespace

void FsTree::lookup(const FsCaller&, FileId, std::string_view, FsReply<FsEntry> reply) {
  refuse(reply, ENOENT);
}

void FsTree::getattr(const FsCaller&, FileId file, FsReply<FsEntry> reply) {
  if (file != kTreeRoot) return refuse(reply, ENOENT);
  FsEntry root;
  root.id = kTreeRoot;
  root.attributes.st_mode = S_IFDIR | 0555;
  root.attributes.st_nlink = 2;
  reply(root);
}

void FsTree::readlink(const FsCaller&, FileId, FsReply<std::string> reply) {
  refuse(reply, EINVAL);
}

void FsTree::readdir(const FsCaller&, FileId, FsReply<std::vector<FsDirEntry>> reply) {
  reply(std::vector<FsDirEntry>{});
}

// Not ENOSYS: the kernel would take that as "opening needs no request" for the whole mount.
void FsTree::open(const FsCaller&, FileId, int, FsReply<FsOpened> reply) {
  refuse(reply, EACCES);
}

void FsTree::read(const FsCaller&, FileId, uint64_t, uint64_t, size_t, int,
                  FsReply<std::string> reply) {
  refuse(reply, EINVAL);
}

void FsTree::write(const FsCaller&, FileId, uint64_t, uint64_t, std::string_view, int,
                   FsReply<size_t> reply) {
  refuse(reply, EINVAL);
}

void FsTree::truncate(const FsCaller&, FileId, uint64_t, bool, FsReply<FsEntry> reply) {
  refuse(reply, EPERM);
}

void FsTree::setattr(const FsCaller&, FileId, const FsChange&, FsReply<FsEntry> reply) {
  refuse(reply, EPERM);
}

void FsTree::extend(const FsCaller&, FileId, uint64_t, FsReply<int> reply) {
  refuse(reply, EOPNOTSUPP);
}

void FsTree::create(const FsCaller&, FileId, std::string_view, mode_t, int,
                    FsReply<FsCreated> reply) {
  refuse(reply, EROFS);
}

void FsTree::make(const FsCaller&, FileId, std::string_view, mode_t, std::string_view,
                  FsReply<FsEntry> reply) {
  refuse(reply, EROFS);
}

void FsTree::link(const FsCaller&, FileId, FileId, std::string_view, FsReply<FsEntry> reply) {
  refuse(reply, EROFS);
}

void FsTree::unlink(const FsCaller&, FileId, std::string_view, bool, FsReply<int> reply) {
  refuse(reply, EROFS);
}

void FsTree::rename(const FsCaller&, FileId, std::string_view, FileId, std::string_view, unsigned,
                    FsReply<int> reply) {
  refuse(reply, EROFS);
}

void FsTree::statfs(const FsCaller&, FsReply<FsSpace> reply) {
  reply(FsSpace{});
}

// Not ENOSYS: the kernel would never ask for any file of the mount again.
void FsTree::poll(const FsCaller&, FileId, uint64_t, std::function<void()>,
                  FsReply<uint32_t> reply) {
  reply(POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
}

void FsTree::flush(const FsCaller&, FileId, uint64_t, FsReply<int> reply) {
  reply(0);
}

void FsTree::release(FileId, uint64_t) {}
void FsTree::forget(FileId) {}
void FsTree::interrupt(uint64_t) {}

}  // namespace krg
