// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/frozen_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <optional>

#include "call_registers.h"
#include "image/call_batch.h"
#include "image/exec_hold.h"
#include "image/traced_tasks.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "krg/runtime/unique_fd.h"
#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr uint64_t kMostSearched = 4u << 20;  // of one mapping, for an instruction
constexpr std::string_view kSyscallInstruction("\x0f\x05", 2);  // x86-64

// The bounds of an executable, readable mapping in a line of /proc/PID/maps.
std::optional<std::pair<uint64_t, uint64_t>> executable_bounds(std::string_view line) {
  uint64_t start, end;
  char permissions[5] = "";
  if (sscanf(std::string(line).c_str(), "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, permissions) !=
      3)
    return std::nullopt;
  if (permissions[0] != 'r' || permissions[2] != 'x') return std::nullopt;
  return std::pair(start, end);
}

std::optional<RemoteAddr> find_instruction(const FrozenProcess& process, uint64_t start,
                                           uint64_t end) {
  std::string text(std::min(end - start, kMostSearched), '\0');
  if (!process.read(RemoteAddr{start}, {text.data(), text.size()})) return std::nullopt;
  const size_t at = text.find(kSyscallInstruction);
  if (at == std::string::npos) return std::nullopt;
  return RemoteAddr{start + at};
}

// Not to be brought by a userfaultfd, which the loop itself would have to serve.
bool is_in_memory(pid_t pid, RemoteAddr address) {
  constexpr uint64_t kPresentOrSwapped = uint64_t{3} << 62;  // proc_pid_pagemap(5)
  UniqueFd pagemap(open(fmt::format("/proc/{}/pagemap", pid).c_str(), O_RDONLY | O_CLOEXEC));
  uint64_t entry = 0;
  const auto at = static_cast<off_t>(address.value / 4096 * sizeof entry);
  return pread(pagemap.get(), &entry, sizeof entry, at) == sizeof entry &&
         (entry & kPresentOrSwapped) != 0;
}

// A restartable sequence that the thread is in is left as the kernel leaves it when the thread
// loses its processor: calls for krgd would do that, too, but the registers are given back. Source:
// rseq(2), the kernel's include/uapi/linux/rseq.h.
void leave_restartable_sequence(const FrozenProcess& process, FrozenThread& thread) {
  struct Configuration {  // struct ptrace_rseq_configuration
    uint64_t pointer;
    uint32_t size, signature, flags, padding;
  } configuration{};
  struct Sequence {  // struct rseq_cs
    uint32_t version, flags;
    uint64_t start, bytes, abort_at;
  };
  constexpr auto kGetConfiguration = static_cast<__ptrace_request>(0x420f);
  constexpr uint64_t kSequenceAt = 8;  // in struct rseq
  if (ptrace(kGetConfiguration, thread.tid(), sizeof configuration, &configuration) <= 0 ||
      configuration.pointer == 0)
    return;
  const RemoteAddr pointer{configuration.pointer + kSequenceAt};
  if (!is_in_memory(process.pid(), pointer)) return;  // then it is not in one
  auto at = process.read_value<uint64_t>(pointer);
  if (!at || *at == 0) return;
  auto sequence = process.read_value<Sequence>(RemoteAddr{*at});
  user_regs_struct registers = thread.registers();
  if (!sequence || registers.rip - sequence->start >= sequence->bytes) return;
  registers.rip = sequence->abort_at;
  thread.set_registers(registers);
}

// What its tracer may, also where the program itself may not read or write. `step`: pread or
// pwrite.
template <class Byte, class Step>
Status transfer(pid_t pid, RemoteAddr at, std::span<Byte> bytes, Step step) {
  UniqueFd memory(open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDWR | O_CLOEXEC));
  if (!memory) return errno_error("memory of the process", errno == ENOENT ? ESRCH : errno);
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t moved = step(memory.get(), bytes.data() + done, bytes.size() - done,
                               static_cast<off_t>(at.value + done));
    if (moved <= 0) return errno_error("memory of the process", moved < 0 ? errno : EFAULT);
    done += static_cast<size_t>(moved);
  }
  return {};
}

}  // namespace

std::shared_ptr<FrozenProcess> FrozenProcess::adopt(ChildReaper& reaper, FrozenThread main,
                                                    RemoteAddr instruction) {
  std::shared_ptr<FrozenProcess> process(new FrozenProcess(reaper, main.tid()));
  process->instruction_ = instruction;
  process->add(std::move(main));
  return process;
}

FrozenProcess::~FrozenProcess() {
  thaw();
}

void FrozenProcess::add(FrozenThread thread) {
  const pid_t tid = thread.tid();
  leave_restartable_sequence(*this, thread);
  threads_.push_back(std::make_unique<FrozenThread>(std::move(thread)));
  watch(tid);
}

void FrozenProcess::watch(pid_t tid) {
  watched_.insert(tid);
  reaper_.watch_tracee(tid, [this, tid](const ChildEvent& event) {
    if (event.is_end()) on_thread_end(tid);
  });
}

