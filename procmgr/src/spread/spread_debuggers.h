// SpreadDebuggers: the control commands by which a debugger (krg_gdb) looks at spread processes of
// this node, and has them go on. What a connection holds goes on when the connection ends.
//
// Threads: the loop's thread. Owned by Spreading. spreading.h has the commands.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>

#include "krg/runtime/control_server.h"
#include "spread/spread_process.h"

namespace krg {

class SpreadDebuggers {
 public:
  // `find`: null when the process is not spread.
  explicit SpreadDebuggers(std::function<SpreadProcess*(pid_t)> find) : find_(std::move(find)) {}
  // REQUIRES: this lives as long as the server runs commands.
  void add_commands(ControlServer& server);

 private:
  SpreadProcess* held_by(ControlServer::ConnectionId connection) const;
  void hold(const ControlServer::Request& request, ControlServer::Reply reply);
  void go_on(ControlServer& server, const ControlServer::Request& request,
             ControlServer::Reply reply);
  void set_breakpoint(const ControlServer::Request& request, ControlServer::Reply reply);
  void write(const ControlServer::Request& request, ControlServer::Reply reply);
  void read(const ControlServer::Request& request, ControlServer::Reply reply);
  void release(ControlServer::ConnectionId connection);

  const std::function<SpreadProcess*(pid_t)> find_;
  struct Hold {
    pid_t pid;
    SetId set;
  };
  std::map<ControlServer::ConnectionId, Hold> holds_;
};

}  // namespace krg
