// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_set_mapper.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <utility>

#include "krg/procmgr/shared_window.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "krg/runtime/log.h"
#include "krg/shmem/page_set.h"
#include "process_fds.h"
#include "process_status.h"

namespace krg {
namespace {

// What counts of a caller's flags. Not MAP_POPULATE and MAP_LOCKED: the kernel would fill holes.
constexpr uint64_t kKeptFlags = MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT | MAP_NORESERVE;

constexpr uint64_t kPlaceAlignment = 2u << 20;
constexpr unsigned kMaxPlacesTried = 16;

bool is_error(int64_t result) {
  return result < 0 && result > -int64_t{kPageBytes};
}

}  // namespace

struct PageSetMapper::Job {
  SyscallBroker::Call call;
  Request request;
  std::shared_ptr<RemoteSyscalls> thread = nullptr;
  pid_t pid = 0;
  // Descriptors in the process: what krgd has put there, what it has opened.
  int memory_there = -1, device_there = -1, userfaultfd_there = -1;
  UniqueFd userfaultfd = {};
  int64_t address = 0;  // 0: not mapped yet
  unsigned places_tried = 0;
};

void PageSetMapper::map(SyscallBroker::Call call, Request request) {
  auto job = std::make_shared<Job>(Job{std::move(call), std::move(request)});
  const pid_t tid = job->call.tid();
  auto process = read_process_status(tid);
  if (!process || !job->call.is_valid()) return fail(job, ESRCH);
  job->pid = process->pid;
  give_descriptors(job);
  if (job->memory_there < 0) return fail(job, EMFILE);
  auto asked = borrow(job->call, [this, job](Result<std::shared_ptr<RemoteSyscalls>> borrowed) {
    if (!borrowed) {  // it died
      if (job->request.done) job->request.done(-ESRCH);
      return;
    }
    job->thread = std::move(*borrowed);
    begin(job);
  });
  if (asked) return;
  log_warn("shm", "thread {}: {}", tid, asked.error().message());
  fail(job, ENODEV);
}

Status PageSetMapper::borrow(SyscallBroker::Call& call, RemoteSyscalls::Borrowed borrowed) const {
  if (!lender_.has(call.tid()))
    return RemoteSyscalls::borrow(*node_.children, call, std::move(borrowed));
  lender_.lend(std::move(call), std::move(borrowed));
  return {};
}

bool PageSetMapper::is_out_of_reach(pid_t tid) const {
  auto tracer = read_tracer(tid);
  return !tracer || (*tracer != 0 && !lender_.has(tid));
}

void PageSetMapper::give_descriptors(const JobPtr& job) {
  if (const int device = source_.device(); device >= 0) {
    auto there = job->call.add_fd(device);
    if (!there) return;
    job->device_there = *there;
  }
  if (auto there = job->call.add_fd(job->request.memory.get())) job->memory_there = *there;
}

void PageSetMapper::fail(const JobPtr& job, int error) {
  job->call.fail(error);
  if (job->request.done) job->request.done(-error);
}

void PageSetMapper::begin(const JobPtr& job) {
  if (job->request.is_served && job->request.is_served(job->pid)) return map_memory(job);
  open_userfaultfd(job);
}

void PageSetMapper::open_userfaultfd(const JobPtr& job) {
  const auto flags = static_cast<uint64_t>(PageSet::userfaultfd_flags(false));
  auto opened = [this, job](int64_t number) { take_userfaultfd(job, number); };
  if (job->device_there < 0) return job->thread->run(SYS_userfaultfd, {flags}, opened);
  job->thread->run(SYS_ioctl,
                   {static_cast<uint64_t>(job->device_there), USERFAULTFD_IOC_NEW, flags}, opened);
}

void PageSetMapper::take_userfaultfd(const JobPtr& job, int64_t opened) {
  if (opened < 0) return close_descriptors(job, opened == -EPERM ? -ENODEV : opened);
  job->userfaultfd_there = static_cast<int>(opened);
  auto copy = steal_fd(job->thread->tid(), job->userfaultfd_there);
  if (!copy) return close_descriptors(job, -ENOMEM);  // krgd's descriptors are used up
  job->userfaultfd = std::move(*copy);
  job->address == 0 ? map_memory(job) : serve(job);
}

// The next place in the window, each after the last one that any process of this node got.
uint64_t PageSetMapper::next_place(uint64_t length) {
  const uint64_t bytes = (length + kPlaceAlignment) / kPlaceAlignment * kPlaceAlignment;
  if (bytes > kSharedWindowBytes / 2) return 0;
  if (next_place_ + bytes > kSharedWindowBytes) next_place_ = 0;
  return kSharedWindow + std::exchange(next_place_, next_place_ + bytes);
}

void PageSetMapper::map_memory(const JobPtr& job) {
  const Request& request = job->request;
  uint64_t flags = MAP_SHARED | (request.flags & kKeptFlags) | kUnnotifiedMapFlags;
  uint64_t address = request.address;
  // Where the program leaves the place to the kernel.
  const bool in_window = address == 0 && !(request.flags & (MAP_FIXED | MAP_32BIT)) &&
                         job->places_tried < kMaxPlacesTried;
  if (in_window) address = next_place(request.length);
  if (in_window && address != 0) flags |= MAP_FIXED_NOREPLACE;
  job->thread->run(SYS_mmap,
                   {address, request.length, request.protection, flags,
                    static_cast<uint64_t>(job->memory_there), request.offset},
                   [this, job, in_window](int64_t address) {
                     if (in_window && address == -EEXIST) {
                       ++job->places_tried;
                       return map_memory(job);
                     }
                     if (is_error(address)) return close_descriptors(job, address);
                     job->address = address;
                     serve(job);
                   });
}

void PageSetMapper::serve(const JobPtr& job) {
  const Request& request = job->request;
  // Its last other mapping may have gone while this one was made: the userfaultfd went with it.
  const bool is_served = request.is_served && request.is_served(job->pid);
  if (!job->userfaultfd && !is_served) return open_userfaultfd(job);
  if (is_served) job->userfaultfd.reset();
  const RemoteAddr at{static_cast<uint64_t>(job->address)};
  if (auto attached = request.attach(std::move(job->userfaultfd), job->pid, at); !attached) {
    log_warn("shm", "pid {}: {}", job->pid, attached.error().message());
    return undo(job);
  }
  if (!request.stays_with_process) return close_descriptors(job, job->address);
  job->thread->run(SYS_madvise, {at.value, request.length, MADV_DONTFORK},
                   [this, job](int64_t result) {
                     result == 0 ? close_descriptors(job, job->address) : undo(job);
                   });
}

void PageSetMapper::undo(const JobPtr& job) {
  job->thread->run(SYS_munmap, {static_cast<uint64_t>(job->address), job->request.length},
                   [this, job](int64_t) { close_descriptors(job, -ENOMEM); });
}

void PageSetMapper::close_descriptors(const JobPtr& job, int64_t result) {
  job->thread->set_result(result);
  for (int* there : {&job->userfaultfd_there, &job->device_there, &job->memory_there}) {
    const int number = std::exchange(*there, -1);
    if (number < 0) continue;
    return job->thread->run(SYS_close, {static_cast<uint64_t>(number)},
                            [this, job, result](int64_t) { close_descriptors(job, result); });
  }
  if (job->request.done) job->request.done(result);
}

}  // namespace krg