void FrozenProcess::unwatch() {
  for (pid_t tid : std::exchange(watched_, {})) reaper_.unwatch_tracee(tid);
}

void FrozenProcess::on_thread_end(pid_t tid) {
  watched_.erase(tid);
  for (auto& thread : threads_)
    if (thread->tid() == tid) thread->forget();
  if (tid != pid_) return;
  if (auto ended = std::exchange(ended_, nullptr)) ended();
}

bool FrozenProcess::is_alive() const {
  return !threads_.empty() && !threads_.front()->is_gone();
}

void FrozenProcess::on_end(std::function<void()> ended) {
  ended_ = std::move(ended);
}

int64_t FrozenProcess::call(long number, FrozenThread::Arguments arguments) {
  return call_in(main(), number, arguments);
}

int64_t FrozenProcess::call_in(FrozenThread& thread, long number,
                               FrozenThread::Arguments arguments) {
  auto at = instruction();
  if (!at) return -at.error().errno_or(ESRCH);
  return thread.call(*at, number, arguments);
}

Result<RemoteAddr> FrozenProcess::instruction() {
  if (instruction_.value != 0) return instruction_;
  // Where it is in a system call, or has just come from one.
  const RemoteAddr last{main().registers().rip - kSyscallInstruction.size()};
  std::array<char, kSyscallInstruction.size()> code{};
  if (read(last, code) && std::string_view(code.data(), code.size()) == kSyscallInstruction) {
    instruction_ = last;
    return instruction_;
  }
  auto maps = read_whole_file(fmt::format("/proc/{}/maps", pid_));
  if (!maps || maps->empty()) return errno_error("no such process", ESRCH);
  std::string_view rest = *maps;
  // The kernel's own is small, and its memory is there.
  std::vector<std::string_view> lines;
  while (!rest.empty()) {
    const std::string_view line = next_line(rest);
    lines.insert(line.ends_with("[vdso]") ? lines.begin() : lines.end(), line);
  }
  for (std::string_view line : lines) {
    const auto bounds = executable_bounds(line);
    if (!bounds) continue;
    if (auto found = find_instruction(*this, bounds->first, bounds->second)) {
      instruction_ = *found;
      return instruction_;
    }
  }
  user_regs_struct registers;
  if (ptrace(PTRACE_GETREGS, pid_, nullptr, &registers) != 0)
    return errno_error("the process died", ESRCH);
  return errno_error("no system call instruction in its memory", ENOTSUP);
}

Status FrozenProcess::read(RemoteAddr from, std::span<char> to) const {
  const iovec local{to.data(), to.size()};
  const iovec remote{reinterpret_cast<void*>(from.value), to.size()};
  const ssize_t got = process_vm_readv(pid_, &local, 1, &remote, 1, 0);
  if (got == static_cast<ssize_t>(to.size())) return {};
  const size_t done = static_cast<size_t>(std::max<ssize_t>(got, 0));
  return transfer(pid_, from + done, to.subspan(done), pread);
}

Status FrozenProcess::write(RemoteAddr to, std::span<const char> bytes) const {
  const iovec local{const_cast<char*>(bytes.data()), bytes.size()};
  const iovec remote{reinterpret_cast<void*>(to.value), bytes.size()};
  const ssize_t put = process_vm_writev(pid_, &local, 1, &remote, 1, 0);
  if (put == static_cast<ssize_t>(bytes.size())) return {};
  const size_t done = static_cast<size_t>(std::max<ssize_t>(put, 0));
  return transfer(pid_, to + done, bytes.subspan(done), pwrite);
}

Result<FrozenProcess::Helpers> FrozenProcess::map_helpers(RemoteAddr at, uint64_t more_flags) {
  const uint64_t flags = MAP_PRIVATE | MAP_ANONYMOUS | kUnnotifiedMapFlags | more_flags;
  constexpr uint64_t kData = kScratchBytes + kCallsBytes;
  const auto map = [&](uint64_t protection) {
    return call(SYS_mmap, {at.value, kHelperBytes, protection, flags, ~0ULL, 0});
  };
  int64_t mapped = map(PROT_READ | PROT_WRITE | PROT_EXEC);
  const bool is_refused = mapped == -EACCES || mapped == -EPERM;
  // A program may have given up having memory so (PR_SET_MDWE), or making it executable later.
  if (is_refused) mapped = map(PROT_READ | PROT_EXEC);
  if (mapped < 0) return errno_error("memory for krgd's calls", static_cast<int>(-mapped));
  const RemoteAddr start{static_cast<uint64_t>(mapped)};
  const Helpers made{start, start + kScratchBytes, start + kData};
  const int64_t writable =
      is_refused ? call(SYS_mprotect, {start.value, kData, PROT_READ | PROT_WRITE}) : 0;
  Status put = writable == 0 ? write(made.code, call_batch_code())
                             : errno_error("memory for krgd's calls", static_cast<int>(-writable));
  if (put) return made;
  call(SYS_munmap, {start.value, kHelperBytes});
  return put.error();
}

