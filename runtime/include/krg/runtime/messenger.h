// Messenger: typed messages, requests and replies over a Transport. A message is a trivially
// copyable struct whose first member is `uint8_t version`, plus a payload of bytes.
//
// - on<M>(handler) receives notices, send(to, m, payload) sends one. Ordered per pair.
// - on_request<M>(handler) receives requests with a Reply, to be answered at once or later (once);
//   request(to, m, payload, done) sends one. `done` gets the reply, or EHOSTDOWN when the peer
//   died.
// A message may go to this node itself. When the queue to a peer is over its limit, messages wait
// here in order (limit: kMaxDeferredBytes per peer; over it the peer is declared failed, since it
// does not drain).
//
// Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include "krg/runtime/transport.h"

namespace krg {

inline constexpr size_t kMaxDeferredBytes = 256u << 20;

// What every message struct looks like: trivially copyable, `static constexpr uint16_t kId` unique
// over the program (ids are listed in runtime/README.md), first member `uint8_t version`, at most
// 224 bytes.
template <class M>
concept Message = std::is_trivially_copyable_v<M> && sizeof(M) <= 224 && requires(M m) {
  { M::kId } -> std::convertible_to<uint16_t>;
  { m.version } -> std::convertible_to<uint8_t>;
};

class Messenger {
  struct Impl;

 public:
  explicit Messenger(Transport& transport);
  ~Messenger();
  Messenger(const Messenger&) = delete;
  Messenger& operator=(const Messenger&) = delete;

  NodeId self() const;
  unsigned node_count() const;
  bool is_failed(NodeId peer) const;
  // What waits here because the transport takes no more for the peer at the moment: who sends
  // much without being answered holds back in time.
  size_t deferred_bytes(NodeId peer) const;
  // The loop that everything here runs in.
  EventLoop& loop() const;
  // For one-sided operations; its messages and peers' failures are the Messenger's.
  Transport& transport() const;
  // The peers' deaths, after every pending request to the peer has completed with an error. Several
  // may listen.
  void on_peer_failure(std::function<void(NodeId)> failed);
  void mark_failed(NodeId peer);

  // The answer to one request; movable, to be answered exactly once from the loop's thread. Dropped
  // unanswered, it answers ECANCELED.
  class Reply {
   public:
    Reply(Reply&& other) noexcept = default;
    Reply& operator=(Reply&& other) noexcept;
    ~Reply();
    void ok(std::string_view payload = {});
    // `number`: an errno value.
    void fail(int number, std::string_view why = {});
    // The requester gets an Error with the same text, and the same errno value if it has one.
    void fail(const Error& why);

   private:
    friend class Messenger;
    Reply(std::weak_ptr<Impl> owner, NodeId to, uint64_t call)
        : owner_(std::move(owner)), to_(to), call_(call) {}
    void answer(int number, std::string_view payload);
    std::weak_ptr<Impl> owner_;  // empty once answered; a Reply may outlive its Messenger
    NodeId to_;
    uint64_t call_;
  };

  template <Message M>
  void on(std::function<void(NodeId from, const M&, std::string_view payload)> handler) {
    set_notice_handler(M::kId, [handler = std::move(handler)](NodeId from, std::string_view body,
                                                              std::string_view payload) {
      M message;
      if (body.size() != sizeof message) return false;
      std::memcpy(&message, body.data(), sizeof message);
      handler(from, message, payload);
      return true;
    });
  }
  template <Message M>
  void on_request(
      std::function<void(NodeId from, const M&, std::string_view payload, Reply)> handler) {
    set_request_handler(M::kId,
                        [handler = std::move(handler)](NodeId from, std::string_view body,
                                                       std::string_view payload, Reply reply) {
                          M message;
                          if (body.size() != sizeof message) return false;
                          std::memcpy(&message, body.data(), sizeof message);
                          handler(from, message, payload, std::move(reply));
                          return true;
                        });
  }
  // Errors: EHOSTDOWN to a failed peer, EMSGSIZE over kMaxPayloadBytes.
  template <Message M>
  Status send(NodeId to, const M& message, std::string_view payload = {}) {
    return send_notice(to, M::kId, {reinterpret_cast<const char*>(&message), sizeof message},
                       payload);
  }
  // `done` runs exactly once, always from the loop (never inside this call).
  template <Message M>
  void request(NodeId to, const M& message, std::string_view payload,
               std::function<void(Result<std::string> reply)> done) {
    send_request(to, M::kId, {reinterpret_cast<const char*>(&message), sizeof message}, payload,
                 std::move(done));
  }

 private:
  using NoticeHandler = std::function<bool(NodeId, std::string_view, std::string_view)>;
  using RequestHandler = std::function<bool(NodeId, std::string_view, std::string_view, Reply)>;
  void set_notice_handler(uint16_t id, NoticeHandler handler);
  void set_request_handler(uint16_t id, RequestHandler handler);
  Status send_notice(NodeId to, uint16_t id, std::string_view body, std::string_view payload);
  void send_request(NodeId to, uint16_t id, std::string_view body, std::string_view payload,
                    std::function<void(Result<std::string>)> done);

  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
