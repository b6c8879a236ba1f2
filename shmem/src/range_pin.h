// RangePin: neighbours of a set that a client has pinned together, with their bytes one behind the
// other in the memory that it shares with us (client_session.h).
//
// Objects are taken in ascending order: while the lowest missing one is awaited, those below it are
// pinned and none above. What is asked for above it, so that it is here by then, is let go of when
// it is granted too early (in the loop's next turn: who answers for several objects grants them in
// one), and asked for anew. So who holds something and waits only ever waits for something higher:
// clients whose ranges overlap cannot wait for each other for ever. And the lowest missing object
// is kept once it is granted: each range comes to its end.
//
// Threads: the loop's thread. Owned by its ClientSession and by the Kddm's callbacks.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "krg/shmem/kddm.h"
#include "set_uses.h"

namespace krg {

class RangePin : public std::enable_shared_from_this<RangePin> {
 public:
  struct Objects {
    SetId set;
    ObjectId first;
    size_t count = 0;
    bool writing = false;
    Kddm::Touch touch = Kddm::Touch::kFirstTouch;
  };
  using Taken = std::function<void(Status)>;

  // The objects' bytes go to `bytes`, which stays while anything is pinned.
  RangePin(EventLoop& loop, Kddm& kddm, std::shared_ptr<SetUses> uses, const Objects& objects,
           std::span<std::byte> bytes);
  RangePin(const RangePin&) = delete;
  RangePin& operator=(const RangePin&) = delete;

  // `taken` runs once, perhaps at once, unless release() comes before. Errors: those of
  // Kddm::get() for any of the objects, EIDRM (the set is going); then nothing is pinned.
  void take(Taken taken);
  bool is_taken() const { return use_ && lowest_missing_ == objects_.count; }
  // Puts what is pinned; what comes still is put then. `store`: bytes() are the objects' now, if
  // they were taken for writing. Does nothing the second time.
  void release(bool store);
  // Ends a range that is not taken yet.
  void fail(const Error& error);

 private:
  enum class State : uint8_t { kMissing, kAskedFor, kPinned };
  using Granted = Result<std::span<std::byte>>;

  bool goes_well() const { return use_ && !failed_; }
  ObjectId object(size_t index) const { return {objects_.first.value + index}; }
  std::span<std::byte> bytes_of(size_t index) const;
  // All up to the end of the window that are neither pinned nor asked for.
  void ask_up_to(size_t end);
  void ask(size_t index);
  void granted(size_t index, const Granted& bytes);
  // Copies what has come and asks for what is missing, up to the lowest that has to be waited for.
  void go_on();
  void let_go_of_higher();
  void fail_soon(const Error& error);

  EventLoop& loop_;
  Kddm& kddm_;
  const std::shared_ptr<SetUses> uses_;
  const Objects objects_;
  const std::span<std::byte> bytes_;
  const size_t window_;  // so many objects from the lowest missing one are asked for ahead
  Taken taken_;
  std::vector<State> states_;
  std::vector<std::span<std::byte>> pinned_;  // where the Kddm has them
  std::vector<size_t> higher_;                // were granted above the lowest missing one
  size_t lowest_missing_ = 0;
  size_t asked_end_ = 0;  // nothing from here on was ever asked for
  bool use_ = false;      // from take() to release(): one of the set's uses
  bool failed_ = false;   // which it is about to tell
  bool goes_on_ = false;
  bool lets_go_ = false;  // soon
};

}  // namespace krg
