// Layout: runs of words that changed: u16 first word, u16 count, then for each word a byte that
// says which of its bytes changed (bit 0: the first one), and those bytes. A run of none ends it.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_changes.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace krg {
namespace {

constexpr size_t kWordBytes = sizeof(uint64_t);
constexpr uint8_t kAllBytes = 0xff;

struct Run {
  uint16_t first = 0, count = 0;
};

uint64_t load(const std::byte* at) {
  return __atomic_load_n(reinterpret_cast<const uint64_t*>(at), __ATOMIC_RELAXED);
}

void append_word(uint64_t now, uint64_t before, std::string& changes) {
  std::array<char, kWordBytes> bytes{};
  std::memcpy(bytes.data(), &now, kWordBytes);
  const uint64_t differs = now ^ before;
  uint8_t which = 0;
  for (unsigned i = 0; i < kWordBytes; ++i)
    if (differs >> (8 * i) & 0xff) which |= static_cast<uint8_t>(1u << i);
  changes.push_back(static_cast<char>(which));
  if (which == kAllBytes) {
    changes.append(bytes.data(), kWordBytes);
    return;
  }
  for (unsigned i = 0; i < kWordBytes; ++i)
    if (which >> i & 1) changes.push_back(bytes[i]);
}

bool take(std::string_view& from, void* to, size_t bytes) {
  if (from.size() < bytes) return false;
  std::memcpy(to, from.data(), bytes);
  from.remove_prefix(bytes);
  return true;
}

// Never writes a byte that has not changed: others may be writing it.
bool put_word(std::string_view& changes, std::byte* at) {
  uint8_t which = 0;
  if (!take(changes, &which, 1)) return false;
  if (which == kAllBytes) {
    uint64_t word = 0;
    if (!take(changes, &word, kWordBytes)) return false;
    __atomic_store_n(reinterpret_cast<uint64_t*>(at), word, __ATOMIC_RELAXED);
    return true;
  }
  for (unsigned i = 0; i < kWordBytes; ++i) {
    uint8_t byte = 0;
    if (!(which >> i & 1)) continue;
    if (!take(changes, &byte, 1)) return false;
    __atomic_store_n(reinterpret_cast<uint8_t*>(at + i), byte, __ATOMIC_RELAXED);
  }
  return true;
}

}  // namespace

bool take_changes(std::span<const std::byte> page, std::span<std::byte> twin,
                  std::string& changes) {
  const size_t start = changes.size();
  Run run;
  size_t run_at = 0;
  for (size_t at = 0; at < page.size(); at += kWordBytes) {
    const uint64_t now = load(page.data() + at);
    uint64_t before = 0;
    std::memcpy(&before, twin.data() + at, kWordBytes);
    if (now == before) {
      run.count = 0;
      continue;
    }
    if (run.count == 0) {
      run.first = static_cast<uint16_t>(at / kWordBytes);
      run_at = changes.size();
      changes.append(sizeof run, '\0');
    }
    ++run.count;
    std::memcpy(changes.data() + run_at, &run, sizeof run);
    append_word(now, before, changes);
    std::memcpy(twin.data() + at, &now, kWordBytes);
  }
  const bool has_changed = changes.size() > start;
  changes.append(sizeof(Run), '\0');
  return has_changed;
}

bool put_changes(std::string_view& changes, std::span<std::byte> page, std::span<std::byte> twin) {
  for (;;) {
    Run run;
    if (!take(changes, &run, sizeof run)) return false;
    if (run.count == 0) return true;
    if ((size_t{run.first} + run.count) * kWordBytes > page.size()) return false;
    for (size_t word = run.first; word < size_t{run.first} + run.count; ++word) {
      std::string_view again = changes;
      if (!put_word(changes, page.data() + word * kWordBytes)) return false;
      if (!twin.empty()) put_word(again, twin.data() + word * kWordBytes);
    }
  }
}

}  // namespace krg
