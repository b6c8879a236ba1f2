// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_mappings.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "krg/procmgr/unnotified_cookie.h"
#include "krg/runtime/log.h"
#include "packed_bytes.h"
#include "process_fds.h"
#include "process_status.h"
#include "shared_messages.h"
#include "shared_tree.h"

namespace krg {
namespace {

// What counts of a caller's flags. Not MAP_POPULATE and MAP_LOCKED: the kernel would fill holes.
constexpr uint64_t kKeptFlags = MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT | MAP_NORESERVE;

// The arguments of mmap(2).
struct MapRequest {
  uint64_t address, length, protection, flags, offset;
  size_t pages() const { return (length + kPageBytes - 1) / kPageBytes; }
  uint64_t end() const { return offset + pages() * kPageBytes; }
};

// As the kernel checks them; 0 or the error.
int check_request(const MapRequest& map, int open_flags) {
  const int access = open_flags & O_ACCMODE;
  if (open_flags & O_PATH) return EBADF;
  if (map.length == 0 || map.offset % kPageBytes != 0) return EINVAL;
  if (map.length > kMaxSharedMapping || map.offset > kMaxSharedMapping) return ENOMEM;
  if (access == O_WRONLY) return EACCES;
  if (access == O_RDONLY && (map.protection & PROT_WRITE)) return EACCES;
  if ((map.flags & MAP_TYPE) == MAP_SHARED_VALIDATE && (map.flags & MAP_SYNC)) return EOPNOTSUPP;
  return 0;
}

// The memfd as a program may have it: one that may only read cannot mprotect itself the right to
// write.
UniqueFd memory_for(const PageSet& pages, int open_flags) {
  const bool writes = (open_flags & O_ACCMODE) == O_RDWR;
  const std::string path = fmt::format("/proc/self/fd/{}", pages.memory());
  return UniqueFd(open(path.c_str(), (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC));
}

bool has_tracer(pid_t tid) {
  auto tracer = read_tracer(tid);
  return !tracer || *tracer != 0;
}

}  // namespace

struct SharedMappings::Job {
  SyscallBroker::Call call;
  MapRequest map;
  UniqueFd file;  // keeps it from being gone
  int open_flags = 0;
  FileId id = 0;
  std::shared_ptr<SharedFile> contents;
  std::shared_ptr<RemoteSyscalls> thread;
  // Descriptors in the process: what krgd has put there, what it has opened.
  int memory_there = -1, device_there = -1, userfaultfd_there = -1;
  UniqueFd userfaultfd;
};

SharedMappings::SharedMappings(NodeContext& node, SessionFs& fs, SyscallBroker& broker,
                               SharedFiles& files, UserfaultSource source)
    : node_(node), fs_(fs), files_(files), source_(std::move(source)) {
  broker.set_handler(SYS_mmap, [this](SyscallBroker::Call call) { on_mmap(std::move(call)); });
}

void SharedMappings::on_mmap(SyscallBroker::Call call) {
  if (!fs_.is_serving()) return call.go_on();
  const int number = static_cast<int>(call.arg(4));
  auto identity = fd_identity(call.tid(), number);
  if (!identity || identity->device != fs_.device()) return call.go_on();
  const FileId id = fs_.file_of(SharedTree::kName, identity->inode);
  if (id == 0) return call.go_on();
  auto file = steal_fd(call.tid(), number);
  if (!file) return call.go_on();
  const int open_flags = fcntl(file->get(), F_GETFL);
  const MapRequest map{call.arg(0), call.arg(1), call.arg(2), call.arg(3) & 0xffff'ffff,
                       call.arg(5)};
  if (const int error = check_request(map, open_flags); error != 0) return call.fail(error);
  cover(std::make_shared<Job>(Job{
      std::move(call), map, std::move(*file), open_flags, id, nullptr, nullptr, -1, -1, -1, {}}));
}

// A mapping may reach beyond the end: then every node's page set is made so long first.
void SharedMappings::cover(const JobPtr& job) {
  job->contents = files_.find(job->id);
  if (job->contents && job->map.end() <= job->contents->pages->pages() * kPageBytes)
    return borrow(job);
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
                            borrow(job);
                          });
}

