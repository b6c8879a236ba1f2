// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/control_server.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <map>

#include "krg/runtime/log.h"

namespace krg {

using nlohmann::json;

namespace {
constexpr size_t kMaxConnections = 4096;
}  // namespace

struct ControlServer::Impl {
  struct Connection {
    UniqueFd socket;
    ucred peer{};
    EventLoop::Watch watch;
  };
  struct Listener {
    UniqueFd socket;
    EventLoop::Watch watch;
  };

  Impl(EventLoop& loop, uid_t owner) : loop(loop), owner(owner) {}

  void accept_one(int listener);
  void receive_from(ConnectionId id);
  void dispatch(ConnectionId id, Packet packet);
  void send(ConnectionId id, const json& packet, std::span<const int> fds);
  void drop(ConnectionId id);

  EventLoop& loop;
  const uid_t owner;
  std::weak_ptr<Impl> self;
  std::vector<std::unique_ptr<Listener>> listeners;
  std::map<std::string, Handler, std::less<>> commands;
  std::vector<std::function<void(ConnectionId)>> disconnect_handlers;
  std::map<ConnectionId, Connection> connections;
  ConnectionId next_connection = 1;
};

struct ControlServer::Reply::Target {
  std::weak_ptr<Impl> server;
  ConnectionId connection;
  uint64_t call;
};

void ControlServer::Impl::accept_one(int listener) {
  auto socket = accept_connection(listener);
  if (!socket) return;
  auto peer = peer_credentials(socket->get());
  if (!peer || (peer->uid != owner && peer->uid != 0) || connections.size() >= kMaxConnections) {
    log_warn("control", "refused a connection of uid {}", peer ? peer->uid : -1);
    return;
  }
  fcntl(socket->get(), F_SETFL, O_NONBLOCK);
  ConnectionId id = next_connection++;
  auto watch = loop.watch(socket->get(), EPOLLIN, [this, id](uint32_t) { receive_from(id); });
  if (!watch) return;
  connections.emplace(id, Connection{std::move(*socket), *peer, std::move(*watch)});
}

void ControlServer::Impl::receive_from(ConnectionId id) {
  auto found = connections.find(id);
  if (found == connections.end()) return;
  auto packet = receive_packet(found->second.socket.get());
  if (!packet && packet.error().errno_or(0) == EAGAIN) return;
  if (!packet || packet->end_of_stream) return drop(id);
  dispatch(id, std::move(*packet));
}

void ControlServer::Impl::dispatch(ConnectionId id, Packet packet) {
  json request = json::parse(packet.bytes, nullptr, false);
  if (!request.is_object() || !request.contains("command") || !request["command"].is_string() ||
      !request.contains("id") || !request["id"].is_number_unsigned()) {
    log_warn("control", "connection {}: not a request", id);
    return drop(id);
  }
  const auto name = request["command"].get<std::string>();
  Reply reply(std::make_unique<Reply::Target>(Reply::Target{self, id, request["id"]}));
  auto command = commands.find(name);
  if (command == commands.end()) return reply.fail(errno_error("command " + name, ENOSYS));
  log_debug("control", "connection {}: {}", id, name);
  command->second(Request{id, connections.at(id).peer, request.value("arguments", json::object()),
                          std::move(packet.fds)},
                  std::move(reply));
}

void ControlServer::Impl::send(ConnectionId id, const json& packet, std::span<const int> fds) {
  auto found = connections.find(id);
  if (found == connections.end()) return;
  std::string bytes = packet.dump(-1, ' ', false, json::error_handler_t::replace);
  if (bytes.size() > kMaxPacketBytes) {
    log_error("control", "an answer of {} bytes is over the limit", bytes.size());
    bytes = json{{"id", packet.value("id", 0)}, {"error", "answer too long"}, {"errno", EMSGSIZE}}
                .dump();
  }
  auto sent = send_packet(found->second.socket.get(), bytes, fds);
  // Not from inside a callback of the connection's own watch or of a handler that still uses it.
  if (!sent)
    loop.post([weak = self, id] {
      if (auto server = weak.lock()) server->drop(id);
    });
}

void ControlServer::Impl::drop(ConnectionId id) {
  if (connections.erase(id) == 0) return;
  for (const auto& ended : disconnect_handlers) ended(id);
}

ControlServer::Reply::Reply(std::unique_ptr<Target> target) : target_(std::move(target)) {}
ControlServer::Reply::Reply(Reply&& other) noexcept = default;
ControlServer::Reply::~Reply() {
  if (target_) fail(errno_error("the request was dropped", ECANCELED));
}

void ControlServer::Reply::ok(json result, std::span<const int> fds) {
  check(target_ != nullptr, "a reply is given once");
  auto target = std::move(target_);
  if (auto server = target->server.lock())
    server->send(target->connection, {{"id", target->call}, {"result", std::move(result)}}, fds);
}

void ControlServer::Reply::fail(const Error& error) {
  check(target_ != nullptr, "a reply is given once");
  auto target = std::move(target_);
  json packet{{"id", target->call}, {"error", error.context}, {"errno", error.errno_or(EIO)}};
  if (!error.code) packet["errno"] = 0;
  if (auto server = target->server.lock()) server->send(target->connection, packet, {});
}

ControlServer::ControlServer(EventLoop& loop, uid_t owner)
    : impl_(std::make_shared<Impl>(loop, owner)) {
  impl_->self = impl_;
}
ControlServer::~ControlServer() = default;

Status ControlServer::listen(const std::string& path, mode_t mode) {
  auto socket = listen_seqpacket(path, mode);
  if (!socket) return socket.error();
  auto listener = std::make_unique<Impl::Listener>();
  int fd = socket->get();
  auto watch = impl_->loop.watch(fd, EPOLLIN, [this, fd](uint32_t) { impl_->accept_one(fd); });
  if (!watch) return watch.error();
  listener->socket = std::move(*socket);
  listener->watch = std::move(*watch);
  impl_->listeners.push_back(std::move(listener));
  return {};
}

void ControlServer::add_command(std::string name, Handler handler) {
  bool added = impl_->commands.emplace(std::move(name), std::move(handler)).second;
  check(added, "each control command belongs to one part");
}

void ControlServer::on_disconnect(std::function<void(ConnectionId)> ended) {
  impl_->disconnect_handlers.push_back(std::move(ended));
}

void ControlServer::notify(ConnectionId connection, std::string_view name, json arguments) {
  arguments["notice"] = name;
  impl_->send(connection, arguments, {});
}

}  // namespace krg
