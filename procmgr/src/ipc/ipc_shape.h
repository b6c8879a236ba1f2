// IpcShape: what a stopped IPC call asks for: its arguments and what they point to, read
// from the caller's memory, and where its answer goes. Source: semop(2), semctl(2), msgop(2),
// msgctl(2). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cerrno>
#include <functional>
#include <optional>

#include "ipc_call.h"
#include "waiting_calls.h"

namespace krg {

struct IpcShape {
  int number = 0;  // IpcCall::number
  std::array<int64_t, 4> args{};
  std::string data;
  RemoteAddr out;  // where the answer's data goes
  std::optional<std::chrono::nanoseconds> timeout;
  WaitingCalls::Restart restart = WaitingCalls::Restart::kNever;
  bool undoes = false;    // has an operation with SEM_UNDO
  bool sets_all = false;  // SETALL: `data` is read when the set's size is known
  bool makes = false;     // names an object that may be made: asked of the next home, too
  int timed_out = EAGAIN;
  int lost = EIDRM;  // the home has failed, and the object with it
  // How a carried out call is answered where that is not by writing `written` to `out`: false when
  // its caller had died and nobody took the answer.
  std::function<bool(SyscallBroker::Call call, int64_t value, std::string_view written)> deliver =
      nullptr;
};

// Errors: EINVAL, E2BIG, EFAULT: what the kernel finds before it looks for the object.
Result<IpcShape> shape_of(const SyscallBroker::Call& call);

}  // namespace krg
