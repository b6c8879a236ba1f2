// KeptReads: the objects that a program's krgd lets it read by itself (kept_word.h), found by their
// names. Owned by the program's connection. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "kept_word.h"
#include "krg/shmem/ids.h"

namespace krg {

class KeptReads {
 public:
  struct Place {
    uint64_t pin = 0;
    uint64_t offset = 0;  // of the bytes
    uint32_t slot = kNoSlot;
  };
  // `words`: kKeptSlots of them, in the memory that krgd has, too.
  explicit KeptReads(KeptWord* words) : words_(words) {}
  KeptReads(const KeptReads&) = delete;
  KeptReads& operator=(const KeptReads&) = delete;

  // krgd lets the program keep this; what it kept in this slot before has gone.
  void add(SetId set, ObjectId object, const Place& place) {
    if (place.slot >= kKeptSlots) return;
    const Name name{set.value, object.value};
    const std::lock_guard lock(mutex_);
    Name& before = names_[place.slot];
    if (auto old = places_.find(before); old != places_.end() && old->second.slot == place.slot)
      places_.erase(old);
    before = name;
    places_[name] = place;
  }
  // Where the object is, for one more user, who leaves it later; none: krgd has to be asked.
  std::optional<Place> enter(SetId set, ObjectId object) {
    const std::lock_guard lock(mutex_);
    auto found = places_.find({set.value, object.value});
    if (found == places_.end()) return std::nullopt;
    if (words_[found->second.slot].enter(found->second.pin)) return found->second;
    places_.erase(found);
    return std::nullopt;
  }
  // Whether krgd waits for the pin to be put.
  bool leave(uint32_t slot) { return words_[slot].leave(); }

 private:
  using Name = std::pair<uint64_t, uint64_t>;  // set and object

  struct Hash {
    size_t operator()(const Name& name) const {
      return (name.first ^ name.second * 0x9e3779b97f4a7c15ull) >> 7;
    }
  };

  KeptWord* const words_;
  std::mutex mutex_;  // guards what follows
  std::unordered_map<Name, Place, Hash> places_;
  std::array<Name, kKeptSlots> names_{};  // by slot: what was kept there last
};

}  // namespace krg
