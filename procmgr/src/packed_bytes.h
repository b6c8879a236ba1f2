// PackedWriter and PackedReader: numbers and strings one after the other in a message's payload.
// A number is its bytes in host order (all nodes are of one architecture), a string is a 32-bit
// length and the bytes. The reader never reads past the end: after a failure every further value is
// zero or empty and ok() is false. object_bytes: those of one number or struct, not copied.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace krg {

// An object's own bytes, for as long as it lives.
template <class T>
requires std::is_trivially_copyable_v<T> std::string_view object_bytes(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

class PackedWriter {
 public:
  template <class T>
  requires std::is_trivially_copyable_v<T> PackedWriter& put(const T& value) {
    bytes_.append(object_bytes(value));
    return *this;
  }
  PackedWriter& put_string(std::string_view text) {
    put(static_cast<uint32_t>(text.size()));
    bytes_.append(text);
    return *this;
  }
  const std::string& bytes() const { return bytes_; }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class PackedReader {
 public:
  explicit PackedReader(std::string_view bytes) : rest_(bytes) {}

  template <class T>
  requires std::is_trivially_copyable_v<T> T get() {
    T value{};
    take(sizeof value).copy(reinterpret_cast<char*>(&value), sizeof value);
    return value;
  }
  // Points into the payload.
  std::string_view get_string() { return take(get<uint32_t>()); }
  bool at_end() const { return rest_.empty() || !ok_; }
  // False once something was asked for that is not there.
  bool ok() const { return ok_; }

 private:
  std::string_view take(size_t bytes) {
    if (!ok_ || bytes > rest_.size()) {
      ok_ = false;
      return {};
    }
    std::string_view taken = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return taken;
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace krg
