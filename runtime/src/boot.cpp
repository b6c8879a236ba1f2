// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/boot.h"

#include <mpi.h>

#include <cstdlib>
#include <numeric>
#include <utility>

#include "mpi_error.h"

namespace krg {

Error mpi_error(std::string context, int returned) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(returned, text, &length);
  return {std::make_error_code(std::errc::io_error),
          std::move(context) + " (" + std::string(text, static_cast<size_t>(length)) + ")"};
}

Result<TransportKind> choose_transport() {
  const char* value = std::getenv("KRG_TRANSPORT");
  const std::string_view wanted = value ? value : "";
  if (wanted.empty() || wanted == "auto" || wanted == "ofi") return TransportKind::kOfi;
  if (wanted == "mpi") return TransportKind::kMpi;
  return errno_error("KRG_TRANSPORT=" + std::string(wanted) + " (auto, mpi and ofi are known)",
                     EINVAL);
}

Result<MpiBoot> MpiBoot::init() {
  int done = 0;
  MPI_Initialized(&done);
  if (done) return errno_error("MPI was initialized before", EALREADY);
  int provided = 0;
  int returned = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  if (returned != MPI_SUCCESS) return mpi_error("MPI_Init", returned);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return MpiBoot(NodeId{static_cast<uint16_t>(rank)}, static_cast<unsigned>(size));
}

MpiBoot::MpiBoot(MpiBoot&& other) noexcept
    : active_(std::exchange(other.active_, false)),
      self_(other.self_),
      node_count_(other.node_count_) {}

MpiBoot& MpiBoot::operator=(MpiBoot&& other) noexcept {
  std::swap(active_, other.active_);
  self_ = other.self_;
  node_count_ = other.node_count_;
  return *this;
}

MpiBoot::~MpiBoot() {
  static_cast<void>(finalize());
}

Result<std::vector<std::string>> MpiBoot::allgather(std::string_view mine) const {
  check(active_, "allgather() before finalize()");
  std::vector<int> lengths(node_count_), starts(node_count_);
  int length = static_cast<int>(mine.size());
  int returned = MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, MPI_COMM_WORLD);
  if (returned != MPI_SUCCESS) return mpi_error("MPI_Allgather", returned);
  std::exclusive_scan(lengths.begin(), lengths.end(), starts.begin(), 0);
  std::string all(static_cast<size_t>(starts.back() + lengths.back()), '\0');
  returned = MPI_Allgatherv(mine.data(), length, MPI_BYTE, all.data(), lengths.data(),
                            starts.data(), MPI_BYTE, MPI_COMM_WORLD);
  if (returned != MPI_SUCCESS) return mpi_error("MPI_Allgatherv", returned);
  std::vector<std::string> parts;
  for (unsigned i = 0; i < node_count_; ++i)
    parts.push_back(all.substr(static_cast<size_t>(starts[i]), static_cast<size_t>(lengths[i])));
  return parts;
}

Status MpiBoot::barrier() const {
  check(active_, "barrier() before finalize()");
  int returned = MPI_Barrier(MPI_COMM_WORLD);
  if (returned != MPI_SUCCESS) return mpi_error("MPI_Barrier", returned);
  return {};
}

Status MpiBoot::finalize() {
  if (!std::exchange(active_, false)) return {};
  int returned = MPI_Finalize();
  if (returned != MPI_SUCCESS) return errno_error("MPI_Finalize", EIO);
  return {};
}

}  // namespace krg
