// SPDX-License-Identifier: GPL-2.0-or-later
#include "ipc_shape.h"

#include <sys/syscall.h>

#include <cstring>

#include "message_queues.h"
#include "semaphore_sets.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;

Error refused(int number) {
  return errno_error("ipc", number);
}

// An int argument; the upper half of the register is not part of it.
int64_t int_arg(const Call& call, unsigned i) {
  return static_cast<int32_t>(call.arg(i));
}
int64_t long_arg(const Call& call, unsigned i) {
  return static_cast<int64_t>(call.arg(i));
}

Result<std::string> read_or_fault(const Call& call, uint64_t address, size_t bytes) {
  if (bytes == 0) return std::string();
  auto data = call.read_memory(RemoteAddr{address}, bytes);
  if (!data) return refused(EFAULT);
  return data;
}

template <class T>
Result<T> read_value(const Call& call, uint64_t address) {
  auto data = read_or_fault(call, address, sizeof(T));
  if (!data) return data.error();
  T value;
  std::memcpy(&value, data->data(), sizeof value);
  return value;
}

Result<IpcShape> shape_of_semop(const Call& call) {
  IpcShape shape;
  const auto count = static_cast<uint32_t>(call.arg(2));
  if (call.number() == SYS_semtimedop && call.arg(3) != 0) {
    auto timeout = read_value<timespec>(call, call.arg(3));
    if (!timeout) return timeout.error();
    if (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1'000'000'000)
      return refused(EINVAL);
    // A century is as good as for ever.
    shape.timeout = std::chrono::seconds(std::min<int64_t>(timeout->tv_sec, 3'000'000'000)) +
                    std::chrono::nanoseconds(timeout->tv_nsec);
  }
  if (count < 1 || int_arg(call, 0) < 0) return refused(EINVAL);
  if (count > SemaphoreSets::kMostOperations) return refused(E2BIG);
  shape.args = {int_arg(call, 0), count, 0, 0};
  auto data = read_or_fault(call, call.arg(1), count * sizeof(sembuf));
  if (!data) return data.error();
  shape.data = std::move(*data);
  for (uint32_t i = 0; i < count; ++i) {
    sembuf operation;
    std::memcpy(&operation, shape.data.data() + i * sizeof operation, sizeof operation);
    shape.undoes |= (operation.sem_flg & SEM_UNDO) != 0;
  }
  return shape;
}

Result<IpcShape> shape_of_semctl(const Call& call) {
  IpcShape shape;
  const auto command = static_cast<int>(call.arg(2));
  if (command == SemaphoreSets::kCountCommand) return refused(EINVAL);  // not for programs
  shape.args = {int_arg(call, 0), int_arg(call, 1), command, int_arg(call, 3)};
  shape.out = RemoteAddr{call.arg(3)};
  shape.sets_all = command == SETALL;
  if (command == IPC_SET) {
    auto data = read_or_fault(call, call.arg(3), sizeof(semid_ds));
    if (!data) return data.error();
    shape.data = std::move(*data);
  }
  return shape;
}

Result<IpcShape> shape_of_msgsnd(const Call& call) {
  IpcShape shape;
  const int64_t size = long_arg(call, 2);
  auto type = read_value<int64_t>(call, call.arg(1));
  if (!type) return type.error();
  if (size < 0 || size > MessageQueues::kMostMessageBytes || int_arg(call, 0) < 0 || *type < 1)
    return refused(EINVAL);
  shape.args = {int_arg(call, 0), *type, size, int_arg(call, 3)};
  shape.restart = WaitingCalls::Restart::kWithoutHandler;
  auto data = read_or_fault(call, call.arg(1) + sizeof *type, static_cast<size_t>(size));
  if (!data) return data.error();
  shape.data = std::move(*data);
  return shape;
}

IpcShape shape_of_msgrcv(const Call& call) {
  IpcShape shape;
  shape.args = {int_arg(call, 0), long_arg(call, 2), long_arg(call, 3), int_arg(call, 4)};
  shape.out = RemoteAddr{call.arg(1)};
  shape.restart = WaitingCalls::Restart::kWithoutHandler;
  return shape;
}

Result<IpcShape> shape_of_msgctl(const Call& call) {
  IpcShape shape;
  shape.args = {int_arg(call, 0), int_arg(call, 1), 0, 0};
  shape.out = RemoteAddr{call.arg(2)};
  if (shape.args[1] == IPC_SET) {
    auto data = read_or_fault(call, call.arg(2), sizeof(msqid_ds));
    if (!data) return data.error();
    shape.data = std::move(*data);
  }
  return shape;
}

Result<IpcShape> plain_shape_of(const Call& call) {
  IpcShape plain;
  switch (call.number()) {
    case SYS_semget:
      plain.args = {int_arg(call, 0), int_arg(call, 1), int_arg(call, 2), 0};
      return plain;
    case SYS_msgget:
      plain.args = {int_arg(call, 0), int_arg(call, 1), 0, 0};
      return plain;
    case SYS_semop:
    case SYS_semtimedop:
      return shape_of_semop(call);
    case SYS_semctl:
      return shape_of_semctl(call);
    case SYS_msgsnd:
      return shape_of_msgsnd(call);
    case SYS_msgrcv:
      return shape_of_msgrcv(call);
    default:
      return shape_of_msgctl(call);
  }
}

}  // namespace

Result<IpcShape> shape_of(const Call& call) {
  auto shape = plain_shape_of(call);
  if (!shape) return shape;
  shape->number = call.number();
  shape->makes = call.number() == SYS_semget || call.number() == SYS_msgget;
  return shape;
}

}  // namespace krg
