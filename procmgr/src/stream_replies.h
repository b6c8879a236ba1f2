// What the home of a stream answers: values as their bytes, and errors as programs get them.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cerrno>
#include <cstring>
#include <string>

#include "krg/runtime/result.h"

namespace krg {

template <class Value>
Result<Value> value_of(const Result<std::string>& reply) {
  if (!reply) return reply.error();
  Value value;
  if (reply->size() != sizeof value) return errno_error("reply of a wrong size", EPROTO);
  std::memcpy(&value, reply->data(), sizeof value);
  return value;
}

// What a program gets when the home of its descriptor is lost: EIO.
inline Error as_io_error(const Error& error) {
  const int number = error.errno_or(EIO);
  return errno_error(error.context, number == EHOSTDOWN || number == ECANCELED ? EIO : number);
}

}  // namespace krg
