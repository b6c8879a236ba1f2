// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_home.h"

#include <fcntl.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "krg/runtime/log.h"
#include "packed_bytes.h"

namespace krg {
namespace {

timespec real_time() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return now;
}

void answer(Messenger::Reply& reply, const Result<SharedAttributes>& attributes) {
  if (!attributes) return reply.fail(attributes.error());
  reply.ok(object_bytes(*attributes));
}
void answer(Messenger::Reply& reply, const Status& status) {
  if (!status) return reply.fail(status.error());
  reply.ok();
}

FsChange change_of(const SharedRequest& request) {
  FsChange change;
  if (request.changes & SharedRequest::kMode) change.mode = request.mode;
  if (request.changes & SharedRequest::kUid) change.uid = request.new_uid;
  if (request.changes & SharedRequest::kGid) change.gid = request.new_gid;
  if (request.changes & SharedRequest::kAccessed)
    change.accessed = {request.accessed_s, request.accessed_ns};
  if (request.changes & SharedRequest::kModified)
    change.modified = {request.modified_s, request.modified_ns};
  change.times_are_now = request.changes & SharedRequest::kNow;
  return change;
}

// Half of this machine's memory, as a tmpfs has by default; every node's pages may come here.
FsSpace space_for(const SharedNames& names) {
  struct sysinfo info {};
  sysinfo(&info);
  FsSpace space;
  space.total = info.totalram * info.mem_unit / 2;
  const uint64_t used = names.bytes();
  space.available = used < space.total ? space.total - used : 0;
  space.files = kMaxSharedFiles;
  space.files_available = kMaxSharedFiles - names.size();
  return space;
}

std::string packed(const std::vector<FsDirEntry>& entries) {
  PackedWriter bytes;
  for (const FsDirEntry& entry : entries) bytes.put_string(entry.name).put(entry.type);
  return bytes.take();
}

}  // namespace

SharedHome::SharedHome(NodeContext& node, SharedFiles& files)
    : node_(node), files_(files), names_(geteuid(), getegid(), real_time) {
  node.messenger.on_request<SharedRequest>(
      [this](NodeId from, const SharedRequest& request, std::string_view payload, Reply reply) {
        PackedReader reader(payload);
        Question question{from,
                          request,
                          std::string(reader.get_string()),
                          std::string(reader.get_string()),
                          {request.uid, request.gid, {}}};
        while (!reader.at_end()) question.caller.groups.push_back(reader.get<gid_t>());
        if (!reader.ok()) return reply.fail(EBADMSG);
        handle(question, std::move(reply));
        tell_gone();
      });
  node.messenger.on<SharedNotice>(
      [this](NodeId from, const SharedNotice& notice, std::string_view) {
        if (notice.what == SharedNotice::kWritten) return names_.touch(notice.file);
        if (notice.what == SharedNotice::kHeld) return names_.use(notice.file, from);
        names_.unuse(notice.file, from);
        finish_unused_files();
        tell_gone();
      });
  node.messenger.on_peer_failure([this](NodeId failed) {
    names_.node_failed(failed);
    finish_unused_files();
    tell_gone();
  });
}

void SharedHome::handle(const Question& question, Reply reply) {
  const SharedRequest& request = question.request;
  switch (request.op) {
    case SharedOp::kList: {
      auto entries = names_.list(question.caller, request.file);
      if (!entries) return reply.fail(entries.error());
      return reply.ok(packed(*entries));
    }
    case SharedOp::kReadLink: {
      auto target = names_.link_target(request.file);
      if (!target) return reply.fail(target.error());
      return reply.ok(*target);
    }
    case SharedOp::kSpace:
      return reply.ok(object_bytes(space_for(names_)));
    case SharedOp::kOpen:
    case SharedOp::kCreate:
      return open(question, std::move(reply));
    case SharedOp::kTruncate:
    case SharedOp::kExtend:
    case SharedOp::kAppend:
    case SharedOp::kCover:
      return change_size(question, std::move(reply));
    case SharedOp::kAnonymous:
      return make_anonymous(question, std::move(reply));
    case SharedOp::kMapFile:
      return map_file(question, std::move(reply));
    case SharedOp::kWriteBack:
      return write_back(request.file, [reply = std::make_shared<Reply>(std::move(reply))](
                                          const Status& done) { answer(*reply, done); });
    case SharedOp::kUnlink:
    case SharedOp::kRemoveDirectory:
      return answer(reply, names_.unlink(question.caller, request.file, question.name,
                                         request.op == SharedOp::kRemoveDirectory));
    case SharedOp::kRename:
      return answer(reply,
                    names_.rename(question.caller, request.file, question.name, request.other,
                                  question.second, static_cast<unsigned>(request.flags)));
    default:
      return answer(reply, change_names(question));
  }
}

