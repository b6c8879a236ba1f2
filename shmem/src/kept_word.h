// KeptWord: what a program and its krgd tell each other about a pin for reading that the program
// keeps (kept_pins.h): a word in the memory that both have. The program counts its users there, so
// that it may use the object again without a word to krgd; krgd takes the pin back there when
// somebody waits for the object, without a word to the program unless that is using it just then.
//
// A program that writes nonsense here does without what it has pinned, or keeps it as if it never
// put it: nothing else rests on the word. Threads: any, of both.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace krg {

// So many pins a program may keep.
inline constexpr uint32_t kKeptSlots = 4096;
// A pin that is not kept.
inline constexpr uint32_t kNoSlot = ~uint32_t{0};

class KeptWord {
 public:
  // krgd: the word is about this pin from now on, which the program uses already, or not yet.
  void give(uint64_t pin, bool in_use) {
    word_.store(pin << kPinShift | (in_use ? kUsed | 1 : 0), std::memory_order_release);
  }
  struct Ended {
    bool idle;  // nobody uses it, nor will; else the program puts it when nobody does any more
    bool used;  // somebody has
  };
  // krgd: nobody may begin to use it any more.
  Ended take_back() {
    const uint64_t before = word_.fetch_or(kWanted, std::memory_order_acq_rel);
    return {(before & kUsers) == 0, (before & kUsed) != 0};
  }

  // The program: one more user. False when krgd has taken the pin back.
  bool enter(uint64_t pin) {
    uint64_t now = word_.load(std::memory_order_relaxed);
    do {
      if (now >> kPinShift != (pin & kPinBits) || now & kWanted) return false;
    } while (!word_.compare_exchange_weak(now, (now | kUsed) + 1, std::memory_order_acq_rel));
    return true;
  }
  // The program: one less. True when it was the last one of what krgd has asked for.
  bool leave() {
    const uint64_t before = word_.fetch_sub(1, std::memory_order_acq_rel);
    return before & kWanted && (before & kUsers) == 1;
  }

 private:
  static constexpr unsigned kPinShift = 32;
  static constexpr uint64_t kPinBits = 0xffff'ffff, kWanted = 1u << 31, kUsed = 1u << 30;
  static constexpr uint64_t kUsers = kUsed - 1;

  std::atomic<uint64_t> word_;
};
static_assert(sizeof(KeptWord) == 8 && std::atomic<uint64_t>::is_always_lock_free);
inline constexpr size_t kKeptWordsBytes = kKeptSlots * sizeof(KeptWord);

}  // namespace krg
