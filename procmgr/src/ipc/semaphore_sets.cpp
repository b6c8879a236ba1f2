// SPDX-License-Identifier: GPL-2.0-or-later
#include "semaphore_sets.h"

#include <fmt/format.h>
#include <sys/syscall.h>

#include <cstring>

#include "krg/runtime/check.h"

namespace krg {
namespace {

// Commands that glibc 2.36 names only for those who ask.
constexpr int kStatAny = 20;  // SEM_STAT_ANY, linux/sem.h

bool alters(const std::vector<sembuf>& operations) {
  return std::ranges::any_of(operations, [](const sembuf& one) { return one.sem_op != 0; });
}
bool undoes(const std::vector<sembuf>& operations) {
  return std::ranges::any_of(operations,
                             [](const sembuf& one) { return (one.sem_flg & SEM_UNDO) != 0; });
}

std::vector<sembuf> operations_of(const IpcCall& call) {
  std::vector<sembuf> operations(call.data.size() / sizeof(sembuf));
  std::memcpy(operations.data(), call.data.data(), operations.size() * sizeof(sembuf));
  return operations;
}

}  // namespace

IpcDones SemaphoreSets::step(const IpcCall& call) {
  switch (call.number) {
    case SYS_semget:
      return just(get(call));
    case SYS_semop:
    case SYS_semtimedop:
      return operate(call);
    case SYS_semctl:
      return control(call);
    default:
      return just(ipc_failed(call.ticket, ENOSYS));
  }
}

IpcDone SemaphoreSets::get(const IpcCall& call) {
  const int64_t count = call.args[1];
  if (count < 0 || count > kMostPerSet) return ipc_failed(call.ticket, EINVAL);
  return ipc_get(
      sets_, call, static_cast<int>(call.args[2]),
      [&](const Set& set) {
        return static_cast<size_t>(count) > set.semaphores.size() ? EINVAL : 0;
      },
      [&](const IpcPermissions& permissions) { return make(permissions, call); });
}

int SemaphoreSets::make(const IpcPermissions& permissions, const IpcCall& call) {
  const int64_t count = call.args[1];
  if (count == 0) return -EINVAL;
  if (sets_.size() >= kMostSets || semaphore_count_ + count > kMostSemaphores) return -ENOSPC;
  Set set;
  set.permissions = permissions;
  set.semaphores.resize(static_cast<size_t>(count));
  set.changed_s = call.now_s;
  semaphore_count_ += count;
  return sets_.add(std::move(set));
}

IpcDones SemaphoreSets::operate(const IpcCall& call) {
  Waiter waiter{call, operations_of(call)};
  const auto refuse = [&](int error) { return just(ipc_failed(call.ticket, error)); };
  if (waiter.operations.empty() || call.args[0] < 0) return refuse(EINVAL);
  if (waiter.operations.size() > kMostOperations) return refuse(E2BIG);
  Set* set = sets_.find(call.args[0]);
  if (set == nullptr) return refuse(EINVAL);
  for (const sembuf& operation : waiter.operations)
    if (operation.sem_num >= set->semaphores.size()) return refuse(EFBIG);
  waiter.alters = alters(waiter.operations);
  if (!may_access(set->permissions, call.caller, waiter.alters ? kIpcAlter : kIpcRead))
    return refuse(EACCES);
  const int id = static_cast<int>(call.args[0]);
  const int result = try_all(id, *set, waiter);
  if (result == kBlocked) {
    set->waiters.push_back(std::move(waiter));
    return {};
  }
  IpcDones done = just(ipc_failed(call.ticket, result));
  if (result != 0) return done;
  set->operated_s = call.now_s;
  if (waiter.alters) settle(id, *set, call.now_s, done);
  return done;
}

// nullptr when nothing of it is to be undone.
std::vector<int>* SemaphoreSets::adjustments_for(int id, const Set& set, const IpcCall& call) {
  Undo& undo = undos_[call.caller.pid];
  undo.node = call.ticket.node;
  std::vector<int>& adjustments = undo.adjustments[id];
  adjustments.resize(set.semaphores.size());
  return &adjustments;
}

int SemaphoreSets::try_all(int id, Set& set, Waiter& waiter) {
  std::vector<int>* adjustments =
      undoes(waiter.operations) ? adjustments_for(id, set, waiter.call) : nullptr;
  for (size_t i = 0; i < waiter.operations.size(); ++i) {
    const sembuf& operation = waiter.operations[i];
    int* adjustment = operation.sem_flg & SEM_UNDO ? &(*adjustments)[operation.sem_num] : nullptr;
    const int result = try_one(operation, set.semaphores[operation.sem_num], adjustment);
    if (result == 0) continue;
    undo_operations(set, waiter, i, adjustments);
    waiter.blocked_at = i;
    return result;
  }
  for (const sembuf& operation : waiter.operations)
    set.semaphores[operation.sem_num].last_pid = waiter.call.caller.pid;
  return 0;
}

int SemaphoreSets::try_one(const sembuf& operation, Semaphore& semaphore, int* adjustment) {
  const int value = semaphore.value + operation.sem_op;
  if ((operation.sem_op == 0 && semaphore.value != 0) || value < 0)
    return operation.sem_flg & IPC_NOWAIT ? EAGAIN : kBlocked;
  if (value > kMostValue) return ERANGE;
  if (adjustment != nullptr) {
    const int adjusted = *adjustment - operation.sem_op;
    if (adjusted < -kMostValue - 1 || adjusted > kMostValue) return ERANGE;
    *adjustment = adjusted;
  }
  semaphore.value = value;
  return 0;
}

// The first `count` of them.
void SemaphoreSets::undo_operations(Set& set, const Waiter& waiter, size_t count,
                                    std::vector<int>* adjustments) {
  while (count-- > 0) {
    const sembuf& operation = waiter.operations[count];
    set.semaphores[operation.sem_num].value -= operation.sem_op;
    if (operation.sem_flg & SEM_UNDO) (*adjustments)[operation.sem_num] += operation.sem_op;
  }
}

// Those that change nothing come first; after each that changes something all are tried again.
void SemaphoreSets::settle(int id, Set& set, int64_t now_s, IpcDones& done) {
  const auto try_those = [&](bool altering) {
    for (auto at = set.waiters.begin(); at != set.waiters.end();) {
      if (at->alters != altering) {
        ++at;
        continue;
      }
      const int result = try_all(id, set, *at);
      if (result == kBlocked) {
        ++at;
        continue;
      }
      done.push_back(ipc_failed(at->call.ticket, result));
      at = set.waiters.erase(at);
      if (result == 0) set.operated_s = now_s;
      if (result == 0 && altering) return true;
    }
    return false;
  };
  do {
    try_those(false);
  } while (try_those(true));
}

bool SemaphoreSets::cancel(const IpcTicket& ticket) {
  bool found = false;
  sets_.for_each([&](int, Set& set) {
    found |= std::erase_if(set.waiters,
                           [&](const Waiter& waiter) { return waiter.call.ticket == ticket; }) > 0;
  });
  return found;
}

IpcDones SemaphoreSets::process_ended(pid_t pid) {
  IpcDones done;
  auto undo = undos_.extract(pid);
  if (undo.empty()) return done;
  for (const auto& [id, adjustments] : undo.mapped().adjustments) {
    Set* set = sets_.find(id);
    if (set == nullptr) continue;
    for (size_t i = 0; i < adjustments.size(); ++i) {
      if (adjustments[i] == 0) continue;
      Semaphore& semaphore = set->semaphores[i];
      semaphore.value = std::clamp(semaphore.value + adjustments[i], 0, kMostValue);
      semaphore.last_pid = pid;
    }
    settle(id, *set, set->operated_s, done);
  }
  return done;
}

IpcDones SemaphoreSets::node_failed(NodeId node) {
  sets_.for_each([&](int, Set& set) {
    std::erase_if(set.waiters,
                  [&](const Waiter& waiter) { return waiter.call.ticket.node == node; });
  });
  std::vector<pid_t> ended;
  for (const auto& [pid, undo] : undos_)
    if (undo.node == node) ended.push_back(pid);
  IpcDones done;
  for (pid_t pid : ended) std::ranges::move(process_ended(pid), std::back_inserter(done));
  return done;
}

IpcDones SemaphoreSets::take_back(const IpcCall& call) {
  IpcDones done;
  Set* set = sets_.find(call.args[0]);
  const auto operations = operations_of(call);
  if (set == nullptr || std::ranges::any_of(operations, [](auto& one) { return one.sem_op > 0; }))
    return done;
  for (const sembuf& operation : operations) {
    // With SEM_UNDO the process's end does it.
    if (operation.sem_flg & SEM_UNDO || operation.sem_num >= set->semaphores.size()) continue;
    Semaphore& semaphore = set->semaphores[operation.sem_num];
    semaphore.value = std::min(semaphore.value - operation.sem_op, kMostValue);
  }
  settle(static_cast<int>(call.args[0]), *set, call.now_s, done);
  return done;
}

// A value that was set is not undone any more. All semaphores of the set: number -1.
void SemaphoreSets::forget_undo(int id, int number) {
  for (auto& [pid, undo] : undos_) {
    auto found = undo.adjustments.find(id);
    if (found == undo.adjustments.end()) continue;
    if (number < 0)
      std::ranges::fill(found->second, 0);
    else
      found->second[static_cast<size_t>(number)] = 0;
  }
}

IpcDones SemaphoreSets::control(const IpcCall& call) {
  const int command = static_cast<int>(call.args[2]);
  const auto refuse = [&](int error) { return just(ipc_failed(call.ticket, error)); };
  if (call.args[0] < 0) return refuse(EINVAL);
  if (command == IPC_INFO || command == SEM_INFO) return just(info(call, command == SEM_INFO));
  if (command == IPC_STAT || command == SEM_STAT || command == kStatAny)
    return just(stat(call, command));
  Set* set = sets_.find(call.args[0]);
  if (set == nullptr) return refuse(EINVAL);
  const int id = static_cast<int>(call.args[0]);
  const auto count = static_cast<int64_t>(set->semaphores.size());
  const bool numbered = call.args[1] >= 0 && call.args[1] < count;
  const auto may = [&](mode_t mode) { return may_access(set->permissions, call.caller, mode); };
  const auto answer = [&](int64_t value) { return just(ipc_done(call.ticket, value)); };
  switch (command) {
    case kCountCommand:
      return answer(count);
    case IPC_RMID:
    case IPC_SET:
      if (!may_control(set->permissions, call.caller)) return refuse(EPERM);
      return command == IPC_SET ? change(call, id, *set) : remove(call, id, *set);
    case SETVAL:
      if (call.args[3] < 0 || call.args[3] > kMostValue) return refuse(ERANGE);
      if (!numbered) return refuse(EINVAL);
      [[fallthrough]];
    case SETALL:
      if (!may(kIpcAlter)) return refuse(EACCES);
      return change(call, id, *set);
    case GETALL: {
      if (!may(kIpcRead)) return refuse(EACCES);
      std::string values;
      for (const Semaphore& semaphore : set->semaphores)
        values += ipc_bytes(static_cast<unsigned short>(semaphore.value));
      return just(ipc_done(call.ticket, 0, std::move(values)));
    }
    case GETVAL:
    case GETPID:
    case GETNCNT:
    case GETZCNT: {
      if (!may(kIpcRead)) return refuse(EACCES);
      if (!numbered) return refuse(EINVAL);
      if (command == GETNCNT || command == GETZCNT)
        return just(count_waiters(call, *set, command == GETZCNT));
      const Semaphore& semaphore = set->semaphores[static_cast<size_t>(call.args[1])];
      return answer(command == GETVAL ? semaphore.value : semaphore.last_pid);
    }
    default:
      return refuse(EINVAL);
  }
}

IpcDone SemaphoreSets::count_waiters(const IpcCall& call, const Set& set, bool for_zero) const {
  const auto counts = [&](const Waiter& waiter) {
    const sembuf& blocked = waiter.operations[waiter.blocked_at];
    return blocked.sem_num == call.args[1] && (blocked.sem_op == 0) == for_zero;
  };
  return ipc_done(call.ticket, std::ranges::count_if(set.waiters, counts));
}

// IPC_SET, SETVAL, SETALL, whose permission is checked.
IpcDones SemaphoreSets::change(const IpcCall& call, int id, Set& set) {
  const int command = static_cast<int>(call.args[2]);
  if (command == IPC_SET) {
    semid_ds wanted;
    if (call.data.size() != sizeof wanted) return just(ipc_failed(call.ticket, EINVAL));
    std::memcpy(&wanted, call.data.data(), sizeof wanted);
    take(set.permissions, wanted.sem_perm);
    set.changed_s = call.now_s;
    return just(ipc_done(call.ticket));
  }
  const auto set_value = [&](size_t number, int value) {
    set.semaphores[number] = {value, call.caller.pid};
  };
  if (command == SETVAL) {
    set_value(static_cast<size_t>(call.args[1]), static_cast<int>(call.args[3]));
    forget_undo(id, static_cast<int>(call.args[1]));
  } else {
    std::vector<unsigned short> values(set.semaphores.size());
    if (call.data.size() != values.size() * sizeof values[0])
      return just(ipc_failed(call.ticket, EIDRM));  // it is another set than the one that was asked
    std::memcpy(values.data(), call.data.data(), call.data.size());
    if (std::ranges::any_of(values, [](unsigned short value) { return value > kMostValue; }))
      return just(ipc_failed(call.ticket, ERANGE));
    for (size_t i = 0; i < values.size(); ++i) set_value(i, values[i]);
    forget_undo(id, -1);
  }
  set.changed_s = call.now_s;
  IpcDones done = just(ipc_done(call.ticket));
  settle(id, set, call.now_s, done);
  return done;
}

IpcDones SemaphoreSets::remove(const IpcCall& call, int id, Set& set) {
  IpcDones done = just(ipc_done(call.ticket));
  for (const Waiter& waiter : set.waiters) done.push_back(ipc_failed(waiter.call.ticket, EIDRM));
  semaphore_count_ -= static_cast<int64_t>(set.semaphores.size());
  sets_.remove(id);
  for (auto& [pid, undo] : undos_) undo.adjustments.erase(id);
  return done;
}

IpcDone SemaphoreSets::stat(const IpcCall& call, int command) {
  const int id = command == IPC_STAT ? static_cast<int>(call.args[0]) : sets_.id_at(call.args[0]);
  const Set* set = id < 0 ? nullptr : sets_.find(id);
  if (set == nullptr) return ipc_failed(call.ticket, EINVAL);
  if (command != kStatAny && !may_access(set->permissions, call.caller, kIpcRead))
    return ipc_failed(call.ticket, EACCES);
  semid_ds out{};
  fill(out.sem_perm, set->permissions, id);
  out.sem_otime = set->operated_s;
  out.sem_ctime = set->changed_s;
  out.sem_nsems = set->semaphores.size();
  return ipc_done(call.ticket, command == IPC_STAT ? 0 : id, ipc_bytes(out));
}

IpcDone SemaphoreSets::info(const IpcCall& call, bool in_use) {
  seminfo out{};
  out.semmap = out.semmns = out.semmnu = static_cast<int>(kMostSemaphores);
  out.semmni = kMostSets;
  out.semmsl = kMostPerSet;
  out.semopm = out.semume = kMostOperations;
  out.semvmx = kMostValue;
  out.semusz = in_use ? static_cast<int>(sets_.size()) : 20;  // SEMUSZ, linux/sem.h
  out.semaem = in_use ? static_cast<int>(semaphore_count_) : kMostValue;
  return ipc_done(call.ticket, sets_.highest_index(), ipc_bytes(out));
}

// Source: proc_sysvipc(5), the columns of Linux.
std::string SemaphoreSets::text() {
  std::string text =
      "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n";
  sets_.for_each([&](int id, const Set& set) {
    const IpcPermissions& p = set.permissions;
    text += fmt::format("{:10} {:10}  {:4o} {:10} {:5} {:5} {:5} {:5} {:10} {:10}\n", p.key, id,
                        p.mode, set.semaphores.size(), p.uid, p.gid, p.creator_uid, p.creator_gid,
                        set.operated_s, set.changed_s);
  });
  return text;
}

}  // namespace krg