Result<SharedAttributes> SharedHome::change_names(const Question& question) {
  const SharedRequest& request = question.request;
  switch (request.op) {
    case SharedOp::kAttributes:
      return names_.attributes(request.file);
    case SharedOp::kLookup:
      return names_.lookup(question.caller, request.file, question.name);
    case SharedOp::kHold:
      names_.use(request.file, question.from);
      return names_.attributes(request.file);
    case SharedOp::kMake:
      return names_.make(question.caller, request.file, question.name, request.mode,
                         question.second);
    case SharedOp::kLink:
      return names_.link(question.caller, request.other, request.file, question.name);
    case SharedOp::kChange:
      return names_.change(question.caller, request.file, change_of(request));
    default:
      return errno_error("an operation of another version", ENOSYS);
  }
}

// The asking node uses the file from here on, until it says otherwise.
void SharedHome::open(const Question& question, Reply reply) {
  const SharedRequest& request = question.request;
  auto opened = request.op == SharedOp::kOpen
                    ? names_.open(question.caller, request.file, request.flags)
                    : names_.create(question.caller, request.file, question.name, request.mode,
                                    request.flags);
  if (opened) names_.use(opened->id, question.from);
  if (!opened || !(request.flags & O_TRUNC) || !S_ISREG(opened->mode)) return answer(reply, opened);
  auto shared = std::make_shared<Reply>(std::move(reply));
  resize(opened->id, {SharedOp::kTruncate, 0,
                      [shared](const Result<SharedAttributes>& done) { answer(*shared, done); }});
}

void SharedHome::change_size(const Question& question, Reply reply) {
  const SharedRequest& request = question.request;
  auto known = names_.attributes(request.file);
  if (!known) return answer(reply, known);
  if (S_ISDIR(known->mode)) return reply.fail(EISDIR);
  if (!S_ISREG(known->mode)) return reply.fail(EINVAL);
  if (!request.by_descriptor)
    if (auto granted = names_.may_write(question.caller, request.file); !granted)
      return answer(reply, granted);
  auto shared = std::make_shared<Reply>(std::move(reply));
  resize(request.file, {request.op, request.size,
                        [shared](const Result<SharedAttributes>& done) { answer(*shared, done); }});
}

// It lives as long as somebody uses it.
void SharedHome::make_anonymous(const Question& question, Reply reply) {
  const FileId file = add_nameless(question.caller);
  names_.use(file, question.from);
  auto shared = std::make_shared<Reply>(std::move(reply));
  extend(file, question.request.size, [this, file, from = question.from, shared](Status extended) {
    if (!extended) names_.unuse(file, from);
    auto made = extended ? names_.attributes(file) : Result<SharedAttributes>(extended.error());
    drop_nameless(file);
    answer(*shared, made);
  });
}

// One of the same name is the same file for all who map it.
void SharedHome::map_file(const Question& question, Reply reply) {
  const MappedFile::Name name{question.name, question.request.other};
  auto known = std::find_if(mapped_.begin(), mapped_.end(),
                            [&](const auto& entry) { return entry.second == name; });
  const bool is_new = known == mapped_.end();
  const FileId file = is_new ? add_nameless(question.caller) : known->first;
  if (is_new) {
    mapped_.emplace(file, name);
    names_.use(file, node_.self);
  }
  names_.use(file, question.from);
  extend(file, question.request.size,
         [this, file, is_new, from = question.from,
          shared = std::make_shared<Reply>(std::move(reply))](Status extended) {
           auto made =
               extended ? names_.attributes(file) : Result<SharedAttributes>(extended.error());
           if (!extended) names_.unuse(file, from);
           if (is_new) drop_nameless(file);
           if (!extended) finish_unused_files();
           answer(*shared, made);
         });
}

// By every node what it has brought.
void SharedHome::write_back(FileId file, std::function<void(Status)> done) {
  auto outcome = std::make_shared<Status>();
  auto all = std::shared_ptr<void>(
      nullptr, [outcome, done = std::move(done)](void*) { done(std::move(*outcome)); });
  SharedWriteBack message;
  message.file = file;
  for (uint16_t i = 0; i < node_.node_count; ++i) {
    if (node_.messenger.is_failed(NodeId{i})) continue;
    node_.messenger.request(NodeId{i}, message, {},
                            [all, outcome](const Result<std::string>& done) {
                              if (!done) *outcome = done.error();
                            });
  }
}

