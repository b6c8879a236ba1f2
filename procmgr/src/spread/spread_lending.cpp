// SpreadProcess: its threads make system calls for krgd behind calls of their own: what maps memory
// that the process shares with others (files of the session's /dev/shm, System V segments). Such
// memory is at home only.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/syscall.h>

#include <utility>

#include "remote_syscalls.h"
#include "spread/spread_process.h"

namespace krg {

// Stands behind its call for as long as this is there.
class SpreadProcess::LentThread : public RemoteSyscalls {
 public:
  LentThread(SpreadProcess& of, ThreadPtr thread)
      : RemoteSyscalls(thread->traced->tid()),
        of_(of),
        alive_(of.alive_),
        thread_(std::move(thread)) {}
  ~LentThread() override {
    if (!has_died()) of_.take_back(thread_, result(), std::move(changed_));
  }
  LentThread(const LentThread&) = delete;
  LentThread& operator=(const LentThread&) = delete;

  void run(long number, const Arguments& arguments, std::function<void(int64_t)> done) override {
    if (has_died()) return done(-ESRCH);
    thread_->traced->call(of_.parts_.instruction, number, passing(number, arguments),
                          [this, number, arguments, done = std::move(done)](int64_t result) {
                            note(number, arguments, result);
                            done(result);
                          });
  }

 private:
  bool has_died() const { return is_dead_ || alive_.expired() || thread_->is_gone; }
  void note(long number, const Arguments& arguments, int64_t result) {
    is_dead_ = result == -ESRCH;
    const bool maps = number == SYS_mmap && (result >= 0 || result <= -int64_t{kPageBytes});
    const bool unmaps = number == SYS_munmap && result == 0;
    if (!maps && !unmaps) return;
    SpreadRange range;
    range.start = RemoteAddr{maps ? static_cast<uint64_t>(result) : arguments[0]};
    range.bytes = arguments[1];
    changed_.push_back(range);
  }

  SpreadProcess& of_;
  const std::weak_ptr<bool> alive_;
  const ThreadPtr thread_;
  bool is_dead_ = false;
  std::vector<SpreadRange> changed_;  // where other memory is than before
};

// The call ends without having done anything: either by this answer or, if the thread has been
// interrupted meanwhile, by that.
void SpreadProcess::lend(SyscallBroker::Call call, ThreadLender::Borrowed borrowed) {
  threads_.at(call.tid())->borrower = std::move(borrowed);
  call.fail(EINTR);
}

void SpreadProcess::give_to_borrower(const ThreadPtr& thread) {
  std::shared_ptr<RemoteSyscalls> lent = std::make_shared<LentThread>(*this, thread);
  std::exchange(thread->borrower, nullptr)(std::move(lent));
}

// What replicas show where it has changed is gone before anybody hears of it.
void SpreadProcess::take_back(const ThreadPtr& thread, int64_t result,
                              std::vector<SpreadRange> changed) {
  if (changed.empty()) {
    auto registers = thread->traced->registers();
    if (!registers) return;  // its end is told
    registers->rax = static_cast<uint64_t>(result);
    static_cast<void>(thread->traced->set_registers(*registers));
    return finish(thread);
  }
  const SpreadRange range = changed.back();
  changed.pop_back();
  unmap_everywhere(range.start, range.bytes,
                   [this, thread, result, changed, alive = std::weak_ptr(alive_)] {
                     if (!alive.expired() && !thread->is_gone) take_back(thread, result, changed);
                   });
}

}  // namespace krg
