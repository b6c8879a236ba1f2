// mpi_shared_rows: an MPI program whose ranks share memory beyond what MPI gives them: each rank
// relaxes its rows of a grid, and reads its neighbours' edge rows out of a KDDM set instead of
// exchanging messages; the residuals meet in a single object.
//
//   krgrun -N 4 --caps=+DISTANT_FORK mpirun -n 4 mpi_shared_rows
//
// Jacobi's method on the unit square, one side at 1. Rank 0 computes the same by itself and
// compares. usage: mpi_shared_rows [ITERATIONS]; prints "ranks R nodes N iterations I same 1".
// SPDX-License-Identifier: GPL-2.0-or-later
#include <mpi.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "krg/shmem/client.h"

namespace {

constexpr unsigned kColumns = 128, kRowsPerRank = 16;
using Row = std::array<double, kColumns>;
using Grid = std::vector<Row>;

template <class T>
T value_or_abort(krg::Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "mpi_shared_rows: %s\n", result.error().message().c_str());
  MPI_Abort(MPI_COMM_WORLD, 1);
  std::abort();
}

// One step for all inner rows of `from`; its first and last rows stay.
void relax(const Grid& from, Grid& to) {
  for (size_t row = 1; row + 1 < from.size(); ++row)
    for (unsigned column = 1; column + 1 < kColumns; ++column)
      to[row][column] = (from[row - 1][column] + from[row + 1][column] + from[row][column - 1] +
                         from[row][column + 1]) /
                        4;
}

Grid start_grid(unsigned rows, bool with_hot_side) {
  Grid grid(rows, Row{});
  if (with_hot_side) grid.front().fill(1);
  return grid;
}

// A rank's share: its rows and the neighbours' edge rows around them. Objects 4r to 4r+3 of the set
// are rank r's edges: first and last row, of even and odd iterations, so that nobody waits twice.
class Share {
 public:
  Share(const krg::SharedSet& edges, int rank, int ranks)
      : edges_(edges),
        rank_(static_cast<uint64_t>(rank)),
        ranks_(static_cast<uint64_t>(ranks)),
        now_(start_grid(kRowsPerRank + 2, rank == 0)),
        next_(now_) {}

  void iterate(unsigned iteration) {
    relax(now_, next_);
    std::swap(now_, next_);
    store(edge(rank_, 0, iteration), now_[1]);
    store(edge(rank_, 1, iteration), now_[kRowsPerRank]);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank_ > 0) now_.front() = load(edge(rank_ - 1, 1, iteration));
    if (rank_ + 1 < ranks_) now_.back() = load(edge(rank_ + 1, 0, iteration));
  }
  double sum() const {
    double sum = 0;
    for (unsigned row = 1; row <= kRowsPerRank; ++row)
      for (double value : now_[row]) sum += value;
    return sum;
  }

 private:
  static krg::ObjectId edge(uint64_t rank, unsigned side, unsigned iteration) {
    return {rank * 4 + side * 2 + iteration % 2};
  }
  void store(krg::ObjectId object, const Row& row) {
    value_or_abort(edges_.grab(object)).as<Row>() = row;
  }
  Row load(krg::ObjectId object) { return value_or_abort(edges_.get(object)).as<Row>(); }

  const krg::SharedSet& edges_;
  uint64_t rank_, ranks_;
  Grid now_, next_;
};

double sum_computed_alone(int ranks, unsigned iterations) {
  Grid now = start_grid(kRowsPerRank * static_cast<unsigned>(ranks) + 2, true), next = now;
  for (unsigned i = 0; i < iterations; ++i) {
    relax(now, next);
    std::swap(now, next);
  }
  double sum = 0;
  for (size_t row = 1; row + 1 < now.size(); ++row)
    for (double value : now[row]) sum += value;
  return sum;
}

std::string set_name(int rank) {
  std::array<char, 64> name{};
  if (rank == 0) {
    std::array<char, 32> host{};
    gethostname(host.data(), host.size() - 1);
    std::snprintf(name.data(), name.size(), "mpi_shared_rows.%s.%d", host.data(), getpid());
  }
  MPI_Bcast(name.data(), static_cast<int>(name.size()), MPI_CHAR, 0, MPI_COMM_WORLD);
  return name.data();
}

int run(int rank, int ranks, unsigned iterations) {
  const krg::Client client = value_or_abort(krg::Client::connect());
  const std::string name = set_name(rank);
  const krg::SharedSet edges = value_or_abort(client.open_or_create_set(name, sizeof(Row)));
  const krg::SharedSet totals =
      value_or_abort(client.open_or_create_set(name + ".sum", sizeof(double)));

  Share share(edges, rank, ranks);
  for (unsigned i = 0; i < iterations; ++i) share.iterate(i);
  value_or_abort(totals.grab({0})).as<double>() += share.sum();

  const int node = client.node().value;
  std::vector<int> nodes(static_cast<size_t>(ranks));
  MPI_Gather(&node, 1, MPI_INT, nodes.data(), 1, MPI_INT, 0, MPI_COMM_WORLD);
  MPI_Barrier(MPI_COMM_WORLD);
  int same = 1;
  if (rank == 0) {
    const double sum = value_or_abort(totals.get({0})).as<double>();
    same = std::fabs(sum - sum_computed_alone(ranks, iterations)) < 1e-9 * sum;
    const std::set<int> distinct(nodes.begin(), nodes.end());
    std::printf("ranks %d nodes %zu iterations %u same %d\n", ranks, distinct.size(), iterations,
                same);
    if (!edges.destroy() || !totals.destroy()) same = 0;
  }
  return same ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const unsigned iterations = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 200;
  const int status = run(rank, ranks, iterations);
  MPI_Finalize();
  return status;
}
