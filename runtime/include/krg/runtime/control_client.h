// ControlClient: a tool's side of a krgd's control socket (control_server.h has the packets).
// Blocking.
//
// Threads: one thread at a time.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/unix_socket.h"

namespace krg {

class ControlClient {
 public:
  struct Answer {
    nlohmann::json result;
    std::vector<UniqueFd> fds;
  };

  // Errors: ENOENT or ECONNREFUSED when no krgd listens at `path`.
  static Result<ControlClient> connect(const std::string& path);
  // Connects to the krgd of the session that this process runs in ($KRG_CONTROL). Error: ENOENT
  // outside of a session, with a sentence that says so.
  static Result<ControlClient> connect_to_session();

  // Sends a command and waits for its answer; notices that come meanwhile go to the notice handler.
  // Errors: what krgd answers (its errno and sentence); ECONNRESET when krgd ends.
  Result<Answer> call(std::string_view command, nlohmann::json arguments = nlohmann::json::object(),
                      std::span<const int> fds = {});
  // Called with each notice's name and packet.
  void on_notice(
      std::function<void(const std::string& name, const nlohmann::json& packet)> handler);
  // Reads one packet, which must be a notice. For callers that poll fd(). Error: ECONNRESET when
  // krgd ended.
  Status receive_notice();
  int fd() const { return socket_.get(); }

 private:
  explicit ControlClient(UniqueFd socket) : socket_(std::move(socket)) {}
  UniqueFd socket_;
  uint64_t next_id_ = 1;
  std::function<void(const std::string&, const nlohmann::json&)> notice_;
};

}  // namespace krg
