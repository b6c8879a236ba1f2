// MpiWindow: a dynamic RMA window over all ranks, locked for passive access for all of its life.
// Dynamic, because a region is registered by one node alone, while the other kinds of windows are
// made collectively.
// Owner: the mpi transport; destroyed on all ranks together. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <mpi.h>

#include <map>
#include <span>

#include "krg/runtime/result.h"

namespace krg {

class MpiWindow {
 public:
  MpiWindow() = default;  // no window: attach() refuses
  MpiWindow(MpiWindow&&) = delete;
  ~MpiWindow();

  // Collective. Errors: MPI has no component that does this over the network at hand (Open MPI 4.1
  // with btl tcp alone prefers osc/rdma, which then cannot).
  Status open(MPI_Comm comm);
  // Lets others reach the bytes; tells their address. Errors: ENOSPC over MPI's limit (osc/ucx: 32
  // regions), EEXIST when they overlap an attached region, ENODEV without a window.
  Result<uint64_t> attach(std::span<std::byte> bytes);
  void detach(std::span<std::byte> bytes);

  // REQUIRES: `address` lies in a region that `rank` attached. Errors: MPI's.
  Result<MPI_Request> get(int rank, uint64_t address, std::span<std::byte> local);
  Result<MPI_Request> put(int rank, uint64_t address, std::span<const std::byte> local);
  // After a put's request has completed: waits until the target has the bytes. Blocks until the
  // target's MPI progresses, where the network needs that.
  Status flush(int rank);

 private:
  MPI_Win window_ = MPI_WIN_NULL;
  std::map<const std::byte*, size_t> attached_;
};

}  // namespace krg
