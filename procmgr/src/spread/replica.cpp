// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/replica.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <csignal>
#include <cstring>

#include "krg/procmgr/unnotified_cookie.h"
#include "krg/runtime/log.h"
#include "spread/team_registers.h"

namespace krg {
namespace {

constexpr long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
constexpr uint64_t kThreadFlags =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
constexpr uint64_t kNoStack = 8;
constexpr uint64_t kMapFlags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE | kUnnotifiedMapFlags;

}  // namespace

Result<std::unique_ptr<Replica>> Replica::create(Parts parts, InstalledProcess& installed,
                                                 const SpreadImage& image,
                                                 std::function<void()> ended) {
  std::unique_ptr<Replica> replica(new Replica(parts, std::move(ended)));
  UniqueFd userfaultfd = installed.take_userfaultfd();
  auto process = installed.take_process();
  const auto fail = [&](Error why) {
    process->kill();
    return why;
  };
  process->drop_scratch();
  auto instruction = process->instruction();
  if (!instruction) return fail(instruction.error());
  std::string_view rest = image.contents;
  for (const PageRange& range : image.pages) {
    if (auto put = process->write(range.start, rest.substr(0, range.bytes)); !put)
      return fail(put.error());
    rest.remove_prefix(range.bytes);
  }
  for (const SpreadRange& range : image.ranges) {
    const int64_t at =
        process->call(SYS_mmap, {range.start.value, range.bytes, range.protection, kMapFlags,
                                 kMemoryFd, range.first.value * kPageBytes});
    if (at != static_cast<int64_t>(range.start.value))
      return fail(errno_error("mmap", static_cast<int>(at < 0 ? -at : EEXIST)));
    if (auto attached =
            replica->parts_.pages.is_attached(process->pid())
                ? parts.pages.attach_beside(process->pid(), range.start, range.first,
                                            range.bytes / kPageBytes)
                : parts.pages.attach(std::move(userfaultfd), process->pid(), range.start,
                                     range.first, range.bytes / kPageBytes);
        !attached)
      return fail(attached.error());
    replica->memory_.map(range);
  }
  for (const ImageMapping& mapping : image.image.mappings)
    if (mapping.kind == ImageMapping::Kind::kFile) {
      SpreadRange range;
      range.start = mapping.start;
      range.bytes = mapping.bytes;
      range.protection = mapping.protection;
      replica->files_.map(range);
    }
  auto threads = process->hand_over();
  if (!threads) return fail(threads.error());
  replica->instruction_ = *instruction;
  replica->keeper_ = std::make_unique<TracedThread>(*parts.node.children, process->pid(),
                                                    [raw = replica.get()](const TraceStop& stop) {
                                                      if (stop.kind != TraceStop::Kind::kGone)
                                                        return;
                                                      auto ended = raw->ended_;
                                                      ended();
                                                    });
  if (auto set = replica->keeper_->set_options(kOptions | PTRACE_O_TRACECLONE); !set)
    return fail(set.error());
  return replica;
}

Replica::~Replica() {
  if (keeper_) kill(keeper_->tid(), SIGKILL);
}

pid_t Replica::thread_at_home(pid_t here) const {
  for (const auto& [tid, thread] : threads_)
    if (thread->traced && thread->traced->tid() == here) return tid;
  return 0;
}

TeamPhase Replica::phase_of(pid_t tid) const {
  auto found = threads_.find(tid);
  return found == threads_.end() ? TeamPhase() : found->second->phase;
}

// --- the keeper ---------------------------------------------------------------------------------

void Replica::enqueue(Job job) {
  jobs_.push_back(std::move(job));
  if (jobs_.size() == 1) run_next();
}

void Replica::run_next() {
  if (jobs_.empty()) return;
  Job job = jobs_.front();
  job([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    jobs_.pop_front();
    run_next();
  });
}

void Replica::change(const ChangeMemory& change, std::function<void(Status)> done) {
  enqueue([this, change, done = std::move(done)](std::function<void()> next) {
    const auto finish = [done, next](int64_t result) {
      done(result >= 0 ? Status() : errno_error("mappings", static_cast<int>(-result)));
      next();
    };
    const RemoteAddr start{change.start};
    files_.unmap(start, change.bytes);
    switch (change.kind) {
      case ChangeMemory::Kind::kUnmap:
        memory_.unmap(start, change.bytes);
        return keeper_->call(instruction_, SYS_munmap, {change.start, change.bytes}, finish);
      case ChangeMemory::Kind::kProtect:
        memory_.protect(start, change.bytes, change.protection);
        return keeper_->call(instruction_, SYS_mprotect,
                             {change.start, change.bytes, change.protection}, finish);
      case ChangeMemory::Kind::kMap: {
        SpreadRange range;
        range.start = start;
        range.bytes = change.bytes;
        range.first = PageIndex{change.first_page};
        range.protection = change.protection;
        return map(range, [done, next](Status mapped) {
          done(std::move(mapped));
          next();
        });
      }
    }
  });
}

// Other threads run here meanwhile: none of them may get at a page before the page set serves it.
void Replica::map(const SpreadRange& range, std::function<void(Status)> done) {
  memory_.unmap(range.start, range.bytes);
  keeper_->call(
      instruction_, SYS_mmap,
      {range.start.value, range.bytes, PROT_NONE, kMapFlags, kMemoryFd,
       range.first.value * kPageBytes},
      [this, range, done = std::move(done)](int64_t at) {
        if (at != static_cast<int64_t>(range.start.value))
          return done(errno_error("mmap", static_cast<int>(at < 0 ? -at : EEXIST)));
        memory_.map(range);
        if (auto attached = parts_.pages.attach_beside(pid(), range.start, range.first,
                                                       range.bytes / kPageBytes);
            !attached)
          return done(attached);
        keeper_->call(
            instruction_, SYS_mprotect, {range.start.value, range.bytes, range.protection},
            [done](int64_t result) {
              done(result == 0 ? Status() : errno_error("mprotect", static_cast<int>(-result)));
            });
      });
}

// --- threads ------------------------------------------------------------------------------------

void Replica::take(const SendThread& ask, ThreadState state, std::function<void(Status)> done) {
  auto thread = std::make_shared<Thread>();
  thread->tid = ask.tid;
  thread->pid = ask.pid;
  threads_[thread->tid] = thread;
  enqueue(
      [this, thread, state = std::move(state), done = std::move(done)](std::function<void()> next) {
        auto task = std::make_shared<pid_t>(0);
        keeper_->call(
            instruction_, SYS_clone, {kThreadFlags, kNoStack},
            [this, thread, task, state, done, next](int64_t made) {
              if (made >= 0 && *task != 0) {
                start(thread, *task, state, done);
              } else {
                forget(thread);
                done(errno_error("a thread", made < 0 ? static_cast<int>(-made) : EIO));
              }
              next();
            },
            [task](pid_t cloned) { *task = cloned; });
      });
}

// Its first stop is before its first instruction.
void Replica::start(const ThreadPtr& thread, pid_t task, ThreadState state,
                    std::function<void(Status)> done) {
  auto first = std::make_shared<std::function<void(Status)>>(std::move(done));
  thread->traced = std::make_unique<TracedThread>(
      *parts_.node.children, task,
      [this, replica = std::weak_ptr(alive_), thread = std::weak_ptr(thread),
       state = std::move(state), first](const TraceStop& stop) {
        auto alive = thread.lock();  // what it waits for may hold it longer than this
        if (!alive || replica.expired()) return;
        if (!*first) return on_stop(alive, stop);
        auto started = std::exchange(*first, nullptr);
        TracedThread& traced = *alive->traced;
        if (stop.kind != TraceStop::Kind::kTrap || !traced.set_registers(state.registers) ||
            !traced.set_extended_state(state.extended_state) || !traced.set_options(kOptions)) {
          end_thread(alive);
          return started(errno_error("state of a thread", EIO));
        }
        log_debug("spread", "thread {} runs here at {:x}", alive->tid, state.registers.rip);
        started({});
        if (held_for_ != 0) traced.hold([] {});
        if (alive->is_recalled) traced.interrupt();
        traced.resume(kSystemCallsAreOurs);
      });
}

void Replica::recall(pid_t tid) {
  auto found = threads_.find(tid);
  if (found == threads_.end()) return;
  const ThreadPtr thread = found->second;
  thread->is_recalled = true;
  if (!thread->traced) return;  // it has yet to begin
  if (thread->wait) return leave(thread, std::nullopt);
  thread->awaits_answer ? send_home(thread, true) : thread->traced->interrupt();
}

void Replica::bind(pid_t tid, const ProcessorSet& processors) {
  auto found = threads_.find(tid);
  if (found != threads_.end() && found->second->traced)
    bind_thread(found->second->traced->tid(), processors);
}

void Replica::hold(HoldThreads::Why why, std::function<void()> done) {
  held_for_ |= static_cast<unsigned>(why);
  if (why == HoldThreads::Why::kDebugger)
    for (const auto& [tid, thread] : threads_)
      if (thread->traced) thread->traced->end_step();
  auto left = std::make_shared<size_t>(threads_.size() + 1);
  const auto stands = [left, done = std::move(done)] {
    if (--*left == 0) done();
  };
  for (const auto& [tid, thread] : std::map(threads_))
    thread->traced ? thread->traced->hold(stands) : stands();
  stands();
}

void Replica::release(HoldThreads::Why why) {
  held_for_ &= ~static_cast<unsigned>(why);
  if (held_for_ != 0) return;
  for (const auto& [tid, thread] : std::map(threads_))
    if (thread->traced) thread->traced->release();
}

// One that stands at a call has its number in orig_rax until it is answered.
CapturedThreads Replica::captured_threads() const {
  CapturedThreads all;
  for (const auto& [tid, thread] : threads_) {
    auto state = thread->traced && thread->traced->is_stopped()
                     ? thread->traced->state()
                     : Result<ThreadState>(errno_error("it does not stand", EAGAIN));
    if (!state) continue;
    CapturedThread& captured = all[tid];
    const bool is_leaving = thread->wait && thread->wait->is_leaving;
    captured.is_at_rest = !is_leaving && !thread->is_recalled;
    captured.is_in_call = static_cast<int64_t>(state->registers.orig_rax) >= 0;
    captured.state = std::move(*state);
  }
  return all;
}

void Replica::on_stop(const ThreadPtr& thread, const TraceStop& stop) {
  using Kind = TraceStop::Kind;
  // Whatever it does now may tell others that it has written something.
  if (stop.kind != Kind::kGone) parts_.pages.publish(parts_.home);
  parts_.signs.stops(thread->traced->tid());
  switch (stop.kind) {
    case Kind::kGone:
      return forget(thread);
    case Kind::kSystemCall:
      return on_call(thread);
    case Kind::kSignal:
      if (stop.signal == SIGTRAP && takes_trap(thread)) return;
      return stop.signal == SIGSEGV ? ask_mapping(thread) : send_home(thread, false);
    case Kind::kTrap:  // recalled; or held, and let go since
      if (!thread->is_recalled && stop.signal == SIGTRAP)
        return thread->traced->resume(kSystemCallsAreOurs);
      return send_home(thread, false);
    case Kind::kEvent:
      return thread->traced->resume(kSystemCallsAreOurs);
  }
}

void Replica::on_call(const ThreadPtr& thread) {
  auto registers = thread->traced->registers();
  if (!registers) return;
  log_trace("spread", "thread {}: call {} at {:x}", thread->tid, registers->orig_rax,
            registers->rip);
  thread->met = {};  // what it meets from now on may be new
  if (thread->is_recalled) return send_home(thread, true);
  switch (registers->orig_rax) {
    case SYS_sched_yield:
      return answer(thread, 0);
    case SYS_gettid:
      return answer(thread, thread->tid);
    case SYS_getpid:
      return answer(thread, thread->pid);
    case SYS_rseq:  // the C library then asks the vdso for the processor
      return answer(thread, 0);
    case SYS_rt_sigreturn:
      return send_home(thread, true);
    case SYS_futex:
      if (begin_futex(thread, *registers)) return;
      [[fallthrough]];
    default:
      if (!is_team_call(*registers)) return call_at_home(thread, *registers);
      return begin_team_call(thread, *registers);
  }
}

void Replica::call_at_home(const ThreadPtr& thread, const user_regs_struct& call, bool goes_on) {
  parts_.pages.waits(thread->traced->tid());
  thread->awaits_answer = true;
  CallAtHome ask;
  ask.set = parts_.set.value;
  ask.tid = thread->tid;
  ask.goes_on = goes_on;
  parts_.node.messenger.request(parts_.home, ask,
                                {reinterpret_cast<const char*>(&call), sizeof call},
                                [this, alive = std::weak_ptr(alive_), weak = std::weak_ptr(thread),
                                 number = ++thread->calls](Result<std::string> reply) {
                                  auto thread = weak.lock();
                                  if (alive.expired() || !thread || !thread->awaits_answer) return;
                                  if (thread->calls != number) return;
                                  thread->awaits_answer = false;
                                  thread->patience.drop();
                                  if (!reply) return end_here(thread);
                                  take_answer(thread, *reply);
                                });
}

// A call's result, or for a team call all registers.
void Replica::take_answer(const ThreadPtr& thread, std::string_view reply) {
  int64_t result = 0;
  user_regs_struct registers{};
  if (reply.size() == sizeof registers) {
    memcpy(&registers, reply.data(), sizeof registers);
    registers.orig_rax = ~0ULL;
    static_cast<void>(thread->traced->set_registers(registers));
    thread->traced->resume(kSystemCallsAreOurs);
    return end_team_call(thread, static_cast<int64_t>(registers.rax), team_words(registers));
  }
  if (reply.size() != sizeof result) return end_thread(thread);
  memcpy(&result, reply.data(), sizeof result);
  answer(thread, result);
}

void Replica::answer(const ThreadPtr& thread, int64_t result) {
  auto registers = thread->traced->registers();
  if (!registers) return;
  registers->rax = static_cast<uint64_t>(result);
  registers->orig_rax = ~0ULL;
  static_cast<void>(thread->traced->set_registers(*registers));
  thread->traced->resume(kSystemCallsAreOurs);
}

void Replica::send_home(const ThreadPtr& thread, bool makes_call_again) {
  auto state = thread->traced->state();
  if (!state) return;
  log_debug("spread", "thread {} goes home at {:x}", thread->tid, state->registers.rip);
  if (makes_call_again) state->registers = before_the_call(state->registers);
  state->registers.orig_rax = ~0ULL;
  ReturnThread back;
  back.set = parts_.set.value;
  back.tid = thread->tid;
  if (const auto times = times_of(thread)) back.used = times->used;
  static_cast<void>(parts_.node.messenger.send(parts_.home, back, state->serialize()));
  end_thread(thread);
}

// It leaves by a system call of its own, which nobody looks at any more.
void Replica::end_thread(const ThreadPtr& thread) {
  thread->awaits_answer = false;
  thread->patience.drop();
  thread->wait.reset();
  if (auto registers = thread->traced->registers()) {
    user_regs_struct last = *registers;
    last.rip = instruction_.value;
    last.rax = SYS_exit;
    last.rdi = 0;
    last.orig_rax = ~0ULL;
    const uint64_t all = ~0ULL;
    ptrace(PTRACE_SETSIGMASK, thread->traced->tid(), sizeof all, &all);
    static_cast<void>(thread->traced->set_registers(last));
    thread->traced->resume(PTRACE_CONT);
  }
  forget(thread);
}

void Replica::forget(const ThreadPtr& thread) {
  auto found = threads_.find(thread->tid);
  if (found == threads_.end() || found->second != thread) return;
  threads_.erase(found);
  leave_team(thread->tid);
}

}  // namespace krg
