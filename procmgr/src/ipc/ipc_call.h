// IpcCall, IpcDone: a System V IPC call as the node that keeps the objects sees it, and the answer
// to one. The state machines (semaphore_sets.h, message_queues.h) take calls and tell which calls
// are answered now: perhaps this one, perhaps others that waited. Pure.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "krg/runtime/types.h"

namespace krg {

// Who asks, as permission checks look at it.
struct IpcCaller {
  pid_t pid = 0;  // of the process
  uid_t uid = 0;  // effective
  gid_t gid = 0;
  uint64_t capabilities = 0;  // effective, of Linux (capabilities(7))
  std::vector<gid_t> groups;  // supplementary
};

// Names a call in the whole cluster while it waits: the node that holds it, and its number there.
struct IpcTicket {
  NodeId node;
  uint64_t number = 0;
  auto operator<=>(const IpcTicket&) const = default;
};

// `number` is the system call's; `args` what it was given, pointers left out: each machine says
// which. `data`: what the call reads from memory.
struct IpcCall {
  IpcTicket ticket;
  IpcCaller caller;
  int64_t now_s = 0;  // real time
  int number = 0;
  std::array<int64_t, 4> args{};
  std::string data;
};

// `error`: an errno value, 0 for success. `data`: what the call writes to memory.
struct IpcDone {
  IpcTicket ticket;
  int error = 0;
  int64_t value = 0;
  std::string data;
};
using IpcDones = std::vector<IpcDone>;

inline IpcDones just(IpcDone done) {
  IpcDones all;
  all.push_back(std::move(done));
  return all;
}
// A struct as it goes to and comes from the caller's memory.
template <class T>
std::string ipc_bytes(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// The value that a home's answer begins with; its data follows.
inline std::optional<int64_t> ipc_value_of(std::string_view answer) {
  int64_t value;
  if (answer.size() < sizeof value) return std::nullopt;
  std::memcpy(&value, answer.data(), sizeof value);
  return value;
}

inline IpcDone ipc_failed(const IpcTicket& ticket, int error) {
  return {ticket, error, 0, {}};
}
inline IpcDone ipc_done(const IpcTicket& ticket, int64_t value = 0, std::string data = {}) {
  return {ticket, 0, value, std::move(data)};
}

}  // namespace krg
