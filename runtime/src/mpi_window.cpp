// SPDX-License-Identifier: GPL-2.0-or-later
#include "mpi_window.h"

#include <climits>

#include "mpi_error.h"

namespace krg {

MpiWindow::~MpiWindow() {
  if (window_ == MPI_WIN_NULL) return;
  // osc/ucx 4.1.4 crashes in MPI_Win_free when regions are still attached.
  for (const auto& [start, length] : attached_) MPI_Win_detach(window_, start);
  MPI_Win_unlock_all(window_);
  MPI_Win_free(&window_);
}

Status MpiWindow::open(MPI_Comm comm) {
  int returned = MPI_Win_create_dynamic(MPI_INFO_NULL, comm, &window_);
  if (returned != MPI_SUCCESS) {
    window_ = MPI_WIN_NULL;
    return mpi_error("MPI_Win_create_dynamic", returned);
  }
  MPI_Win_set_errhandler(window_, MPI_ERRORS_RETURN);
  returned = MPI_Win_lock_all(MPI_MODE_NOCHECK, window_);
  if (returned == MPI_SUCCESS) return {};
  MPI_Win_free(&window_);
  return mpi_error("MPI_Win_lock_all", returned);
}

Result<uint64_t> MpiWindow::attach(std::span<std::byte> bytes) {
  if (window_ == MPI_WIN_NULL) return errno_error("no RMA window", ENODEV);
  auto after = attached_.lower_bound(bytes.data() + bytes.size());
  if (after != attached_.begin()) {
    const auto& [start, length] = *std::prev(after);
    if (start + length > bytes.data()) return errno_error("an overlapping region", EEXIST);
  }
  int returned = MPI_Win_attach(window_, bytes.data(), static_cast<MPI_Aint>(bytes.size()));
  if (returned != MPI_SUCCESS) return errno_error("MPI_Win_attach", ENOSPC);
  attached_[bytes.data()] = bytes.size();
  MPI_Aint address = 0;
  MPI_Get_address(bytes.data(), &address);
  return static_cast<uint64_t>(address);
}

void MpiWindow::detach(std::span<std::byte> bytes) {
  if (attached_.erase(bytes.data()) > 0) MPI_Win_detach(window_, bytes.data());
}

Result<MPI_Request> MpiWindow::get(int rank, uint64_t address, std::span<std::byte> local) {
  if (local.size() > INT_MAX) return errno_error("one-sided get", EMSGSIZE);
  const int count = static_cast<int>(local.size());
  MPI_Request request = MPI_REQUEST_NULL;
  int returned = MPI_Rget(local.data(), count, MPI_BYTE, rank, static_cast<MPI_Aint>(address),
                          count, MPI_BYTE, window_, &request);
  if (returned != MPI_SUCCESS) return mpi_error("MPI_Rget", returned);
  return request;
}

Result<MPI_Request> MpiWindow::put(int rank, uint64_t address, std::span<const std::byte> local) {
  if (local.size() > INT_MAX) return errno_error("one-sided put", EMSGSIZE);
  const int count = static_cast<int>(local.size());
  MPI_Request request = MPI_REQUEST_NULL;
  int returned = MPI_Rput(local.data(), count, MPI_BYTE, rank, static_cast<MPI_Aint>(address),
                          count, MPI_BYTE, window_, &request);
  if (returned != MPI_SUCCESS) return mpi_error("MPI_Rput", returned);
  return request;
}

Status MpiWindow::flush(int rank) {
  int returned = MPI_Win_flush(rank, window_);
  if (returned != MPI_SUCCESS) return mpi_error("MPI_Win_flush", returned);
  return {};
}

}  // namespace krg
