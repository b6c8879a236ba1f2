// SPDX-License-Identifier: GPL-2.0-or-later
#include "node_transport.h"

#include <sys/mount.h>

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

  Status meet_over_ofi(EventLoop& loop, MpiBoot& mpi, const Patience& patience);
};

namespace {

// The kernel's symbols are hidden from libfabric while it starts: its verbs provider reads all of
// them twice (0.1 s of processor time) to learn whether RDMA devices can reach the memory of GPUs,
// which nobody here asks of them. krgd has mounts of its own; where it cannot, nothing is hidden.
class HiddenSymbols {
 public:
  HiddenSymbols() : hidden_(mount("/dev/null", kSymbols, nullptr, MS_BIND, nullptr) == 0) {}
  ~HiddenSymbols() {
    if (hidden_) umount2(kSymbols, MNT_DETACH);
  }
  HiddenSymbols(const HiddenSymbols&) = delete;
  HiddenSymbols& operator=(const HiddenSymbols&) = delete;

 private:
  static constexpr const char* kSymbols = "/proc/kallsyms";
  const bool hidden_;
};

Result<OfiEndpoint> open_endpoint(EventLoop& loop) {
  const HiddenSymbols hidden;
  return OfiEndpoint::open(loop, OfiOptions::from_environment());
}

}  // namespace

// MPI only exchanges addresses; after its end the ranks need neither it nor mpirun.
Status NodeTransport::Impl::meet_over_ofi(EventLoop& loop, MpiBoot& mpi, const Patience& patience) {
  auto endpoint = open_endpoint(loop);
  if (!endpoint) return endpoint.error();
  auto addresses = mpi.allgather(endpoint->address());
  if (!addresses) return addresses.error();
  auto transport = std::move(*endpoint).connect(mpi.self(), *addresses, &patience);
  if (!transport) return transport.error();
  wired = std::move(*transport);
  return mpi.finalize();
}

NodeTransport::NodeTransport() : impl_(std::make_unique<Impl>()) {}
NodeTransport::~NodeTransport() = default;

Result<std::unique_ptr<NodeTransport>> NodeTransport::boot(EventLoop& loop,
                                                           const Patience& patience) {
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
    auto transport = make_mpi_transport(loop, *made->impl_->mpi, &patience);
    if (!transport) return transport.error();
    made->impl_->wired = std::move(*transport);
    return made;
  }
  if (auto met = made->impl_->meet_over_ofi(loop, *mpi, patience); !met) return met.error();
  return made;
}

Transport& NodeTransport::get() {
  return impl_->alone ? impl_->alone->node(NodeId{0}) : *impl_->wired;
}

bool NodeTransport::needs_launcher() const {
  return impl_->mpi.has_value();
}

}  // namespace krg