Result<FrozenProcess::Helpers> FrozenProcess::helpers() {
  if (helpers_.scratch.value != 0) return helpers_;
  auto mapped = map_helpers({}, 0);
  if (!mapped) return mapped.error();
  helpers_ = *mapped;
  program_instruction_ = std::exchange(instruction_, helpers_.code);
  return helpers_;
}

Result<RemoteAddr> FrozenProcess::scratch() {
  auto mapped = helpers();
  if (!mapped) return mapped.error();
  return mapped->scratch;
}

void FrozenProcess::drop_scratch() {
  if (helpers_.scratch.value == 0) return;
  // This takes away what it is called from: the call does not come back there.
  if (is_alive()) call(SYS_munmap, {helpers_.scratch.value, kHelperBytes});
  helpers_ = {};
  instruction_ = program_instruction_;
}

Status FrozenProcess::move_in(RemoteAddr at) {
  drop_scratch();
  auto mapped = map_helpers(at, MAP_FIXED_NOREPLACE);
  if (!mapped) return mapped.error();
  helpers_ = *mapped;
  instruction_ = helpers_.code;
  program_instruction_ = {};  // it is about to go
  return {};
}

Result<std::shared_ptr<FrozenProcess>> FrozenProcess::fork(RemoteAddr tid_address) {
  auto at = instruction();
  if (!at) return at.error();
  uint64_t flags = CLONE_PARENT | SIGCHLD;
  if (tid_address.value != 0) flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
  pid_t made = 0;
  const int64_t forked =
      main().call_clone(*at, SYS_clone, {flags, 0, 0, tid_address.value, 0}, made);
  if (made == 0) return errno_error("fork", static_cast<int>(forked < 0 ? -forked : ESRCH));
  auto thread = FrozenThread::stopped(made);
  if (!thread) return thread.error();
  thread->set_registers(main().registers());
  thread->set_signal_mask(main().signal_mask());
  auto child = adopt(reaper_, std::move(*thread));
  // What krgd has in this one is a copy there, too.
  child->helpers_ = helpers_;
  child->instruction_ = instruction_;
  child->program_instruction_ = program_instruction_;
  return child;
}

// The one that stays is the child of one that ends at once, and so becomes init's.
Result<pid_t> FrozenProcess::clone_page_source(PageSource how) {
  auto at = instruction();
  if (!at) return at.error();
  pid_t between = 0, source = 0;
  int64_t cloned = main().call_clone(*at, SYS_clone, {CLONE_VM, kNoStack}, between);
  if (cloned < 0) {
    if (between != 0) end_task(between);
    return errno_error("page source", static_cast<int>(-cloned));
  }
  if (auto parent = FrozenThread::stopped(between); parent) {
    const uint64_t flags = how == PageSource::kShared ? CLONE_VM : 0;
    cloned = parent->call_clone(*at, SYS_clone, {flags, kNoStack}, source);
    parent->forget();
    // Else no reader of a pipe would see the end of it.
    if (cloned > 0 && !becomes_page_source(source, *at)) cloned = -ESRCH;
  } else {
    cloned = -ESRCH;
  }
  end_task(between);
  const int64_t reaped = call(SYS_wait4, {static_cast<uint64_t>(between), 0, __WALL, 0});
  if (cloned > 0 && reaped == between) return source;
  if (source != 0) end_task(source);
  return errno_error("page source", static_cast<int>(cloned < 0 ? -cloned : ESRCH));
}

void FrozenProcess::thaw() {
  drop_scratch();
  // None goes on before all can.
  for (auto& thread : threads_) static_cast<void>(thread->settle());
  unwatch();
  threads_.clear();
}

Result<std::vector<pid_t>> FrozenProcess::hand_over() {
  drop_scratch();
  std::vector<pid_t> tids;
  for (auto& thread : threads_) {
    if (thread->is_gone()) continue;
    if (auto settled = thread->settle(); !settled) return settled.error();
    tids.push_back(thread->tid());
  }
  unwatch();
  for (auto& thread : threads_) thread->forget();
  threads_.clear();
  if (tids.empty()) return errno_error("the process died", ESRCH);
  return tids;
}

void FrozenProcess::detach_from_memory() {
  for (auto& thread : threads_) {
    if (thread->is_gone()) continue;
    CallBatch batch(*this, *thread);
    batch.add(SYS_set_tid_address, {0});
    batch.add(SYS_set_robust_list, {0, sizeof(robust_list_head)});
    static_cast<void>(batch.run());  // it has died then
  }
}

void FrozenProcess::kill() {
  if (is_alive()) ::kill(pid_, SIGKILL);
}

Status FrozenProcess::become(long number, FrozenThread::Arguments arguments) {
  auto at = instruction();
  if (!at) return at.error();
  unwatch();
  for (auto& thread : threads_)
    if (thread != threads_.front()) thread->forget();
  // Without its tracer one that is stopped would not come to its exec.
  Status gone_on = main().stop_signal() != 0
                       ? let_go_at_exec(reaper_, main(), *at, number, arguments)
                       : main().let_go_into(*at, number, arguments);
  threads_.clear();
  return gone_on;
}

}  // namespace krg
