// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_tree.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "krg/runtime/log.h"
#include "packed_bytes.h"
#include "process_status.h"

namespace krg {
namespace {

constexpr uint64_t kBlockBytes = 512;  // of st_blocks
// Programs have no names of that kind: each file may be found by those only who may.
constexpr std::string_view kNumberPrefix = ".krg-file-";

// The answer's bytes as the structure that the operation promises.
template <class T>
Result<T> unpack(const Result<std::string>& answer) {
  if (!answer) return answer.error();
  T value;
  if (answer->size() != sizeof value) return errno_error("answer of another version", EPROTO);
  std::memcpy(&value, answer->data(), sizeof value);
  return value;
}

FsEntry entry_of(const SharedAttributes& from) {
  FsEntry entry;
  entry.id = from.id;
  struct stat& to = entry.attributes;
  to.st_mode = from.mode;
  to.st_uid = from.uid;
  to.st_gid = from.gid;
  to.st_nlink = from.links;
  to.st_size = static_cast<off_t>(from.size);
  to.st_blocks = static_cast<blkcnt_t>((from.size + kBlockBytes - 1) / kBlockBytes);
  to.st_blksize = kPageBytes;
  to.st_atim = {from.accessed_s, from.accessed_ns};
  to.st_mtim = {from.modified_s, from.modified_ns};
  to.st_ctim = {from.changed_s, from.changed_ns};
  return entry;
}

SharedRequest request_for(SharedOp op, FileId file) {
  SharedRequest request;
  request.op = op;
  request.file = file;
  return request;
}

}  // namespace

void SharedTree::ask(const FsCaller& caller, SharedRequest request, Names names,
                     Answered answered) {
  request.uid = caller.uid;
  request.gid = caller.gid;
  PackedWriter payload;
  payload.put_string(names.first).put_string(names.second);
  if (caller.uid != 0)
    if (auto groups = read_supplementary_groups(caller.tid))
      for (gid_t group : *groups) payload.put(group);
  node_.messenger.request(kSharedHome, request, payload.bytes(), std::move(answered));
}

void SharedTree::ask_entry(const FsCaller& caller, SharedRequest request, Names names,
                           FsReply<FsEntry> reply) {
  auto shared = std::make_shared<FsReply<FsEntry>>(std::move(reply));
  ask(caller, request, names, [shared](const Result<std::string>& answer) {
    auto attributes = unpack<SharedAttributes>(answer);
    if (!attributes) return (*shared)(attributes.error());
    (*shared)(entry_of(*attributes));
  });
}

void SharedTree::ask_done(const FsCaller& caller, SharedRequest request, Names names,
                          FsReply<int> reply) {
  auto shared = std::make_shared<FsReply<int>>(std::move(reply));
  ask(caller, request, names, [shared](const Result<std::string>& answer) {
    (*shared)(answer ? Result<int>(0) : answer.error());
  });
}

std::string SharedTree::path_of(FileId file) {
  return fmt::format("{}/{}{}", kName, kNumberPrefix, file);
}

void SharedTree::lookup(const FsCaller& caller, FileId parent, std::string_view name,
                        FsReply<FsEntry> reply) {
  if (parent == kTreeRoot && name.starts_with(kNumberPrefix) && is_own_thread(caller.tid))
    return getattr(caller, std::strtoull(name.data() + kNumberPrefix.size(), nullptr, 10),
                   std::move(reply));
  ask_entry(caller, request_for(SharedOp::kLookup, parent), {name}, std::move(reply));
}

void SharedTree::getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) {
  FsCaller anybody = caller;
  anybody.uid = 0;  // whoever has got here may look
  ask_entry(anybody, request_for(SharedOp::kAttributes, file), {}, std::move(reply));
}

void SharedTree::readlink(const FsCaller& caller, FileId file, FsReply<std::string> reply) {
  auto shared = std::make_shared<FsReply<std::string>>(std::move(reply));
  ask(caller, request_for(SharedOp::kReadLink, file), {},
      [shared](Result<std::string> answer) { (*shared)(std::move(answer)); });
}

