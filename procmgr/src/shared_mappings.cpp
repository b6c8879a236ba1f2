// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_mappings.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include <cstring>

#include "alive.h"
#include "ipc/ipc_caller.h"
#include "ipc/ipc_table.h"
#include "krg/runtime/log.h"
#include "packed_bytes.h"
#include "process_fds.h"
#include "process_status.h"
#include "shared_messages.h"
#include "shared_tree.h"

namespace krg {
namespace {

// Each mapping takes two of krgd's descriptors. It needs some for all else that it does.
constexpr rlim_t kKeptDescriptors = 16;
bool has_few_descriptors() {
  rlimit limit{};
  const UniqueFd next(open("/", O_PATH | O_CLOEXEC));
  return !next || getrlimit(RLIMIT_NOFILE, &limit) != 0 ||
         static_cast<rlim_t>(next.get()) + kKeptDescriptors > limit.rlim_cur;
}

// As the kernel checks them; 0 or the error.
int check_request(const SharedMappings::Request& map, int open_flags) {
  const int access = open_flags & O_ACCMODE;
  if (open_flags & O_PATH) return EBADF;
  if (map.length == 0 || map.offset % kPageBytes != 0) return EINVAL;
  if (map.length > kMaxSharedMapping || map.offset > kMaxSharedMapping) return ENOMEM;
  if (access == O_WRONLY) return EACCES;
  if (access == O_RDONLY && (map.protection & PROT_WRITE)) return EACCES;
  if ((map.flags & MAP_TYPE) == MAP_SHARED_VALIDATE && (map.flags & MAP_SYNC)) return EOPNOTSUPP;
  return 0;
}

SharedMappings::Request request_of(const SyscallBroker::Call& call) {
  return {call.arg(0), call.arg(1), call.arg(2), call.arg(3) & 0xffff'ffff, call.arg(5)};
}

// A file of a disk or the like that others can find by its name.
bool is_mappable(int fd, const struct stat& file) {
  struct statfs system {};
  return S_ISREG(file.st_mode) && file.st_nlink > 0 && fstatfs(fd, &system) == 0 &&
         system.f_type != HUGETLBFS_MAGIC;
}

// Whether who has opened the file to read may do so to write, too: see ask_rights().
bool may_write(pid_t tid, int open_flags, const struct stat& file) {
  if ((open_flags & O_ACCMODE) == O_RDWR) return true;
  auto caller = read_ipc_caller(tid);
  const IpcPermissions permissions{IPC_PRIVATE, file.st_uid, file.st_uid,
                                   file.st_gid, file.st_gid, file.st_mode & 0777};
  return caller && (caller->uid == 0 || may_access(permissions, *caller, kIpcAlter));
}

bool has_tracer(pid_t tid) {
  auto tracer = read_tracer(tid);
  return !tracer || *tracer != 0;
}

}  // namespace

struct SharedMappings::Job {
  SyscallBroker::Call call;
  Request map;
  std::shared_ptr<void> keeper;
  int open_flags = 0;
  FileId id = 0;
  bool may_write = false;
  std::shared_ptr<SharedFile> contents = nullptr;
};

SharedMappings::SharedMappings(NodeContext& node, SessionFs& fs, SyscallBroker& broker,
                               SharedFiles& files, UserfaultSource source)
    : node_(node), fs_(fs), files_(files), mapper_(node, std::move(source)) {
  broker.set_handler(SYS_mmap, [this](SyscallBroker::Call call) { on_mmap(std::move(call)); });
  broker.set_taker(SYS_madvise, [this](SyscallBroker::Call& call) { return takes_removal(call); });
  if (node.shared_files.empty()) return;
  for (int number : {SYS_msync, SYS_munmap})
    broker.set_handler(number,
                       [this](SyscallBroker::Call call) { write_back_first(std::move(call)); });
}

void SharedMappings::on_mmap(SyscallBroker::Call call) {
  if (call.arg(3) & MAP_ANONYMOUS) return on_anonymous(std::move(call));
  if (!fs_.is_serving()) return call.go_on();
  const int number = static_cast<int>(call.arg(4));
  auto identity = fd_identity(call.tid(), number);
  if (!identity) return call.go_on();
  if (identity->device != fs_.device())
    return node_.shared_files.empty() ? call.go_on() : on_ordinary_file(std::move(call), number);
  const FileId id = fs_.file_of(SharedTree::kName, identity->inode);
  if (id == 0) return call.go_on();
  auto file = steal_fd(call.tid(), number);
  if (!file) return call.go_on();
  const int open_flags = fcntl(file->get(), F_GETFL);
  const Request request = request_of(call);
  if (const int error = check_request(request, open_flags); error != 0) return call.fail(error);
  map(std::move(call), id, request, open_flags, std::make_shared<UniqueFd>(std::move(*file)));
}

// What the kernel would refuse, and what cannot be shared, is left to it.
void SharedMappings::on_anonymous(SyscallBroker::Call call) {
  Request map = request_of(call);
  map.offset = 0;
  map.flags &= ~uint64_t{MAP_ANONYMOUS};
  auto process = spreads_ ? read_process_status(call.tid()) : errno_error({}, ESRCH);
  if (!process || !spreads_(process->pid) || (map.flags & MAP_HUGETLB) ||
      check_request(map, O_RDWR) != 0 || has_tracer(call.tid()))
    return call.go_on();
  SharedRequest request;
  request.op = SharedOp::kAnonymous;
  request.size = map.pages() * kPageBytes;
  PackedWriter names;
  names.put_string({}).put_string({});
  auto shared = std::make_shared<SyscallBroker::Call>(std::move(call));
  node_.messenger.request(
      kSharedHome, request, names.bytes(), [this, shared, map](const Result<std::string>& made) {
        SharedAttributes file;
        if (!made || made->size() != sizeof file) return shared->go_on();
        std::memcpy(&file, made->data(), sizeof file);
        this->map(std::move(*shared), file.id, map, O_RDWR, files_.counted_use(file.id));
      });
}

// Whoever maps it when it is one already, to write or to read, gets that; else who writes makes it
// one.
void SharedMappings::on_ordinary_file(SyscallBroker::Call call, int number) {
  const Request map = request_of(call);
  const bool makes = map.protection & PROT_WRITE;
  if (!makes && !files_.any_mapped()) return call.go_on();
  auto path = link_of_fd(call.tid(), number);
  if (!path || !path->starts_with(node_.shared_files + "/") || has_tracer(call.tid()))
    return call.go_on();
  auto file = steal_fd(call.tid(), number);
  struct stat found {};
  if (!file || fstat(file->get(), &found) != 0) return call.go_on();
  const MappedFile::Name name{std::move(*path), found.st_ino};
  const int open_flags = fcntl(file->get(), F_GETFL);
  if ((!makes && files_.find_mapped(name) == 0) || check_request(map, open_flags) != 0 ||
      !is_mappable(file->get(), found) || !may_write(call.tid(), open_flags, found))
    return call.go_on();
  SharedRequest request;
  request.op = SharedOp::kMapFile;
  request.other = name.inode;
  request.size = static_cast<uint64_t>(found.st_size);
  PackedWriter names;
  names.put_string(name.path).put_string({});
  node_.messenger.request(kSharedHome, request, names.bytes(),
                          [this, map, path = name.path,
                           waiting = shared(std::move(call))](const Result<std::string>& made) {
                            SharedAttributes attributes;
                            if (!made || made->size() != sizeof attributes) {
                              log_info("shm", "{} is mapped on this node only: {}", path,
                                       made ? "answer of another version" : made.error().message());
                              return waiting->go_on();
                            }
                            std::memcpy(&attributes, made->data(), sizeof attributes);
                            this->map(std::move(*waiting), attributes.id, map, O_RDWR,
                                      files_.counted_use(attributes.id));
                          });
}

// Whoever reads the file afterwards finds there what was written.
void SharedMappings::write_back_first(SyscallBroker::Call call) {
  const FileId file = files_.mapped_at(RemoteAddr{call.arg(0)}, call.arg(1));
  if (file == 0) return call.go_on();
  SharedRequest request;
  request.op = SharedOp::kWriteBack;
  request.file = file;
  PackedWriter names;
  names.put_string({}).put_string({});
  node_.messenger.request(kSharedHome, request, names.bytes(),
                          [waiting = shared(std::move(call))](const Result<std::string>& written) {
                            if (!written && waiting->number() == SYS_msync)
                              return waiting->fail(written.error().errno_or(EIO));
                            waiting->go_on();
                          });
}

// MADV_REMOVE. The kernel tells of it when it is under way already: other nodes would read the old
// bytes until they had heard of it, even after the call's end. Where all of the range is such
// memory, the pages go from all nodes before the call returns.
bool SharedMappings::takes_removal(SyscallBroker::Call& call) {
  const uint64_t begin = call.arg(0), bytes = call.arg(1);
  if (static_cast<int>(call.arg(2)) != MADV_REMOVE || !files_.any_held()) return false;
  if (begin % kPageBytes != 0 || bytes > kMaxSharedMapping) return false;
  const auto caller = read_process_status(call.tid());
  if (!caller) return false;
  struct Run {
    PlaceInSet first;
    size_t pages;
  };
  std::vector<Run> runs;
  for (RemoteAddr at{begin}; at.value < begin + bytes; at.value += kPageBytes) {
    if (!runs.empty()) {
      Run& last = runs.back();
      const auto next = last.first.pages->locate(caller->pid, at);
      if (next && next->page.value == last.first.offset / kPageBytes + last.pages) {
        ++last.pages;
        continue;
      }
    }
    auto place = files_.at(caller->pid, at);
    if (!place) return false;
    runs.push_back({std::move(*place), 1});
  }
  if (runs.empty()) return false;
  // Answered when the last set has let go of it.
  const std::shared_ptr<void> answer(
      nullptr, [waiting = shared(std::move(call))](void*) { waiting->succeed(0); });
  for (const Run& run : runs)
    run.first.pages->discard(PageIndex{run.first.offset / kPageBytes}, run.pages,
                             [answer, keeper = run.first.keeper] {});
  return true;
}

void SharedMappings::map(SyscallBroker::Call call, FileId file, const Request& request,
                         int open_flags, std::shared_ptr<void> keeper) {
  if (has_few_descriptors()) return call.fail(ENOMEM);
  ask_rights(
      std::make_shared<Job>(Job{std::move(call), request, std::move(keeper), open_flags, file}));
}

// The kernel lets no userfaultfd serve a mapping that mprotect(2) could not make writable. So who
// only reads gets memory that can be written when it might have opened the file for that; it has
// not got the right to write there until it asks for it.
void SharedMappings::ask_rights(const JobPtr& job) {
  job->may_write = (job->open_flags & O_ACCMODE) == O_RDWR;
  if (job->may_write) return cover(job);
  auto who = read_credentials(job->call.tid());
  if (!who) return job->call.fail(EACCES);
  SharedRequest request;
  request.op = SharedOp::kExtend;  // by nothing
  request.file = job->id;
  request.uid = who->effective_uid;
  request.gid = who->effective_gid;
  PackedWriter names;
  names.put_string({}).put_string({});
  if (auto groups = read_supplementary_groups(job->call.tid()))
    for (gid_t group : *groups) names.put(group);
  node_.messenger.request(kSharedHome, request, names.bytes(),
                          [this, job](const Result<std::string>& granted) {
                            if (!granted) return job->call.fail(EACCES);
                            job->may_write = true;
                            cover(job);
                          });
}

// A mapping may reach beyond the end: then every node's page set is made so long first.
void SharedMappings::cover(const JobPtr& job) {
  job->contents = files_.find(job->id);
  if (job->contents && job->map.end() <= job->contents->pages->pages() * kPageBytes)
    return map_there(job);
  SharedRequest request;
  request.op = SharedOp::kCover;
  request.file = job->id;
  request.size = job->map.end();
  request.by_descriptor = 1;
  PackedWriter names;
  names.put_string({}).put_string({});
  node_.messenger.request(kSharedHome, request, names.bytes(),
                          [this, job](const Result<std::string>& covered) {
                            if (!covered) return job->call.fail(covered.error().errno_or(EIO));
                            job->contents = files_.find(job->id);
                            if (!job->contents) return job->call.fail(EIO);
                            map_there(job);
                          });
}

void SharedMappings::map_there(const JobPtr& job) {
  if (!job->call.is_valid()) return;
  // Under another's tracer nobody may run calls in it. The kernel says ENODEV then.
  if (mapper_.is_out_of_reach(job->call.tid())) return job->call.go_on();
  auto memory = files_.memory(job->id, job->may_write);
  if (!memory) return job->call.fail(ENOMEM);
  const Request& map = job->map;
  mapper_.map(std::move(job->call),
              {.address = map.address,
               .length = map.length,
               .protection = map.protection,
               .flags = map.flags,
               .offset = map.offset,
               .memory = std::move(*memory),
               .attach = [this, job](UniqueFd userfaultfd, pid_t pid, RemoteAddr at) {
                 return serve(*job, std::move(userfaultfd), pid, at);
               }});
}

Status SharedMappings::serve(Job& job, UniqueFd userfaultfd, pid_t pid, RemoteAddr at) {
  return files_.serve(job.id, std::move(userfaultfd), pid, at, job.map.offset,
                      job.map.pages() * kPageBytes);
}

}  // namespace krg
