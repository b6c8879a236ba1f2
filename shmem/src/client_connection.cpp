// SPDX-License-Identifier: GPL-2.0-or-later
#include "client_connection.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "krg/runtime/control_client.h"
#include "pin_arena.h"

namespace krg {
namespace {

Error broken() {
  return errno_error("the connection to krgd", ECONNRESET);
}
Error forked() {
  return errno_error("a fork's child connects anew", ECONNRESET);
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
  thread_ = std::thread([shared = shared_] { run_callbacks(shared); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ClientConnection::~ClientConnection() {
  if (!is_ours()) {
    // There is no such thread here to join or detach, and the parent goes on using the socket.
    new std::thread(std::move(thread_));
    return;
  }
  shutdown(shared_->socket.get(), SHUT_RDWR);
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->closing = true;
    shared_->work.notify_one();
  }
  if (thread_.get_id() == std::this_thread::get_id()) {
    thread_.detach();  // the last pin went in a callback
  } else {
    thread_.join();
  }
  munmap(memory_, kPinArenaBytes);
}

bool ClientConnection::is_ours() const {
  return getpid() == process_;
}

void ClientConnection::start(Request request, std::string_view payload, Completion done) {
  if (!is_ours()) return done(forked());
  request.call = next_call_.fetch_add(1, std::memory_order_relaxed);
  {
    const std::lock_guard lock(shared_->mutex);
    if (!shared_->broken) {
      shared_->waiting.emplace(request.call, std::move(done));
      if (!shared_->reading) shared_->work.notify_one();
    }
  }
  if (done) return done(broken());
  send(request, payload);
}

Result<client_wire::ClientReply> ClientConnection::call(Request request, std::string_view payload) {
  if (!is_ours()) return forked();
  request.call = next_call_.fetch_add(1, std::memory_order_relaxed);
  Shared& shared = *shared_;
  Caller self;
  {
    const std::lock_guard lock(shared.mutex);
    if (shared.broken) return broken();
    shared.callers.emplace(request.call, &self);
  }
  send(request, payload);
  std::unique_lock lock(shared.mutex);
  while (!self.answer) {
    if (shared.reading) {
      self.changed.wait(lock);
    } else {
      read_one(shared, lock);
    }
  }
  find_reader(shared);
  return std::move(*self.answer);
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

void ClientConnection::run_callbacks(const std::shared_ptr<Shared>& shared) {
  std::unique_lock lock(shared->mutex);
  while (true) {
    if (!shared->arrived.empty()) {
      Arrived next = std::move(shared->arrived.front());
      shared->arrived.pop_front();
      lock.unlock();
      run(next);
      next.done = nullptr;  // its connection may end with it, which takes the lock
      lock.lock();
    } else if (!shared->reading && !shared->waiting.empty()) {
      read_one(*shared, lock);
    } else if (shared->closing || shared->broken) {
      return;
    } else {
      shared->work.wait(lock);
    }
  }
}

void ClientConnection::run(const Arrived& arrived) {
  if (arrived.broken) return arrived.done(broken());
  if (arrived.reply.error != 0)
    return arrived.done(errno_error(arrived.payload, arrived.reply.error));
  arrived.done(Answer{arrived.reply, arrived.payload});
}

void ClientConnection::read_one(Shared& shared, std::unique_lock<std::mutex>& lock) {
  std::array<char, client_wire::kMaxClientPacket> packet;
  shared.reading = true;
  lock.unlock();
  ssize_t got;
  do got = recv(shared.socket.get(), packet.data(), packet.size(), 0);
  while (got < 0 && errno == EINTR);
  lock.lock();
  shared.reading = false;
  if (got < static_cast<ssize_t>(sizeof(Reply))) return break_off(shared);
  complete(shared, {packet.data(), static_cast<size_t>(got)});
}

void ClientConnection::complete(Shared& shared, std::string_view packet) {
  Reply reply;
  std::memcpy(&reply, packet.data(), sizeof reply);
  const std::string_view payload = packet.substr(sizeof reply);
  if (auto caller = shared.callers.extract(reply.call)) {
    if (reply.error != 0) {
      caller.mapped()->answer = errno_error(std::string(payload), reply.error);
    } else {
      caller.mapped()->answer = reply;
    }
    caller.mapped()->changed.notify_one();
  } else if (auto callback = shared.waiting.extract(reply.call)) {
    shared.arrived.push_back({std::move(callback.mapped()), reply, std::string(payload)});
    shared.work.notify_one();
  }
}

void ClientConnection::break_off(Shared& shared) {
  shared.broken = true;
  for (auto& [call, caller] : std::exchange(shared.callers, {})) {
    caller->answer = broken();
    caller->changed.notify_one();
  }
  for (auto& [call, done] : std::exchange(shared.waiting, {}))
    shared.arrived.push_back({.done = std::move(done), .reply = {}, .payload = {}, .broken = true});
  shared.work.notify_one();
}

// Who has read until its own reply came leaves the socket to another one that waits.
void ClientConnection::find_reader(Shared& shared) {
  if (shared.reading) return;
  if (!shared.callers.empty()) {
    shared.callers.begin()->second->changed.notify_one();
  } else if (!shared.waiting.empty()) {
    shared.work.notify_one();
  }
}

ReadPin ClientConnection::read_pin(const client_wire::ClientReply& reply, size_t bytes) {
  return ReadPin(shared_from_this(), reply.pin, {memory_ + reply.offset, bytes}, false);
}

WritePin ClientConnection::write_pin(const client_wire::ClientReply& reply, size_t bytes) {
  return WritePin(shared_from_this(), reply.pin, {memory_ + reply.offset, bytes}, true);
}

// `bytes`: of each of the objects.
ReadRange ClientConnection::read_range(const client_wire::ClientReply& reply, size_t bytes,
                                       size_t count) {
  return ReadRange(
      Pin(shared_from_this(), reply.pin, {memory_ + reply.offset, count * bytes}, false), bytes);
}

WriteRange ClientConnection::write_range(const client_wire::ClientReply& reply, size_t bytes,
                                         size_t count) {
  return WriteRange(
      Pin(shared_from_this(), reply.pin, {memory_ + reply.offset, count * bytes}, true), bytes);
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
