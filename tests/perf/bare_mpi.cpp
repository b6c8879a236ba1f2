// SPDX-License-Identifier: GPL-2.0-or-later
#include "bare_mpi.h"

#include <mpi.h>

namespace krg::perf {
namespace {

void ping_pong(int rank, const Workload& work, Samples& samples) {
  std::vector<char> buffer(work.message_bytes);
  const int count = static_cast<int>(buffer.size());
  const int peer = 1 - rank;
  for (unsigned i = 0; i < work.round_trips; ++i) {
    const auto start = Clock::now();
    if (rank == 0) MPI_Send(buffer.data(), count, MPI_BYTE, peer, 0, MPI_COMM_WORLD);
    MPI_Recv(buffer.data(), count, MPI_BYTE, peer, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (rank == 1) MPI_Send(buffer.data(), count, MPI_BYTE, peer, 0, MPI_COMM_WORLD);
    if (rank == 0) samples.add(microseconds_since(start));
  }
}

void gets(int rank, const Workload& work, Samples& samples) {
  std::vector<char> exposed(work.get_bytes, 'x'), local(work.get_bytes);
  const int count = static_cast<int>(work.get_bytes);
  MPI_Win window;
  MPI_Win_create(exposed.data(), static_cast<MPI_Aint>(exposed.size()), 1, MPI_INFO_NULL,
                 MPI_COMM_WORLD, &window);
  MPI_Win_lock_all(0, window);
  for (unsigned i = 0; rank == 0 && i < work.gets; ++i) {
    const auto start = Clock::now();
    MPI_Get(local.data(), count, MPI_BYTE, 1, 0, count, MPI_BYTE, window);
    MPI_Win_flush(1, window);
    samples.add(microseconds_since(start));
  }
  MPI_Barrier(MPI_COMM_WORLD);  // rank 1 makes progress in it meanwhile
  MPI_Win_unlock_all(window);
  MPI_Win_free(&window);
}

}  // namespace

void run_bare_mpi(int rank, const Workload& work, Figures& figures) {
  MPI_Barrier(MPI_COMM_WORLD);
  ping_pong(rank, work, figures.round_trip);
  gets(rank, work, figures.get);
}

}  // namespace krg::perf
