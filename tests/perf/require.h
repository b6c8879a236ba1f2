// What a program that measures does about errors. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "krg/runtime/result.h"

namespace krg::perf {

// Prints why and ends the process when it is an error.
inline void require(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "%s\n", status.error().message().c_str());
  std::exit(1);
}
template <class T>
T require(Result<T> result) {
  if (!result) require(Status(result.error()));
  return std::move(*result);
}

}  // namespace krg::perf
