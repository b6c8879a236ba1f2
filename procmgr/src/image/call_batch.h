// CallBatch: system calls that a frozen thread runs for krgd one after the other, with a single
// stop at their end (each call on its own takes two, and so four changes of processor). What they
// are told and tell lies in the process's scratch memory, which is written and read once.
//
// Every call is made, also behind one that fails; the caller looks at the results.
//
// Threads: the loop's thread, which is the tracer. A value of one scope.
// REQUIRES: the process is in krgd's own pid namespace; nothing else uses its scratch memory
// meanwhile. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <csignal>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "image/frozen_process.h"

namespace krg {

// A call as the code that makes them has it (call_batch.cpp).
struct FrozenCall {
  uint64_t number;
  std::array<uint64_t, 6> arguments;
  int64_t result;
};
static_assert(sizeof(FrozenCall) == 64);

// The code that makes them, and stops; position-independent, with a `syscall` at its start.
std::span<const char> call_batch_code();

class CallBatch {
 public:
  explicit CallBatch(FrozenProcess& process) : CallBatch(process, process.main()) {}
  CallBatch(FrozenProcess& process, FrozenThread& thread) : process_(process), thread_(thread) {}

  // Data for a call, or room for what one tells: where it will be. All of a batch's is at most
  // FrozenProcess::kScratchBytes, else run() fails.
  RemoteAddr put(std::span<const char> bytes);
  template <class T>
  requires std::is_trivially_copyable_v<T> RemoteAddr put(const T& value) {
    return put(std::span(reinterpret_cast<const char*>(&value), sizeof value));
  }

  // Returns its index. As FrozenProcess::call().
  size_t add(long number, FrozenThread::Arguments arguments);
  size_t size() const { return calls_.size(); }

  // Makes all calls. Errors: ESRCH, the thread has died; those of FrozenProcess::scratch(); E2BIG.
  Status run();

  // What the kernel returned.
  int64_t result(size_t index) const { return calls_[index].result; }
  // The data at `at` after the calls.
  template <class T>
  T value(RemoteAddr at) const {
    T found;
    std::memcpy(&found, data_.data() + (at.value - base_), sizeof found);
    return found;
  }

 private:
  Status run_in_code(const FrozenProcess::Helpers& helpers, std::span<FrozenCall> calls);
  void give_back(const std::vector<siginfo_t>& signals, RemoteAddr room);

  FrozenProcess& process_;
  FrozenThread& thread_;
  std::vector<FrozenCall> calls_;
  std::string data_;
  uint64_t base_ = 0;  // where the data will be; known from the first put() on
};

}  // namespace krg
