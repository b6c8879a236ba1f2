// Layout: runs of words that changed: u16 first word, u16 count, a byte for each word that says
// which of its bytes changed (bit 0: the first one), then the words. A run of none ends it. Words
// travel whole: packing their bytes takes longer than it spares.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_changes.h"

#include <cstdint>
#include <cstring>

namespace krg {
namespace {

constexpr size_t kWordBytes = sizeof(uint64_t);
constexpr size_t kWordsAtOnce = 8;  // that are compared together
constexpr uint64_t kLowBits = 0x7f7f7f7f7f7f7f7f;

struct Run {
  uint16_t first = 0, count = 0;
};

uint64_t load(const std::byte* at) {
  return __atomic_load_n(reinterpret_cast<const uint64_t*>(at), __ATOMIC_RELAXED);
}

// A bit for each byte that is not 0.
uint8_t bytes_set(uint64_t word) {
  const uint64_t high = (((word & kLowBits) + kLowBits) | word) & ~kLowBits;
  return static_cast<uint8_t>(((high >> 7) * 0x0102040810204080) >> 56);
}

bool are_equal(const std::byte* page, const std::byte* twin) {
  uint64_t differs = 0;
  for (size_t i = 0; i < kWordsAtOnce; ++i) {
    uint64_t before = 0;
    std::memcpy(&before, twin + i * kWordBytes, kWordBytes);
    differs |= load(page + i * kWordBytes) ^ before;
  }
  return differs == 0;
}

template <class Number>
void store(std::byte* at, uint64_t word, unsigned byte) {
  const auto part = static_cast<Number>(word >> (8 * byte));
  __atomic_store_n(reinterpret_cast<Number*>(at + byte), part, __ATOMIC_RELAXED);
}

// Never writes a byte that has not changed: others may be writing it.
void put_word(uint64_t word, uint8_t which, std::byte* at) {
  if (which == 0xff) return store<uint64_t>(at, word, 0);
  for (unsigned half = 0; half < 8; half += 4) {
    if ((which >> half & 0xf) == 0xf) {
      store<uint32_t>(at, word, half);
      continue;
    }
    for (unsigned pair = half; pair < half + 4; pair += 2) {
      if ((which >> pair & 3) == 3)
        store<uint16_t>(at, word, pair);
      else if (which >> pair & 1)
        store<uint8_t>(at, word, pair);
      else if (which >> pair & 2)
        store<uint8_t>(at, word, pair + 1);
    }
  }
}

// The words from `first` on that differ; the twin has them afterwards.
size_t take_run(std::span<const std::byte> page, std::span<std::byte> twin, size_t first,
                std::string& changes) {
  uint8_t which[4096 / kWordBytes];
  uint64_t words[4096 / kWordBytes];
  size_t count = 0;
  for (size_t at = first * kWordBytes; at < page.size() && count < std::size(words);
       at += kWordBytes, ++count) {
    const uint64_t now = load(page.data() + at);
    uint64_t before = 0;
    std::memcpy(&before, twin.data() + at, kWordBytes);
    if (now == before) break;
    which[count] = bytes_set(now ^ before);
    words[count] = now;
    std::memcpy(twin.data() + at, &now, kWordBytes);
  }
  if (count == 0) return 0;
  const Run run{static_cast<uint16_t>(first), static_cast<uint16_t>(count)};
  changes.append(reinterpret_cast<const char*>(&run), sizeof run);
  changes.append(reinterpret_cast<const char*>(which), count);
  changes.append(reinterpret_cast<const char*>(words), count * kWordBytes);
  return count;
}

}  // namespace

bool take_changes(std::span<const std::byte> page, std::span<std::byte> twin,
                  std::string& changes) {
  const size_t start = changes.size();
  const size_t words = page.size() / kWordBytes;
  for (size_t word = 0; word < words;) {
    const size_t at = word * kWordBytes;
    if (word + kWordsAtOnce <= words && are_equal(page.data() + at, twin.data() + at))
      word += kWordsAtOnce;
    else
      word += take_run(page, twin, word, changes) + 1;
  }
  const bool has_changed = changes.size() > start;
  changes.append(sizeof(Run), '\0');
  return has_changed;
}

bool put_changes(std::string_view& changes, std::span<std::byte> page, std::span<std::byte> twin) {
  for (;;) {
    Run run;
    if (changes.size() < sizeof run) return false;
    std::memcpy(&run, changes.data(), sizeof run);
    changes.remove_prefix(sizeof run);
    if (run.count == 0) return true;
    if ((size_t{run.first} + run.count) * kWordBytes > page.size()) return false;
    if (changes.size() < run.count * (1 + kWordBytes)) return false;
    const char* which = changes.data();
    const char* words = which + run.count;
    for (size_t i = 0; i < run.count; ++i) {
      uint64_t word = 0;
      std::memcpy(&word, words + i * kWordBytes, kWordBytes);
      const size_t at = (run.first + i) * kWordBytes;
      put_word(word, static_cast<uint8_t>(which[i]), page.data() + at);
      if (!twin.empty()) put_word(word, static_cast<uint8_t>(which[i]), twin.data() + at);
    }
    changes.remove_prefix(run.count * (1 + kWordBytes));
  }
}

}  // namespace krg
