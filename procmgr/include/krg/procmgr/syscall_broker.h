// SyscallBroker: the system calls of session processes that krgd answers. The filter
// (syscall_filter.h) stops only calls that may need a cluster-wide answer; the broker hands each to
// the part that registered for its number.
//
// Threads: the loop's; while it is busy another takes calls up (syscall_receiver.h). A call may be
// answered at once or later; the process waits, killable. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "krg/procmgr/node_context.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class SyscallBroker {
 public:
  // One stopped system call. Movable; answered exactly once; dropped unanswered, it goes on
  // natively.
  class Call {
   public:
    Call(Call&&) noexcept;
    Call& operator=(Call&&) noexcept;
    ~Call();

    pid_t tid() const;  // the calling thread, a session pid
    int number() const;
    uint64_t arg(unsigned i) const;
    uint64_t instruction_pointer() const;

    // True while the caller still waits in this very call (it may have been killed, and its pid
    // reused).
    bool is_valid() const;
    // Reads and writes the caller's memory; only valid while is_valid() before and after. Errors:
    // EFAULT, also in the loop's thread for memory that only the loop can bring (add_memory_guard).
    Result<std::string> read_memory(RemoteAddr from, size_t bytes) const;
    Result<std::string> read_string(RemoteAddr from, size_t limit) const;
    Status write_memory(RemoteAddr to, std::string_view bytes) const;
    // Puts a copy of `fd` into the caller's table, close-on-exec; returns its number there.
    Result<int> add_fd(int fd) const;
    // Puts it at `number`, in the place of what is there.
    Status put_fd(int fd, int number, bool close_on_exec) const;

    void go_on();  // the kernel carries the call out
    void succeed(int64_t value);
    bool try_succeed(int64_t value);  // false: the caller had died, nobody took the answer
    void fail(int number);            // errno value

   private:
    friend class SyscallBroker;
    struct State;
    explicit Call(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
  };
  using Handler = std::function<void(Call)>;

  // Whether calls are taken up before all else that runs, where krgd may ask for that.
  enum class Precedence { kNone, kFirst };
  explicit SyscallBroker(EventLoop& loop, Precedence precedence = Precedence::kNone);
  explicit SyscallBroker(NodeContext& node, Precedence precedence = Precedence::kNone)
      : SyscallBroker(node.loop, precedence) {}
  ~SyscallBroker();
  SyscallBroker(const SyscallBroker&) = delete;
  SyscallBroker& operator=(const SyscallBroker&) = delete;

  // One handler per system call number. REQUIRES: the filter notifies that number.
  void set_handler(int number, Handler handler);
  // Asked before the handler, for numbers of which several parts take some calls each: true when it
  // has taken the call. One per number.
  using Taker = std::function<bool(Call&)>;
  void set_taker(int number, Taker taker);
  // Says whether touching that memory of thread `tid` would wait for the loop itself.
  using MemoryGuard = std::function<bool(pid_t tid, RemoteAddr address, size_t bytes, bool write)>;
  void add_memory_guard(MemoryGuard waits);
  // Asked before anybody gets a call: true when it has to wait for memory that its arguments point
  // to; `resume` is then called once, when it need not any more.
  using Delay = std::function<bool(const Call& call, std::function<void()> resume)>;
  void set_delay(Delay delay);
  // Takes over a listener of a newly started job or body; dropped when its last process has gone.
  Status add_listener(UniqueFd listener);
  // How many are served now.
  size_t listener_count() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
