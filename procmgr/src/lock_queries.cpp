// SPDX-License-Identifier: GPL-2.0-or-later
#include "lock_queries.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "in_worker.h"
#include "process_fds.h"
#include "process_status.h"

namespace krg {

struct LockQueries::Job {
  SyscallBroker::Call call;
  FdIdentity file;
  pid_t process;  // 0: an open file asks (F_OFD_GETLK), in whose way are its process's locks, too
  struct flock asked;
};

LockQueries::LockQueries(NodeContext& node, SyscallBroker& broker, SessionFs& fs, StreamTree& tree,
                         HomeRecordLocks& locks)
    : node_(node), fs_(fs), tree_(tree), locks_(locks) {
  broker.set_handler(SYS_fcntl, [this](SyscallBroker::Call call) { handle(std::move(call)); });
}

// What is wrong with a call the kernel says.
void LockQueries::handle(SyscallBroker::Call call) {
  const auto file = fd_identity(call.tid(), static_cast<int>(call.arg(0)));
  if (!file) return call.go_on();
  const bool is_ours = fs_.is_serving() && file->device == fs_.device();
  // Which of its open files of a file of krgfs asks, FUSE alone is told.
  const bool of_description = static_cast<int>(call.arg(1)) == F_OFD_GETLK;
  if (is_ours ? of_description : !locks_.has_locks_on(*file)) return call.go_on();
  struct flock asked {};
  const auto bytes = call.read_memory(RemoteAddr{call.arg(2)}, sizeof asked);
  const auto caller = read_process_status(call.tid());
  if (!bytes || !caller) return call.go_on();
  std::memcpy(&asked, bytes->data(), sizeof asked);
  if (asked.l_type != F_RDLCK && asked.l_type != F_WRLCK) return call.go_on();
  if (of_description && asked.l_pid != 0) return call.go_on();
  const pid_t process = of_description ? 0 : caller->pid;
  find_start(std::make_shared<Job>(Job{std::move(call), *file, process, asked}));
}

void LockQueries::find_start(const JobPtr& job) {
  const auto number = static_cast<int>(job->call.arg(0));
  switch (job->asked.l_whence) {
    case SEEK_SET:
      return ask(job, 0);
    case SEEK_CUR: {
      const auto offset = offset_of_fd(job->call.tid(), number);
      return offset ? ask(job, *offset) : job->call.go_on();
    }
    case SEEK_END:  // perhaps krgd itself is asked for the size
      return in_worker(
          node_.workers,
          [tid = job->call.tid(), number]() -> int64_t {
            struct stat attributes {};
            const auto file = steal_fd(tid, number);
            return file && fstat(file->get(), &attributes) == 0 ? attributes.st_size : -1;
          },
          [this, job](int64_t size) { size >= 0 ? ask(job, size) : job->call.go_on(); });
    default:
      return job->call.go_on();
  }
}

void LockQueries::ask(const JobPtr& job, int64_t base) {
  RecordLock wanted;
  wanted.type = job->asked.l_type;
  wanted.length = job->asked.l_len;
  if (__builtin_add_overflow(base, job->asked.l_start, &wanted.start) || wanted.start < 0)
    return job->call.go_on();
  const int64_t before = std::min<int64_t>(wanted.length, 0);
  if (wanted.start + before < 0) return job->call.go_on();
  if (fs_.is_serving() && job->file.device == fs_.device())
    return tree_.find_lock(job->process, job->file.inode, wanted,
                           [job](const Result<RecordLock>& found) { answer(job, found); });
  const RecordLock found = locks_.blocking(job->file, job->process, wanted);
  found.type == F_UNLCK ? job->call.go_on() : answer(job, found);
}

void LockQueries::answer(const JobPtr& job, const Result<RecordLock>& found) {
  if (!found) return job->call.fail(found.error().errno_or(EIO));
  if (!job->call.is_valid()) return;
  struct flock told = job->asked;
  told.l_type = static_cast<short>(found->type);
  if (found->type != F_UNLCK) {
    told.l_whence = SEEK_SET;
    told.l_start = found->start;
    told.l_len = found->length;
    told.l_pid = found->pid;
  }
  const Status written = job->call.write_memory(
      RemoteAddr{job->call.arg(2)}, {reinterpret_cast<const char*>(&told), sizeof told});
  written ? job->call.succeed(0) : job->call.fail(EFAULT);
}

}  // namespace krg