void SharedMappings::borrow(const JobPtr& job) {
  if (!job->call.is_valid()) return;
  const pid_t tid = job->call.tid();
  // Under a tracer nobody else may run calls in it. The kernel says ENODEV then.
  if (has_tracer(tid)) return job->call.go_on();
  UniqueFd memory = memory_for(*job->contents->pages, job->open_flags);
  if (!memory) return job->call.fail(ENOMEM);
  if (const int device = source_.device(); device >= 0) {
    auto there = job->call.add_fd(device);
    if (!there) return job->call.fail(there.error().errno_or(EMFILE));
    job->device_there = *there;
  }
  if (auto there = job->call.add_fd(memory.get())) job->memory_there = *there;
  auto asked = RemoteSyscalls::borrow(
      *node_.children, job->call, [this, job](Result<std::shared_ptr<RemoteSyscalls>> borrowed) {
        if (!borrowed) return;  // it died
        job->thread = std::move(*borrowed);
        open_userfaultfd(job);
      });
  if (!asked) {
    log_warn("shm", "thread {}: {}", tid, asked.error().message());
    job->call.fail(ENODEV);
  }
}

void SharedMappings::open_userfaultfd(const JobPtr& job) {
  if (job->memory_there < 0) return close_descriptors(job, -EMFILE);
  const auto flags = static_cast<uint64_t>(PageSet::userfaultfd_flags(false));
  auto opened = [this, job](int64_t number) { take_userfaultfd(job, number); };
  if (job->device_there < 0) return job->thread->run(SYS_userfaultfd, {flags}, opened);
  job->thread->run(SYS_ioctl,
                   {static_cast<uint64_t>(job->device_there), USERFAULTFD_IOC_NEW, flags}, opened);
}

void SharedMappings::take_userfaultfd(const JobPtr& job, int64_t opened) {
  if (opened < 0) return close_descriptors(job, opened == -EPERM ? -ENODEV : opened);
  job->userfaultfd_there = static_cast<int>(opened);
  auto copy = steal_fd(job->thread->tid(), job->userfaultfd_there);
  if (!copy) return close_descriptors(job, -ENODEV);
  job->userfaultfd = std::move(*copy);
  map(job);
}

void SharedMappings::map(const JobPtr& job) {
  const MapRequest& map = job->map;
  const uint64_t flags = MAP_SHARED | (map.flags & kKeptFlags) | kUnnotifiedMapFlags;
  job->thread->run(SYS_mmap,
                   {map.address, map.length, map.protection, flags,
                    static_cast<uint64_t>(job->memory_there), map.offset},
                   [this, job](int64_t address) {
                     if (address < 0 && address > -int64_t{kPageBytes})
                       return close_descriptors(job, address);
                     serve(job, address);
                   });
}

void SharedMappings::serve(const JobPtr& job, int64_t address) {
  const MapRequest& map = job->map;
  auto process = read_process_status(job->thread->tid());
  files_.hold(*job->contents);
  auto attached =
      process ? job->contents->pages->attach(std::move(job->userfaultfd), process->pid,
                                             RemoteAddr{static_cast<uint64_t>(address)},
                                             PageIndex{map.offset / kPageBytes}, map.pages())
              : Status(process.error());
  if (!attached) {
    log_warn("shm", "pid {}: {}", job->thread->tid(), attached.error().message());
    files_.release_if_idle(*job->contents);
    return job->thread->run(SYS_munmap, {static_cast<uint64_t>(address), map.length},
                            [this, job](int64_t) { close_descriptors(job, -ENOMEM); });
  }
  close_descriptors(job, address);
}

void SharedMappings::close_descriptors(const JobPtr& job, int64_t result) {
  job->thread->set_result(result);
  for (int* there : {&job->userfaultfd_there, &job->device_there, &job->memory_there}) {
    const int number = std::exchange(*there, -1);
    if (number < 0) continue;
    return job->thread->run(SYS_close, {static_cast<uint64_t>(number)},
                            [this, job, result](int64_t) { close_descriptors(job, result); });
  }
}

}  // namespace krg
