// Outbox: protocol messages on their way out. What is added while a Scope is open leaves when the
// outermost Scope ends, as one message per node where there are several: so a step on many objects
// costs a message for each node, not for each object. Messages to one node leave in the order in
// which they were added; those about neighbours that say the same are joined into runs. What goes
// to this node itself does not travel: it is handed over when the others have left.
//
// Threads: the loop's thread. Owned by the Server. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kddm_wire.h"
#include "krg/runtime/messenger.h"

namespace krg::kddm {

class Outbox {
 public:
  struct Own {
    Wire wire;
    std::string payload;
  };
  // `before_sending` runs at the end of each outermost Scope; `take_own` gets what goes to this
  // node, and may end the Outbox.
  Outbox(Messenger& messenger, std::function<void()> before_sending,
         std::function<void(std::vector<Own>)> take_own)
      : messenger_(messenger),
        before_sending_(std::move(before_sending)),
        take_own_(std::move(take_own)),
        newest_(messenger.node_count(), kNothing) {}
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  class Scope {
   public:
    explicit Scope(Outbox& outbox) : outbox_(outbox) { ++outbox_.depth_; }
    ~Scope() {
      if (--outbox_.depth_ == 0) outbox_.flush();
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Outbox& outbox_;
  };

  // REQUIRES: a Scope is open.
  void add(NodeId to, const Wire& wire, std::string payload = {});
  // The same for bytes that are not copied here: they stay as they are until they have left, or
  // own() has been called.
  void add_borrowed(NodeId to, const Wire& wire, std::span<const std::byte> bytes);
  // Copies what was borrowed.
  void own();
  // Keeps messages back from now on; let_go() sends them, discard() forgets them.
  void hold() { holding_ = true; }
  void let_go();
  void discard();
  // Messages handed in so far.
  uint64_t added() const { return added_; }
  // Messages that they travelled in.
  uint64_t sent() const { return sent_; }

 private:
  struct Outgoing {
    NodeId to;
    Wire wire;
    std::string payload;
    std::span<const std::byte> borrowed = {};  // instead of it

    std::string_view bytes() const {
      if (borrowed.empty()) return payload;
      return {reinterpret_cast<const char*>(borrowed.data()), borrowed.size()};
    }
  };
  static constexpr size_t kNothing = ~size_t{0};
  using Position = std::vector<Outgoing>::const_iterator;
  Outgoing* run_before(NodeId to, const Wire& wire, size_t bytes);
  void append(Outgoing message);
  void flush();
  std::vector<Own> extract_own(std::vector<Outgoing>& messages) const;
  void send_run(Position begin, Position end);
  void send_batch(Position begin, Position end);
  void report(const Status& sent, const Outgoing& message) const;

  Messenger& messenger_;
  const std::function<void()> before_sending_;
  const std::function<void(std::vector<Own>)> take_own_;
  std::vector<Outgoing> queue_;
  std::vector<size_t> newest_;  // by node: its place in queue_
  size_t borrowed_ = 0;         // messages with borrowed bytes
  unsigned depth_ = 0;
  uint64_t added_ = 0, sent_ = 0;
  bool holding_ = false;
};

}  // namespace krg::kddm
