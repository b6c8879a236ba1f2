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

// The registers that every x86-64 processor has, and the upper halves of AVX's, as XSAVE lays them
// out: what a debugger knows to show.
constexpr size_t kMostExtendedBytes = 832;

nlohmann::json described(const std::vector<SpreadProcess::Held>& held) {
  nlohmann::json threads = nlohmann::json::array();
  for (const SpreadProcess::Held& thread : held) {
    std::string registers, extended;
    if (thread.state) {
      registers = to_hex({reinterpret_cast<const char*>(&thread.state->registers),
                          sizeof thread.state->registers});
      extended = to_hex(thread.state->extended_state.substr(0, kMostExtendedBytes));
    }
    threads.push_back({{"tid", thread.tid},
                       {"node", thread.node.value},
                       {"registers", std::move(registers)},
                       {"extended", std::move(extended)}});
  }
  return {{"threads", std::move(threads)}};
}

SpreadProcess::Done answered_by(ControlServer::Reply reply) {
  return [shared = std::make_shared<ControlServer::Reply>(std::move(reply))](const Status& done) {
    done ? shared->ok() : shared->fail(done.error());
  };
}

}  // namespace

void SpreadDebuggers::add_commands(ControlServer& server) {
  const auto add = [&](const char* name, auto method) {
    server.add_command(
        name, [this, method](const ControlServer::Request& request, ControlServer::Reply reply) {
          (this->*method)(request, std::move(reply));
        });
  };
  add("spread.hold", &SpreadDebuggers::hold);
  add("spread.read", &SpreadDebuggers::read);
  add("spread.write", &SpreadDebuggers::write);
  add("spread.breakpoint", &SpreadDebuggers::set_breakpoint);
  server.add_command("spread.go_on", [this, &server](const ControlServer::Request& request,
                                                     ControlServer::Reply reply) {
    go_on(server, request, std::move(reply));
  });
  server.on_disconnect([this](ControlServer::ConnectionId connection) { release(connection); });
}

// A process that the connection has held, and that is still the same.
SpreadProcess* SpreadDebuggers::held_by(ControlServer::ConnectionId connection) const {
  const auto found = holds_.find(connection);
  if (found == holds_.end()) return nullptr;
  SpreadProcess* process = find_(found->second.pid);
  return process && process->set() == found->second.set ? process : nullptr;
}

void SpreadDebuggers::hold(const ControlServer::Request& request, ControlServer::Reply reply) {
  const pid_t pid = request.arguments.value("pid", 0);
  SpreadProcess* process = find_(pid);
  if (!process)
    return reply.fail(errno_error(
        fmt::format("process {} has no threads on other nodes, or began on another one", pid),
        ESRCH));
  const bool is_again = held_by(request.connection) == process;
  for (const auto& [connection, hold] : holds_)
    if (hold.pid == pid && !is_again)
      return reply.fail(errno_error("a debugger looks at it already", EBUSY));
  holds_[request.connection] = {pid, process->set()};
  process->hold([this, is_again, connection = request.connection,
                 shared = std::make_shared<ControlServer::Reply>(std::move(reply))](
                    const Result<std::vector<SpreadProcess::Held>>& held) {
    if (held) return shared->ok(described(*held));
    if (!is_again) holds_.erase(connection);
    shared->fail(held.error());
  });
}

void SpreadDebuggers::go_on(ControlServer& server, const ControlServer::Request& request,
                            ControlServer::Reply reply) {
  SpreadProcess* process = held_by(request.connection);
  if (!process || !process->is_held()) return reply.fail(errno_error("it is not held", ESRCH));
  reply.ok();
  process->go_on(
      request.arguments.value("step", 0), request.arguments.value("alone", false),
      [&server, connection = request.connection](const SpreadProcess::Trap& trap) {
        server.notify(
            connection, "spread.trapped",
            {{"tid", trap.tid}, {"breakpoint", trap.at_breakpoint}, {"status", trap.end_status}});
      });
}

void SpreadDebuggers::set_breakpoint(const ControlServer::Request& request,
                                     ControlServer::Reply reply) {
  SpreadProcess* process = held_by(request.connection);
  if (!process || !process->is_held()) return reply.fail(errno_error("it is not held", ESRCH));
  process->set_breakpoint(RemoteAddr{request.arguments.value("address", uint64_t{0})},
                          request.arguments.value("set", true), answered_by(std::move(reply)));
}

void SpreadDebuggers::write(const ControlServer::Request& request, ControlServer::Reply reply) {
  SpreadProcess* process = held_by(request.connection);
  if (!process || !process->is_held()) return reply.fail(errno_error("it is not held", ESRCH));
  process->write_memory_of_all(RemoteAddr{request.arguments.value("address", uint64_t{0})},
                               from_hex(request.arguments.value("bytes", "")),
                               answered_by(std::move(reply)));
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
