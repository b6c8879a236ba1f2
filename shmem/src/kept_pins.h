// KeptPins: pins for reading that a program keeps after it has put them, until somebody waits for
// the object: what it reads again it finds in its own memory (kept_word.h), and its krgd need not
// be asked. To the protocol they are pins as any. What they take is bounded: the oldest go first.
//
// Neighbours of an object that a program reads are kept for it too where that pays (reads_ahead()):
// each set has a credit, which one that was read adds to, and one that went unread, or was not to
// be had, takes from.
//
// Threads: the loop's thread. Owned by a ClientSession, which has the pins.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kept_word.h"
#include "krg/shmem/ids.h"

namespace krg {

class KeptPins {
 public:
  // What a program may keep.
  static constexpr size_t kMostBytes = 16u << 20;
  // Objects that are read together are so many, and have so many bytes together at the most.
  static constexpr uint64_t kNeighbours = 8;
  static constexpr size_t kNeighboursBytes = 64u << 10;

  struct Kept {
    SetId set;
    ObjectId object;
    size_t bytes = 0;
    bool ahead = false;  // nobody has asked for it
    uint32_t slot = kNoSlot;
  };

  // `words`: kKeptSlots of them.
  explicit KeptPins(KeptWord* words) : words_(words) {}
  KeptPins(const KeptPins&) = delete;
  KeptPins& operator=(const KeptPins&) = delete;

  bool has(SetId set, ObjectId object) const { return pins_.contains({set.value, object.value}); }
  std::optional<uint64_t> pin_of(SetId set, ObjectId object) const {
    auto found = pins_.find({set.value, object.value});
    return found == pins_.end() ? std::nullopt : std::optional(found->second);
  }
  // The pin that is kept for longest; none: nothing is.
  std::optional<uint64_t> oldest() const {
    return kept_.empty() ? std::nullopt : std::optional(kept_.begin()->first);
  }
  bool is_full_for(size_t bytes) const {
    return !kept_.empty() && (bytes_ + bytes > kMostBytes || kept_.size() >= kKeptSlots);
  }
  // Its slot; kNoSlot: it cannot be kept. REQUIRES: pins' numbers grow; the object has none yet.
  uint32_t add(uint64_t pin, Kept kept) {
    if (bytes_ + kept.bytes > kMostBytes) return kNoSlot;
    if (!free_.empty()) {
      kept.slot = free_.back();
      free_.pop_back();
    } else if (slots_ < kKeptSlots) {
      kept.slot = slots_++;
    } else {
      return kNoSlot;
    }
    words_[kept.slot].give(pin, !kept.ahead);
    bytes_ += kept.bytes;
    pins_.emplace(Name{kept.set.value, kept.object.value}, pin);
    kept_.emplace(pin, kept);
    return kept.slot;
  }
  // The pin is not kept any more. False: the program uses it, and puts it when it does no more.
  bool take_back(uint64_t pin) {
    auto kept = kept_.extract(pin);
    if (kept.empty()) return false;
    const Kept& was = kept.mapped();
    const KeptWord::Ended ended = words_[was.slot].take_back();
    bytes_ -= was.bytes;
    pins_.erase({was.set.value, was.object.value});
    if (was.ahead) credit_for(was.set, ended.used ? 1 : -1);
    if (ended.idle) {
      free_.push_back(was.slot);
    } else {
      leaving_.emplace(pin, was.slot);
    }
    return ended.idle;
  }
  // The program has put it.
  void was_put(uint64_t pin) {
    take_back(pin);
    if (auto left = leaving_.extract(pin)) free_.push_back(left.mapped());
  }

  // Whether a read of this set should bring neighbours along. Asked once for each read; some are to
  // show whether that pays again.
  bool reads_ahead(SetId set) {
    Credit& credit = credits_[set.value];
    return credit.left > 0 || ++credit.reads_without % kTryAgain == 0;
  }
  // So many neighbours were asked for, and none came.
  void read_in_vain(SetId set, unsigned count) { credit_for(set, -static_cast<int>(count)); }
  // All of a set's, which is going.
  std::vector<uint64_t> of(SetId set) {
    credits_.erase(set.value);
    std::vector<uint64_t> pins;
    for (auto at = pins_.lower_bound({set.value, 0});
         at != pins_.end() && at->first.first == set.value; ++at)
      pins.push_back(at->second);
    return pins;
  }

 private:
  using Name = std::pair<uint64_t, uint64_t>;  // set and object
  struct Credit {
    int left = kFirstCredit;
    unsigned reads_without = 0;
  };
  static constexpr int kFirstCredit = 256, kMostCredit = 1024;
  static constexpr unsigned kTryAgain = 64;

  void credit_for(SetId set, int change) {
    auto credit = credits_.find(set.value);
    if (credit == credits_.end()) return;
    credit->second.left = std::clamp(credit->second.left + change, 0, kMostCredit);
  }

  KeptWord* const words_;
  std::map<uint64_t, Kept> kept_;  // by pin: the oldest first
  std::map<Name, uint64_t> pins_;
  std::unordered_map<uint64_t, uint32_t> leaving_;  // pins that the program still uses: their slots
  std::unordered_map<uint64_t, Credit> credits_;    // by set
  std::vector<uint32_t> free_;                      // slots below slots_
  uint32_t slots_ = 0;                              // that were ever used
  size_t bytes_ = 0;
};

}  // namespace krg
