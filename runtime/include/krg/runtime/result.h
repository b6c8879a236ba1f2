// Result<T>: a value or an Error; a small subset of std::expected's interface (C++23), which g++ 12
// lacks. Operating errors travel as Result; the boundary that talks to the system adds the context
// once. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>
#include <variant>

#include "krg/runtime/check.h"

namespace krg {

// What went wrong: a code that a program can test, and a sentence for a person.
struct Error {
  std::error_code code;
  std::string context;

  // "CONTEXT: reason of the code", or the context alone when the code is empty.
  std::string message() const {
    if (!code) return context;
    return context.empty() ? code.message() : context + ": " + code.message();
  }
  // The errno value, or `otherwise` when there is no code or it is of another category.
  int errno_or(int otherwise) const {
    if (!code) return otherwise;
    return code.category() == std::generic_category() || code.category() == std::system_category()
               ? code.value()
               : otherwise;
  }
};

// An Error from an errno value (the current one unless given).
inline Error errno_error(std::string context, int number = errno) {
  return {std::error_code(number, std::generic_category()), std::move(context)};
}
// An Error that has no system code: bad input, a protocol violation.
inline Error text_error(std::string context) {
  return {std::error_code{}, std::move(context)};
}

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  // REQUIRES: has_value().
  T& value() & {
    check(has_value(), "Result::value() of an error");
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    check(has_value(), "Result::value() of an error");
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    check(has_value(), "Result::value() of an error");
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // REQUIRES: !has_value().
  const Error& error() const {
    check(!has_value(), "Result::error() of a value");
    return *std::get_if<1>(&state_);
  }
  T value_or(T otherwise) && {
    return has_value() ? std::move(*this).value() : std::move(otherwise);
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), failed_(true) {}

  bool has_value() const noexcept { return !failed_; }
  explicit operator bool() const noexcept { return has_value(); }
  // REQUIRES: !has_value().
  const Error& error() const {
    check(failed_, "Result::error() of a value");
    return error_;
  }

 private:
  Error error_;
  bool failed_ = false;
};

using Status = Result<void>;

}  // namespace krg
