// Boot: MPI introduces the nodes to each other. mpirun or srun starts one rank per node; a rank's
// number becomes its node's id. The ofi transport only needs MPI to exchange addresses: after
// finalize() nothing of MPI is used any more, and the launcher may go. The mpi transport keeps it.
// Owner: krgd's main. Threads: the thread that called init(), which is the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"

namespace krg {

enum class TransportKind { kOfi, kMpi };

// What KRG_TRANSPORT (auto|mpi|ofi; unset or empty: auto) asks for. auto is ofi.
// Errors: any other word.
Result<TransportKind> choose_transport();

class MpiBoot {
 public:
  // MPI_Init. Blocks until all ranks have come. Once per process.
  static Result<MpiBoot> init();
  MpiBoot(MpiBoot&& other) noexcept;
  MpiBoot& operator=(MpiBoot&& other) noexcept;
  ~MpiBoot();  // finalizes unless that was done

  NodeId self() const { return self_; }
  unsigned node_count() const { return node_count_; }
  // Everybody's `mine`, by node id. Collective. Errors: what MPI says.
  Result<std::vector<std::string>> allgather(std::string_view mine) const;
  // Collective.
  Status barrier() const;
  // MPI_Finalize. Collective; waits for all ranks.
  Status finalize();

 private:
  MpiBoot(NodeId self, unsigned node_count) : active_(true), self_(self), node_count_(node_count) {}
  bool active_ = false;
  NodeId self_;
  unsigned node_count_ = 0;
};

}  // namespace krg
