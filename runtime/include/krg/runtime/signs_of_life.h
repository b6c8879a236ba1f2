// SignsOfLife: a Transport that counts what comes from each other node, so that whoever looks from
// time to time whether one is alive needs no look at the clock when something comes. All of
// this folder do. Threads: the transport's. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

#include "krg/runtime/types.h"

namespace krg {

class SignsOfLife {
 public:
  virtual ~SignsOfLife() = default;

  // Grows with whatever comes from that node, parts of messages and what the transport keeps to
  // itself included, before its handler runs.
  virtual uint64_t heard(NodeId from) const = 0;
};

}  // namespace krg
