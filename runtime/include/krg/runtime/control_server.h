// ControlServer: the socket on which a node's krgd talks to its tools (krgrun, kradm, krg_capset,
// krg_where). Each part of krgd adds commands by name; a tool calls them through ControlClient
// (control_client.h).
//
// Packets (SOCK_SEQPACKET) hold one JSON object each, with descriptors where a command says so:
//   tool -> krgd  {"command": NAME, "id": N, "arguments": {...}}
//   krgd -> tool  {"id": N, "result": {...}}  |  {"id": N, "error": TEXT, "errno": NUMBER}
//   krgd -> tool  {"notice": NAME, ...}         whenever it likes
// Only the owner of krgd and root are heard: a packet of any other user ends the connection.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/unix_socket.h"

namespace krg {

class ControlServer {
 public:
  using ConnectionId = uint64_t;

  struct Request {
    ConnectionId connection = 0;
    ucred peer{};  // pid is a session pid, 0 when the tool runs outside of the session
    nlohmann::json arguments;
    std::vector<UniqueFd> fds;
  };

  // The answer to one request; movable, to be given exactly once, now or later. Dropped, it answers
  // ECANCELED.
  class Reply {
   public:
    Reply(Reply&& other) noexcept;
    Reply& operator=(Reply&&) = delete;
    ~Reply();
    // The descriptors stay the caller's.
    void ok(nlohmann::json result = nlohmann::json::object(), std::span<const int> fds = {});
    void fail(const Error& error);

   private:
    friend class ControlServer;
    struct Target;
    explicit Reply(std::unique_ptr<Target> target);
    std::unique_ptr<Target> target_;
  };
  using Handler = std::function<void(Request, Reply)>;

  ControlServer(EventLoop& loop, uid_t owner);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Starts to listen at `path` with the mode given. May be called for several paths.
  Status listen(const std::string& path, mode_t mode);
  // REQUIRES: no other part has taken `name`.
  void add_command(std::string name, Handler handler);
  // Told of every connection that ends, whichever side closed it. Several may listen.
  void on_disconnect(std::function<void(ConnectionId)> ended);
  // Sends {"notice": name, ...arguments}. A connection that has gone, or does not drain, is dropped
  // silently.
  void notify(ConnectionId connection, std::string_view name, nlohmann::json arguments);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
