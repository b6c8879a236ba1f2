// ClientConnection: a program's end of the connection to its krgd (client_wire.h): sends requests,
// and reads the replies. A thread that waits in call() reads for all, so that its own reply wakes
// it and no other thread; while nobody does and callbacks are to come, a thread of the connection's
// own reads. That one runs all callbacks.
//
// Owned by the Client, its sets and its pins; the last of them closes it. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>

#include "client_wire.h"
#include "krg/runtime/types.h"
#include "krg/runtime/unique_fd.h"
#include "krg/shmem/client.h"

namespace krg {

class ClientConnection : public std::enable_shared_from_this<ClientConnection> {
 public:
  using Request = client_wire::ClientRequest;
  struct Answer {
    client_wire::ClientReply reply;
    std::string_view payload;  // valid in the callback only
  };
  using Completion = std::function<void(Result<Answer>)>;

  static Result<std::shared_ptr<ClientConnection>> connect(const std::string& control_path);
  ~ClientConnection();
  ClientConnection(const ClientConnection&) = delete;
  ClientConnection& operator=(const ClientConnection&) = delete;

  NodeId node() const { return node_; }
  unsigned node_count() const { return node_count_; }

  // `done` runs once, in the connection's thread, or in this call when the connection is broken.
  void start(Request request, std::string_view payload, Completion done);
  // Starts and waits. REQUIRES: not called by the connection's thread.
  Result<client_wire::ClientReply> call(Request request, std::string_view payload = {});
  // A request that nobody answers.
  void tell(const Request& request);

  ReadPin read_pin(const client_wire::ClientReply& reply, size_t bytes);
  WritePin write_pin(const client_wire::ClientReply& reply, size_t bytes);
  ReadRange read_range(const client_wire::ClientReply& reply, size_t bytes, size_t count);
  WriteRange write_range(const client_wire::ClientReply& reply, size_t bytes, size_t count);

 private:
  using Reply = client_wire::ClientReply;
  // A thread in call().
  struct Caller {
    std::optional<Result<Reply>> answer;
    std::condition_variable changed;  // there is the answer, or nobody reads
  };
  // What came for a callback.
  struct Arrived {
    Completion done;
    Reply reply;
    std::string payload;
    bool broken = false;
  };
  // What the connection's thread uses; it may outlive the connection by the end of one callback.
  struct Shared {
    UniqueFd socket;
    std::mutex mutex;  // guards what follows
    std::unordered_map<uint64_t, Completion> waiting;
    std::unordered_map<uint64_t, Caller*> callers;
    std::deque<Arrived> arrived;
    std::condition_variable work;  // for the connection's thread
    bool reading = false;          // somebody is in recv()
    bool broken = false, closing = false;
  };
  ClientConnection(UniqueFd socket, std::byte* memory, NodeId node, unsigned node_count);
  static void run(const Arrived& arrived);
  static void run_callbacks(const std::shared_ptr<Shared>& shared);
  // With the lock held, which it lets go of while it waits for one packet.
  static void read_one(Shared& shared, std::unique_lock<std::mutex>& lock);
  static void complete(Shared& shared, std::string_view packet);
  static void break_off(Shared& shared);
  static void find_reader(Shared& shared);
  // False in a fork's child, which must leave its parent's connection alone.
  bool is_ours() const;
  void send(const Request& request, std::string_view payload);

  std::shared_ptr<Shared> shared_;
  std::byte* memory_;
  NodeId node_;
  unsigned node_count_;
  pid_t process_;
  std::atomic<uint64_t> next_call_{1};
  std::thread thread_;
};

}  // namespace krg
