// SPDX-License-Identifier: GPL-2.0-or-later
#include "client_connection.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <future>

#include "krg/runtime/control_client.h"
#include "pin_arena.h"

namespace krg {
namespace {

Error broken() {
  return errno_error("the connection to krgd", ECONNRESET);
}

}  // namespace

Result<std::shared_ptr<ClientConnection>> ClientConnection::connect(
    const std::string& control_path) {
  auto control = ControlClient::connect(control_path);
  if (!control) return control.error();
  auto answer = control->call(client_wire::kConnectCommand);
  if (!answer) return answer.error();
  if (answer->fds.size() != 2) return errno_error("krgd's answer", EPROTO);
  void* memory = mmap(nullptr, kPinArenaBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                      answer->fds[1].get(), 0);
  if (memory == MAP_FAILED) return errno_error("mapping krgd's memory");
  // A fork's copy could put nothing, only harm.
  madvise(memory, kPinArenaBytes, MADV_DONTFORK);
  return std::shared_ptr<ClientConnection>(new ClientConnection(
      std::move(answer->fds[0]), static_cast<std::byte*>(memory),
      NodeId{answer->result.value("node", uint16_t{0})}, answer->result.value("nodes", 0u)));
}

ClientConnection::ClientConnection(UniqueFd socket, std::byte* memory, NodeId node,
                                   unsigned node_count)
    : shared_(std::make_shared<Shared>()),
      memory_(memory),
      node_(node),
      node_count_(node_count),
      process_(getpid()) {
  shared_->socket = std::move(socket);
  // The program's signals are for the program's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  reader_ = std::thread([shared = shared_] { read_replies(shared); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ClientConnection::~ClientConnection() {
  if (!is_ours()) {
    // There is no such thread here to join or detach, and the parent goes on using the socket.
    new std::thread(std::move(reader_));
    return;
  }
  shutdown(shared_->socket.get(), SHUT_RDWR);
  if (reader_.get_id() == std::this_thread::get_id()) {
    reader_.detach();  // the last pin went in a callback
  } else {
    reader_.join();
  }
  munmap(memory_, kPinArenaBytes);
}

bool ClientConnection::is_ours() const {
  return getpid() == process_;
}

void ClientConnection::start(Request request, std::string_view payload, Completion done) {
  if (!is_ours()) return done(errno_error("a fork's child connects anew", ECONNRESET));
  request.call = next_call_.fetch_add(1, std::memory_order_relaxed);
  {
    const std::lock_guard lock(shared_->mutex);
    if (!shared_->broken) shared_->waiting.emplace(request.call, std::move(done));
  }
  if (done) return done(broken());
  send(request, payload);
}

Result<client_wire::ClientReply> ClientConnection::call(const Request& request,
                                                        std::string_view payload) {
  std::promise<Result<client_wire::ClientReply>> promise;
  auto future = promise.get_future();
  start(request, payload, [&](Result<Answer> answer) {
    if (answer) {
      promise.set_value(answer->reply);
    } else {
      promise.set_value(answer.error());
    }
  });
  return future.get();
}

void ClientConnection::tell(const Request& request) {
  if (is_ours()) send(request, {});
}

// When it cannot be sent the connection is of no use any more; the reader tells everybody.
void ClientConnection::send(const Request& request, std::string_view payload) {
  const int socket = shared_->socket.get();
  iovec parts[] = {{const_cast<Request*>(&request), sizeof request},
                   {const_cast<char*>(payload.data()), payload.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  ssize_t sent;
  do sent = sendmsg(socket, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) shutdown(socket, SHUT_RDWR);
}

void ClientConnection::read_replies(const std::shared_ptr<Shared>& shared) {
  std::array<char, client_wire::kMaxClientPacket> packet;
  while (true) {
    const ssize_t got = recv(shared->socket.get(), packet.data(), packet.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < static_cast<ssize_t>(sizeof(client_wire::ClientReply))) return break_off(*shared);
    complete(*shared, {packet.data(), static_cast<size_t>(got)});
  }
}

void ClientConnection::complete(Shared& shared, std::string_view packet) {
  Answer answer;
  std::memcpy(&answer.reply, packet.data(), sizeof answer.reply);
  answer.payload = packet.substr(sizeof answer.reply);
  Completion done;
  {
    const std::lock_guard lock(shared.mutex);
    auto found = shared.waiting.find(answer.reply.call);
    if (found == shared.waiting.end()) return;
    done = std::move(found->second);
    shared.waiting.erase(found);
  }
  if (answer.reply.error != 0)
    return done(errno_error(std::string(answer.payload), answer.reply.error));
  done(answer);
}

void ClientConnection::break_off(Shared& shared) {
  std::unordered_map<uint64_t, Completion> waiting;
  {
    const std::lock_guard lock(shared.mutex);
    shared.broken = true;
    waiting.swap(shared.waiting);
  }
  for (auto& [call, done] : waiting) done(broken());
}

ReadPin ClientConnection::read_pin(const client_wire::ClientReply& reply, size_t bytes) {
  return ReadPin(shared_from_this(), reply.pin, {memory_ + reply.offset, bytes}, false);
}

WritePin ClientConnection::write_pin(const client_wire::ClientReply& reply, size_t bytes) {
  return WritePin(shared_from_this(), reply.pin, {memory_ + reply.offset, bytes}, true);
}

Pin& Pin::operator=(Pin&& other) noexcept {
  if (this == &other) return *this;
  put();
  connection_ = std::move(other.connection_);
  id_ = other.id_;
  bytes_ = other.bytes_;
  writing_ = other.writing_;
  return *this;
}

void Pin::put() {
  end(writing_);
}

void Pin::end(bool store) {
  auto connection = std::exchange(connection_, nullptr);
  if (!connection) return;
  connection->tell({.op = client_wire::Op::kPut, .flag = store, .pin = id_});
}

}  // namespace krg
