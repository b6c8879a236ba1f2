// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/traced_thread.h"

#include <elf.h>
#include <sys/uio.h>

#include <utility>

#include "call_registers.h"
#include "process_memory.h"
#include "wait_status.h"

namespace krg {
namespace {

constexpr size_t kMostExtendedState = 64u << 10;
constexpr uint64_t kAllSignals = ~0ULL;
constexpr auto kGetSyscallInfo = static_cast<__ptrace_request>(0x420e);
constexpr uint8_t kEntry = 1;  // PTRACE_SYSCALL_INFO_ENTRY

Error died() {
  return errno_error("the thread died", ESRCH);
}

}  // namespace

TracedThread::TracedThread(ChildReaper& reaper, pid_t tid,
                           std::function<void(const TraceStop&)> stopped)
    : reaper_(reaper), tid_(tid), stopped_(std::move(stopped)) {
  reaper_.watch_new_tracee(tid_, [this](const ChildEvent& event) {
    if (event.is_end()) end_status_ = wait_status_of(event.code, event.status);
    on_stop(event.is_end() ? TraceStop{} : TraceStop::from(event.status));
  });
}

TracedThread::~TracedThread() {
  reaper_.unwatch_tracee(tid_);
  release();
  if (auto stands = std::exchange(stands_, nullptr)) stands();
}

Result<user_regs_struct> TracedThread::registers() const {
  user_regs_struct registers{};
  if (ptrace(PTRACE_GETREGS, tid_, nullptr, &registers) != 0) return died();
  return registers;
}

Status TracedThread::set_registers(const user_regs_struct& registers) {
  if (ptrace(PTRACE_SETREGS, tid_, nullptr, &registers) != 0) return died();
  return {};
}

Result<user_fpregs_struct> TracedThread::vector_registers() const {
  user_fpregs_struct registers{};
  if (ptrace(PTRACE_GETFPREGS, tid_, nullptr, &registers) != 0) return died();
  return registers;
}

Result<ThreadState> TracedThread::state() const {
  ThreadState state;
  auto all = registers();
  if (!all) return all.error();
  state.registers = *all;
  state.extended_state.resize(kMostExtendedState);
  iovec extended{state.extended_state.data(), state.extended_state.size()};
  if (ptrace(PTRACE_GETREGSET, tid_, NT_X86_XSTATE, &extended) != 0) return died();
  state.extended_state.resize(extended.iov_len);
  return state;
}

Status TracedThread::set_extended_state(const std::string& state) {
  iovec extended{const_cast<char*>(state.data()), state.size()};
  if (ptrace(PTRACE_SETREGSET, tid_, NT_X86_XSTATE, &extended) != 0)
    return errno_error("vector registers");
  return {};
}

Status TracedThread::set_options(long options) {
  if (ptrace(PTRACE_SETOPTIONS, tid_, nullptr, options) != 0) return died();
  return {};
}

bool TracedThread::is_at_entry() const {
  uint8_t kind = 0;
  return ptrace(kGetSyscallInfo, tid_, sizeof kind, &kind) > 0 && kind == kEntry;
}

Result<siginfo_t> TracedThread::signal_info() const {
  siginfo_t info{};
  if (ptrace(PTRACE_GETSIGINFO, tid_, nullptr, &info) != 0) return died();
  return info;
}

bool TracedThread::may_have_own_signals() const {
  siginfo_t first;
  __ptrace_peeksiginfo_args ask{};
  ask.nr = 1;
  return ptrace(PTRACE_PEEKSIGINFO, tid_, &ask, &first) != 0;
}

pid_t TracedThread::new_task() const {
  unsigned long message = 0;
  ptrace(PTRACE_GETEVENTMSG, tid_, nullptr, &message);
  return static_cast<pid_t>(message);
}

void TracedThread::resume(__ptrace_request request, int signal) {
  if (is_held_) {
    resumption_ = Resumption{request, signal};
    return;
  }
  if (stepped_ && !done_) {
    if (is_stepping_ && is_behind_call()) return stand_behind_step(request, signal);
    is_stepping_ = true;
    goes_on_by_ = request;
    request = step_by(request);
  }
  is_stopped_ = false;
  was_emulated_ = request == kSystemCallsAreOurs || request == kStepOrOurs;
  ptrace(request, tid_, nullptr, signal);  // one that has died is told of by its end
  reaper_.tracee_goes_on(tid_);
}

void TracedThread::interrupt() {
  is_interrupted_ = ptrace(PTRACE_INTERRUPT, tid_, nullptr, nullptr) == 0;
}

void TracedThread::detach() {
  ptrace(PTRACE_DETACH, tid_, nullptr, nullptr);
}

void TracedThread::hold(std::function<void()> stands) {
  is_held_ = true;
  if (is_stopped_) return stands();
  if (stands_)
    stands = [first = std::move(stands_), then = std::move(stands)] {
      first();
      then();
    };
  stands_ = std::move(stands);
  interrupt();
}

void TracedThread::release() {
  is_held_ = false;
  if (auto waiting = std::exchange(resumption_, std::nullopt))
    resume(waiting->request, waiting->signal);
}

void TracedThread::step(std::function<void()> stepped) {
  stepped_ = std::move(stepped);
  is_stepping_ = false;
}

// A system call is not stepped: whoever watches the thread has to see both of its stops.
__ptrace_request TracedThread::step_by(__ptrace_request request) const {
  if (request == kSystemCallsAreOurs) return kStepOrOurs;
  if (request != PTRACE_SYSCALL) return request;
  if (last_stop_.kind == TraceStop::Kind::kSystemCall && is_at_entry()) return request;
  constexpr uint16_t kSystemCall = 0x050f;
  uint16_t instruction = 0;
  auto registers = this->registers();
  const bool is_call = registers &&
                       read_process_memory(tid_, RemoteAddr{registers->rip},
                                           {reinterpret_cast<char*>(&instruction), 2}) &&
                       instruction == kSystemCall;
  return is_call ? request : PTRACE_SINGLESTEP;
}

bool TracedThread::is_behind_call() const {
  return last_stop_.kind == TraceStop::Kind::kSystemCall && (was_emulated_ || !is_at_entry());
}

bool TracedThread::has_stepped(const TraceStop& stop) const {
  if (!stepped_ || !is_stepping_ || done_) return false;
  if (stop.kind != TraceStop::Kind::kSignal || stop.signal != SIGTRAP) return false;
  auto info = signal_info();
  return info && is_of_step(*info);
}

void TracedThread::stand_behind_step(__ptrace_request request, int signal) {
  is_held_ = true;
  resumption_ = Resumption{request, signal};
  std::exchange(stepped_, nullptr)();
}

bool TracedThread::is_settled() const {
  return is_held_ && is_stopped_ && !done_ && resumption_ && resumption_->signal == 0;
}

void TracedThread::give_up() {
  is_held_ = false;
  resumption_.reset();
  stands_ = nullptr;
  reaper_.unwatch_tracee(tid_);
}

void TracedThread::call(RemoteAddr instruction, long number, const Arguments& arguments,
                        std::function<void(int64_t)> done, std::function<void(pid_t)> cloned) {
  done_ = std::move(done);
  cloned_ = std::move(cloned);
  auto registers = this->registers();
  if (!registers || ptrace(PTRACE_GETSIGMASK, tid_, sizeof kept_mask_, &kept_mask_) != 0) return;
  kept_registers_ = *registers;
  ptrace(PTRACE_SETSIGMASK, tid_, sizeof kAllSignals, &kAllSignals);
  static_cast<void>(
      set_registers(call_registers(*registers, instruction.value, number, arguments)));
  resume(PTRACE_SYSCALL);
}

// What is told of it may destroy this.
void TracedThread::on_stop(const TraceStop& stop) {
  last_stop_ = stop;
  is_stopped_ = true;
  reaper_.tracee_stands(tid_);
  was_interrupted_ = std::exchange(is_interrupted_, false);
  const auto stands = std::exchange(stands_, nullptr);
  if (has_stepped(stop)) {
    stand_behind_step(goes_on_by_, 0);
  } else if (done_) {
    on_stop_in_call(stop);
  } else {
    auto stopped = stopped_;
    stopped(stop);
  }
  if (stands) stands();
}

void TracedThread::on_stop_in_call(const TraceStop& stop) {
  if (stop.kind == TraceStop::Kind::kGone) {
    auto stopped = stopped_;
    end_call(-ESRCH);
    return stopped(stop);
  }
  const bool is_clone = stop.event == PTRACE_EVENT_CLONE || stop.event == PTRACE_EVENT_FORK;
  if (stop.kind == TraceStop::Kind::kEvent && is_clone && cloned_) cloned_(new_task());
  if (stop.kind != TraceStop::Kind::kSystemCall || is_at_entry()) return resume(PTRACE_SYSCALL);
  auto registers = this->registers();
  const int64_t result = registers ? static_cast<int64_t>(registers->rax) : -ESRCH;
  static_cast<void>(set_registers(kept_registers_));
  ptrace(PTRACE_SETSIGMASK, tid_, sizeof kept_mask_, &kept_mask_);
  end_call(result);
}

void TracedThread::end_call(int64_t result) {
  cloned_ = nullptr;
  std::exchange(done_, nullptr)(result);
}

}  // namespace krg
