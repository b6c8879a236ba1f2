// NodeTransport: how this node reaches the others. A cluster of one node needs no wires; others
// meet by MPI and then speak over the transport that KRG_TRANSPORT chooses (boot.h).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "krg/runtime/patience.h"
#include "krg/runtime/transport.h"

namespace krg {

class NodeTransport {
 public:
  // `patience` outlives it.
  static Result<std::unique_ptr<NodeTransport>> boot(EventLoop& loop, const Patience& patience);
  ~NodeTransport();
  NodeTransport(const NodeTransport&) = delete;
  NodeTransport& operator=(const NodeTransport&) = delete;

  Transport& get();
  // True while the MPI job that booted the cluster must go on (the mpi transport).
  bool needs_launcher() const;

 private:
  NodeTransport();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