void SharedTree::readdir(const FsCaller& caller, FileId directory,
                         FsReply<std::vector<FsDirEntry>> reply) {
  auto shared = std::make_shared<FsReply<std::vector<FsDirEntry>>>(std::move(reply));
  ask(caller, request_for(SharedOp::kList, directory), {},
      [shared](const Result<std::string>& answer) {
        if (!answer) return (*shared)(answer.error());
        std::vector<FsDirEntry> entries;
        for (PackedReader reader(*answer); !reader.at_end();) {
          std::string name(reader.get_string());
          entries.push_back({std::move(name), reader.get<mode_t>()});
        }
        (*shared)(std::move(entries));
      });
}

void SharedTree::open(const FsCaller& caller, FileId file, int flags, FsReply<FsOpened> reply) {
  SharedRequest request = request_for(SharedOp::kOpen, file);
  request.flags = flags;
  auto shared = std::make_shared<FsReply<FsOpened>>(std::move(reply));
  ask(caller, request, {}, [shared](const Result<std::string>& answer) {
    (*shared)(answer ? Result<FsOpened>(FsOpened{}) : answer.error());
  });
}

void SharedTree::create(const FsCaller& caller, FileId parent, std::string_view name, mode_t mode,
                        int flags, FsReply<FsCreated> reply) {
  SharedRequest request = request_for(SharedOp::kCreate, parent);
  request.mode = mode;
  request.flags = flags;
  auto shared = std::make_shared<FsReply<FsCreated>>(std::move(reply));
  ask(caller, request, {name}, [shared](const Result<std::string>& answer) {
    auto attributes = unpack<SharedAttributes>(answer);
    if (!attributes) return (*shared)(attributes.error());
    (*shared)(FsCreated{entry_of(*attributes), FsOpened{}});
  });
}

void SharedTree::make(const FsCaller& caller, FileId parent, std::string_view name, mode_t mode,
                      std::string_view target, FsReply<FsEntry> reply) {
  SharedRequest request = request_for(SharedOp::kMake, parent);
  request.mode = mode;
  ask_entry(caller, request, {name, target}, std::move(reply));
}

void SharedTree::link(const FsCaller& caller, FileId file, FileId parent, std::string_view name,
                      FsReply<FsEntry> reply) {
  SharedRequest request = request_for(SharedOp::kLink, parent);
  request.other = file;
  ask_entry(caller, request, {name}, std::move(reply));
}

void SharedTree::unlink(const FsCaller& caller, FileId parent, std::string_view name,
                        bool directory, FsReply<int> reply) {
  const SharedOp op = directory ? SharedOp::kRemoveDirectory : SharedOp::kUnlink;
  ask_done(caller, request_for(op, parent), {name}, std::move(reply));
}

void SharedTree::rename(const FsCaller& caller, FileId from, std::string_view name, FileId to,
                        std::string_view new_name, unsigned flags, FsReply<int> reply) {
  SharedRequest request = request_for(SharedOp::kRename, from);
  request.other = to;
  request.flags = static_cast<int32_t>(flags);
  ask_done(caller, request, {name, new_name}, std::move(reply));
}

void SharedTree::setattr(const FsCaller& caller, FileId file, const FsChange& change,
                         FsReply<FsEntry> reply) {
  SharedRequest request = request_for(SharedOp::kChange, file);
  unsigned changes = 0;
  if (change.mode) changes |= SharedRequest::kMode, request.mode = *change.mode;
  if (change.uid) changes |= SharedRequest::kUid, request.new_uid = *change.uid;
  if (change.gid) changes |= SharedRequest::kGid, request.new_gid = *change.gid;
  if (change.accessed) {
    changes |= SharedRequest::kAccessed;
    request.accessed_s = change.accessed->tv_sec;
    request.accessed_ns = change.accessed->tv_nsec;
  }
  if (change.modified) {
    changes |= SharedRequest::kModified;
    request.modified_s = change.modified->tv_sec;
    request.modified_ns = change.modified->tv_nsec;
  }
  if (change.times_are_now) changes |= SharedRequest::kNow;
  request.changes = static_cast<uint8_t>(changes);
  ask_entry(caller, request, {}, std::move(reply));
}

void SharedTree::truncate(const FsCaller& caller, FileId file, uint64_t size, bool by_descriptor,
                          FsReply<FsEntry> reply) {
  SharedRequest request = request_for(SharedOp::kTruncate, file);
  request.size = size;
  request.by_descriptor = by_descriptor;
  ask_entry(caller, request, {}, std::move(reply));
}