// Who maps one again meanwhile finds it as it is.
void SharedHome::finish_unused_files() {
  for (const auto& [file, name] : mapped_) {
    if (names_.uses(file) != 1 || !finishing_.insert(file).second) continue;
    write_back(file, [this, file = file, path = name.path](const Status& written) {
      finishing_.erase(file);
      if (!written) log_error("shm", "{}: {}", path, written.error().message());
      if (names_.uses(file) != 1) return;
      mapped_.erase(file);
      names_.unuse(file, node_.self);
      tell_gone();
    });
  }
}

void SharedHome::drop_nameless(FileId file) {
  names_.drop_nameless(file);
  tell_gone();
}

void SharedHome::extend(FileId file, uint64_t size, std::function<void(Status)> done) {
  resize(file, {SharedOp::kExtend, size, [done = std::move(done)](const auto& extended) {
                  done(extended ? Status() : Status(extended.error()));
                }});
}

void SharedHome::cover(FileId file, uint64_t size, std::function<void(Status)> done) {
  resize(file, {SharedOp::kCover, size, [done = std::move(done)](const auto& covered) {
                  done(covered ? Status() : Status(covered.error()));
                }});
}

void SharedHome::resize(FileId file, Resize resize) {
  auto& queue = resizes_[file];
  queue.push_back(std::move(resize));
  if (queue.size() == 1) begin(file);
}

void SharedHome::begin(FileId file) {
  const Resize& next = resizes_.at(file).front();
  auto known = names_.attributes(file);
  if (!known) return finish(file, known.error());
  uint64_t size = next.amount;
  if (next.how == SharedOp::kAppend) size += known->size;
  if (next.how == SharedOp::kExtend) size = std::max(size, known->size);
  if (next.how == SharedOp::kCover) size = known->size;
  if (std::max(size, next.amount) > kMaxSharedBytes) return finish(file, errno_error({}, EFBIG));
  const bool covers = next.how == SharedOp::kCover && next.amount > size;
  if (size == known->size && !covers) return finish(file, {});
  tell_size(file, known->size, size, covers ? next.amount : 0);
}

// Every node has the new size before anybody sees it.
void SharedHome::tell_size(FileId file, uint64_t old, uint64_t size, uint64_t covered) {
  auto outcome = std::make_shared<Status>();
  auto all = std::shared_ptr<void>(nullptr, [this, file, old, size, outcome](void*) {
    if (!*outcome) return finish(file, std::move(*outcome));
    if (size != old) names_.set_size(file, size);
    clear_tail(file, old, size);
  });
  SharedResize message;
  message.file = file;
  message.size = size;
  message.covered = covered;
  std::string path;
  if (auto mapped = mapped_.find(file); mapped != mapped_.end()) {
    path = mapped->second.path;
    message.inode = mapped->second.inode;
  }
  for (uint16_t i = 0; i < node_.node_count; ++i) {
    if (node_.messenger.is_failed(NodeId{i})) continue;
    node_.messenger.request(NodeId{i}, message, path, [all, outcome](Result<std::string> done) {
      if (!done && done.error().errno_or(EIO) != EHOSTDOWN) *outcome = done.error();
    });
  }
}

// What is behind the end in the last page must read as zeros when the file grows again.
void SharedHome::clear_tail(FileId file, uint64_t old, uint64_t size) {
  const size_t tail = size % kPageBytes;
  if (size >= old || tail == 0) return finish(file, {});
  files_.write(file, size, std::string(kPageBytes - tail, '\0'),
               [this, file](Status cleared) { finish(file, std::move(cleared)); });
}

void SharedHome::finish(FileId file, Status outcome) {
  auto found = resizes_.find(file);
  const Resize ended = std::move(found->second.front());
  found->second.pop_front();
  const bool more = !found->second.empty();
  if (!more) resizes_.erase(found);
  ended.done(outcome ? names_.attributes(file) : Result<SharedAttributes>(outcome.error()));
  if (more) begin(file);
}

void SharedHome::tell_gone() {
  for (FileId file : names_.take_gone()) {
    if (on_gone_) on_gone_(file);
    SharedGone gone;
    gone.file = file;
    for (uint16_t i = 0; i < node_.node_count; ++i)
      if (!node_.messenger.is_failed(NodeId{i}))
        if (auto sent = node_.messenger.send(NodeId{i}, gone); !sent)
          log_debug("shm", "file {} is gone: n{} does not hear it", file, i);
  }
}

}  // namespace krg
