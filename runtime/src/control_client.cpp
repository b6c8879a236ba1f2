// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/control_client.h"

#include <cstdlib>

namespace krg {

using nlohmann::json;

Result<ControlClient> ControlClient::connect(const std::string& path) {
  auto socket = connect_seqpacket(path);
  if (!socket) return socket.error();
  return ControlClient(std::move(*socket));
}

Result<ControlClient> ControlClient::connect_to_session() {
  const char* path = std::getenv("KRG_CONTROL");
  if (!path)
    return errno_error("this process does not run in a session (KRG_CONTROL is not set)", ENOENT);
  return connect(path);
}

Result<ControlClient::Answer> ControlClient::call(std::string_view command, json arguments,
                                                  std::span<const int> fds) {
  const uint64_t id = next_id_++;
  json request{{"command", command}, {"id", id}, {"arguments", std::move(arguments)}};
  std::string bytes = request.dump(-1, ' ', false, json::error_handler_t::replace);
  if (bytes.size() > kMaxPacketBytes) return errno_error("a request this long", EMSGSIZE);
  if (auto sent = send_packet(socket_.get(), bytes, fds); !sent) return sent.error();
  while (true) {
    auto packet = receive_packet(socket_.get());
    if (!packet) return packet.error();
    if (packet->end_of_stream) return errno_error("the connection to krgd", ECONNRESET);
    json answer = json::parse(packet->bytes, nullptr, false);
    if (!answer.is_object()) return errno_error("krgd's answer", EPROTO);
    if (answer.contains("notice")) {
      if (notice_) notice_(answer["notice"].get<std::string>(), answer);
      continue;
    }
    if (answer.value("id", uint64_t{0}) != id) continue;  // the answer to a call that was given up
    if (answer.contains("error")) {
      int number = answer.value("errno", 0);
      std::string text = answer.value("error", "");
      return number ? errno_error(std::move(text), number) : text_error(std::move(text));
    }
    return Answer{answer.value("result", json::object()), std::move(packet->fds)};
  }
}

void ControlClient::on_notice(std::function<void(const std::string&, const json&)> handler) {
  notice_ = std::move(handler);
}

Status ControlClient::receive_notice() {
  auto packet = receive_packet(socket_.get());
  if (!packet) return packet.error();
  if (packet->end_of_stream) return errno_error("the connection to krgd", ECONNRESET);
  json notice = json::parse(packet->bytes, nullptr, false);
  if (!notice.is_object() || !notice.contains("notice"))
    return errno_error("krgd's notice", EPROTO);
  if (notice_) notice_(notice["notice"].get<std::string>(), notice);
  return {};
}

}  // namespace krg