void SharedTree::extend(const FsCaller& caller, FileId file, uint64_t end, FsReply<int> reply) {
  SharedRequest request = request_for(SharedOp::kExtend, file);
  request.size = end;
  request.by_descriptor = 1;
  ask_done(caller, request, {}, std::move(reply));
}

void SharedTree::statfs(const FsCaller& caller, FsReply<FsSpace> reply) {
  auto shared = std::make_shared<FsReply<FsSpace>>(std::move(reply));
  ask(caller, request_for(SharedOp::kSpace, kTreeRoot), {},
      [shared](const Result<std::string>& answer) { (*shared)(unpack<FsSpace>(answer)); });
}

void SharedTree::read(const FsCaller&, FileId file, uint64_t, uint64_t offset, size_t size, int,
                      FsReply<std::string> reply) {
  auto shared = std::make_shared<FsReply<std::string>>(std::move(reply));
  files_.read(file, offset, size,
              [shared](Result<std::string> read) { (*shared)(std::move(read)); });
}

// What goes beyond the end makes the file longer first.
void SharedTree::write(const FsCaller& caller, FileId file, uint64_t, uint64_t offset,
                       std::string_view data, int flags, FsReply<size_t> reply) {
  auto shared = std::make_shared<FsReply<size_t>>(std::move(reply));
  auto contents = files_.find(file);
  const bool appends = flags & O_APPEND;
  if (!appends && contents && offset + data.size() <= contents->bytes)
    return write_inside(file, offset, std::string(data), std::move(shared));
  SharedRequest request = request_for(appends ? SharedOp::kAppend : SharedOp::kExtend, file);
  request.size = appends ? data.size() : offset + data.size();
  request.by_descriptor = 1;
  ask(caller, request, {},
      [this, file, offset, appends, shared,
       copy = std::string(data)](const Result<std::string>& answer) mutable {
        auto attributes = unpack<SharedAttributes>(answer);
        if (!attributes) return (*shared)(attributes.error());
        const uint64_t from = appends ? attributes->size - copy.size() : offset;
        write_inside(file, from, copy, std::move(shared));
      });
}

void SharedTree::write_inside(FileId file, uint64_t offset, const std::string& data,
                              std::shared_ptr<FsReply<size_t>> reply) {
  files_.write(file, offset, data,
               [this, file, size = data.size(), reply = std::move(reply)](const Status& written) {
                 if (!written) return (*reply)(written.error());
                 tell_home(file, SharedNotice::kWritten);
                 (*reply)(size);
               });
}

// Pages that lie in it go, of the others its part is written over.
void SharedTree::punch_hole(FileId file, uint64_t offset, uint64_t bytes, FsReply<int> reply) {
  const auto found = files_.find(file);
  if (!found) return reply(0);  // it has no contents yet
  const uint64_t size = found->pages->pages() * kPageBytes;
  const uint64_t begin = std::min(offset, size), end = begin + std::min(bytes, size - begin);
  const uint64_t first = std::min(end, (begin + kPageBytes - 1) / kPageBytes * kPageBytes);
  const uint64_t last = std::max(first, end / kPageBytes * kPageBytes);
  const auto later = std::make_shared<FsReply<int>>(std::move(reply));
  const auto discard = [this, file, found, first, last, later](const Status& written) {
    if (!written) return (*later)(written.error());
    found->pages->discard(PageIndex{first / kPageBytes}, (last - first) / kPageBytes,
                          [this, file, found, later] {
                            tell_home(file, SharedNotice::kWritten);
                            (*later)(0);
                          });
  };
  const auto zero_end = [this, file, last, end, discard](const Status& written) {
    if (!written || last >= end) return discard(written);
    files_.write(file, last, std::string(end - last, '\0'), discard);
  };
  if (begin >= first) return zero_end({});
  files_.write(file, begin, std::string(first - begin, '\0'), zero_end);
}

void SharedTree::release(FileId file, uint64_t) {
  tell_home(file, SharedNotice::kReleased);
}

void SharedTree::tell_home(FileId file, SharedNotice::What what) {
  SharedNotice notice;
  notice.what = what;
  notice.file = file;
  if (auto sent = node_.messenger.send(kSharedHome, notice); !sent)
    log_warn("shm", "file {}: {}", file, sent.error().message());
}

}  // namespace krg
