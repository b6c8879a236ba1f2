// SetUses: which sets this node's clients are using, so that a set can be brought to rest before it
// is closed: no operation of a client is under way in it, and nobody holds a pin.
//
// Threads: the loop's thread. Owned by KddmService.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "krg/runtime/event_loop.h"
#include "krg/shmem/ids.h"
#include "krg/shmem/kddm.h"

namespace krg {

class SetUses {
 public:
  bool is_stopping(SetId set) const { return stopping_.contains(set.value); }
  // One more operation or pin ...
  void begin(SetId set) { ++uses_[set.value].count; }
  // ... and one less.
  void end(SetId set) {
    auto use = uses_.find(set.value);
    if (--use->second.count > 0) return;
    auto stopped = std::move(use->second.stopped);
    uses_.erase(use);
    if (stopped) stopped();
  }
  // `stopped` runs when nothing uses the set any more, perhaps at once. The caller sees to it that
  // uses end.
  void stop(SetId set, std::function<void()> stopped) {
    stopping_.insert(set.value);
    auto use = uses_.find(set.value);
    if (use == uses_.end()) return stopped();
    use->second.stopped = std::move(stopped);
  }

  // Forgets the sets that were stopped and are closed by now.
  template <class IsOpen>
  void forget_closed(IsOpen is_open) {
    std::erase_if(stopping_, [&](uint64_t set) { return !is_open(SetId{set}); });
  }

 private:
  struct Use {
    uint64_t count = 0;
    std::function<void()> stopped;
  };
  std::unordered_map<uint64_t, Use> uses_;
  std::unordered_set<uint64_t> stopping_;
};

// Puts an object in the loop's next turn, says so to `done`, and ends a use of its set. For who
// does not keep what it is granted: where thousands wait for one object, each would be granted it
// inside of the one before, and the stack would not do.
inline void put_soon(EventLoop& loop, Kddm& kddm, const std::shared_ptr<SetUses>& uses, SetId set,
                     ObjectId object, std::function<void()> done = nullptr) {
  loop.post([&kddm, weak = std::weak_ptr(uses), set, object, done = std::move(done)] {
    auto living = weak.lock();
    if (!living) return;  // and perhaps the Kddm has gone, too
    kddm.put(set, object);
    if (done) done();
    living->end(set);
  });
}

}  // namespace krg
