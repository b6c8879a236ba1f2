// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_debuggers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "krg/runtime/hex.h"

namespace krg {
namespace {

constexpr size_t kMostReadBytes = 16384;  // at once

nlohmann::json described(const std::vector<SpreadProcess::Held>& held) {
  nlohmann::json threads = nlohmann::json::array();
  const auto bytes_of = [](const auto& known) {
    if (!known) return std::string();
    return to_hex({reinterpret_cast<const char*>(&*known), sizeof *known});
  };
  for (const SpreadProcess::Held& thread : held)
    threads.push_back({{"tid", thread.tid},
                       {"node", thread.node.value},
                       {"registers", bytes_of(thread.registers)},
                       {"vectors", bytes_of(thread.vectors)}});
  return {{"threads", std::move(threads)}};
}

}  // namespace

void SpreadDebuggers::add_commands(ControlServer& server) {
  server.add_command("spread.hold",
                     [this](const ControlServer::Request& request, ControlServer::Reply reply) {
                       hold(request, std::move(reply));
                     });
  server.add_command("spread.read",
                     [this](const ControlServer::Request& request, ControlServer::Reply reply) {
                       read(request, std::move(reply));
                     });
  server.on_disconnect([this](ControlServer::ConnectionId connection) { release(connection); });
}

void SpreadDebuggers::hold(const ControlServer::Request& request, ControlServer::Reply reply) {
  const pid_t pid = request.arguments.value("pid", 0);
  SpreadProcess* process = find_(pid);
  if (!process)
    return reply.fail(errno_error(
        fmt::format("process {} has no threads on other nodes, or began on another one", pid),
        ESRCH));
  if (holds_.contains(request.connection)) return reply.fail(errno_error("it holds one", EBUSY));
  holds_[request.connection] = {pid, process->set()};
  process->hold([this, connection = request.connection,
                 shared = std::make_shared<ControlServer::Reply>(std::move(reply))](
                    Result<std::vector<SpreadProcess::Held>> held) {
    if (held) return shared->ok(described(*held));
    holds_.erase(connection);
    shared->fail(held.error());
  });
}

void SpreadDebuggers::read(const ControlServer::Request& request, ControlServer::Reply reply) {
  SpreadProcess* process = find_(request.arguments.value("pid", 0));
  if (!process) return reply.fail(errno_error("no such process", ESRCH));
  const RemoteAddr start{request.arguments.value("address", uint64_t{0})};
  const size_t bytes = std::min(request.arguments.value("bytes", size_t{0}), kMostReadBytes);
  process->read_memory(start, bytes,
                       [shared = std::make_shared<ControlServer::Reply>(std::move(reply))](
                           const Result<std::string>& read) {
                         read ? shared->ok({{"bytes", to_hex(*read)}}) : shared->fail(read.error());
                       });
}

void SpreadDebuggers::release(ControlServer::ConnectionId connection) {
  const auto found = holds_.extract(connection);
  if (found.empty()) return;
  SpreadProcess* process = find_(found.mapped().pid);
  if (process && process->set() == found.mapped().set) process->release();
}

}  // namespace krg
