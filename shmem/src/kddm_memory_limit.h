// MemoryLimit: keeps what objects take on this node below a limit: copies are dropped first, then
// cold objects are given to the node with the most room. Nodes tell each other what they have and
// may have when it has changed by a sixteenth of their limit.
//
// Cold: not granted to anybody for the longest time. (Touches of pages that programs have mapped
// are not seen.)
//
// Threads: the loop's thread. Owned by Kddm. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "kddm_server.h"

namespace krg::kddm {

class MemoryLimit : public std::enable_shared_from_this<MemoryLimit> {
 public:
  explicit MemoryLimit(std::shared_ptr<Server> server);
  // Takes the messages. Once, after it is owned.
  void start();
  // 0: none, but others may give this node objects.
  void set(size_t bytes);
  size_t limit() const { return limit_.value_or(0); }

 private:
  struct Notice;
  struct OpenQuery;
  struct Peer {
    std::optional<uint64_t> limit;  // of who takes part
    uint64_t used = 0;
    std::map<uint64_t, bool> open;  // sets, as far as it was asked; false: asked, or it said no
  };
  // Objects on their way out at the same time, at the most; looked at in one turn of the loop.
  static constexpr size_t kMaxGiving = 256, kMaxLooks = 4096;
  // Where there were no copies, none is looked for so many times.
  static constexpr unsigned kWithoutCopies = 256;
  // Who has so much on its way gets no more for the moment; then it is tried again.
  static constexpr size_t kMaxOnTheWay = 2u << 20;
  static constexpr std::chrono::microseconds kRetry{200}, kAskAgain{5000};

  void schedule();
  void make_room();
  void drop_copies();
  void for_coldest(const std::function<void(Set&, const ObjectKey&)>& use);
  bool drop(Set& set, const ObjectKey& key);
  void give(Set& set, const ObjectKey& key);
  NodeId roomiest(SetId set, size_t bytes);
  bool is_open_at(NodeId node, SetId set);
  void released(const ObjectKey& key);
  void forget_refused();
  void tell(bool always);
  void tell_all(bool ask);
  void tell(NodeId node, bool ask);
  void ask_again();
  bool is_over() const;

  std::shared_ptr<Server> server_;
  Messenger& messenger_;
  std::optional<uint64_t> limit_;
  uint64_t told_ = 0;  // the use that others know of
  std::vector<Peer> peers_;
  struct Giving {
    size_t bytes;
    NodeId target;
  };
  std::map<std::pair<uint64_t, uint64_t>, Giving> giving_;  // by set and object
  size_t giving_bytes_ = 0;
  bool scheduled_ = false;
  bool somebody_is_busy_ = false;
  EventLoop::Timer retry_, asked_;
  unsigned without_copies_ = 0;  // times that need not look for copies
};

}  // namespace krg::kddm
