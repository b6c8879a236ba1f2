// SPDX-License-Identifier: GPL-2.0-or-later
#include "node_transport.h"

#include <optional>

#include "krg/runtime/boot.h"
#include "krg/runtime/loopback_transport.h"
#include "krg/runtime/mpi_transport.h"
#include "krg/runtime/ofi_transport.h"
#include "launch_environment.h"

namespace krg {

struct NodeTransport::Impl {
  std::optional<LoopbackFabric> alone;
  std::optional<MpiBoot> mpi;  // kept while the transport is MPI's own; outlives it
  std::unique_ptr<Transport> wired;

  Status meet_over_ofi(EventLoop& loop, MpiBoot& mpi);
};

// MPI only exchanges addresses; after its end the ranks need neither it nor mpirun.
Status NodeTransport::Impl::meet_over_ofi(EventLoop& loop, MpiBoot& mpi) {
  auto endpoint = OfiEndpoint::open(loop, OfiOptions::from_environment());
  if (!endpoint) return endpoint.error();
  auto addresses = mpi.allgather(endpoint->address());
  if (!addresses) return addresses.error();
  auto transport = std::move(*endpoint).connect(mpi.self(), *addresses);
  if (!transport) return transport.error();
  wired = std::move(*transport);
  return mpi.finalize();
}

NodeTransport::NodeTransport() : impl_(std::make_unique<Impl>()) {}
NodeTransport::~NodeTransport() = default;

Result<std::unique_ptr<NodeTransport>> NodeTransport::boot(EventLoop& loop) {
  auto kind = choose_transport();
  if (!kind) return kind.error();
  std::unique_ptr<NodeTransport> made(new NodeTransport);
  if (launch_position().size == 1) {
    made->impl_->alone.emplace(loop, LoopbackFabric::Options{.nodes = 1});
    return made;
  }
  auto mpi = MpiBoot::init();
  if (!mpi) return mpi.error();
  if (*kind == TransportKind::kMpi) {
    made->impl_->mpi.emplace(std::move(*mpi));
    auto transport = make_mpi_transport(loop, *made->impl_->mpi);
    if (!transport) return transport.error();
    made->impl_->wired = std::move(*transport);
    return made;
  }
  if (auto met = made->impl_->meet_over_ofi(loop, *mpi); !met) return met.error();
  return made;
}

Transport& NodeTransport::get() {
  return impl_->alone ? impl_->alone->node(NodeId{0}) : *impl_->wired;
}

bool NodeTransport::needs_launcher() const {
  return impl_->mpi.has_value();
}

}  // namespace krg
