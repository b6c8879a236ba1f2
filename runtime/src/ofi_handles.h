// What libfabric hands out, each closed by its owner, and an endpoint with all that belongs to it.
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>

#include <memory>
#include <string>

#include "krg/runtime/ofi_transport.h"

namespace krg {

struct CloseFid {
  template <class F>
  void operator()(F* object) const noexcept {
    fi_close(&object->fid);
  }
};
template <class F>
using Fid = std::unique_ptr<F, CloseFid>;

struct FreeInfo {
  void operator()(fi_info* info) const noexcept { fi_freeinfo(info); }
};
using FabricInfo = std::unique_ptr<fi_info, FreeInfo>;

// An Error from what a libfabric call returned (a negative errno value).
Error ofi_error(std::string context, long returned);

// Members are closed in reverse order.
struct OfiEndpoint::Impl {
  EventLoop& loop;
  FabricInfo info;
  Fid<fid_fabric> fabric;
  Fid<fid_domain> domain;
  Fid<fid_av> addresses;
  Fid<fid_wait> waiter;  // what the queue's waiting is done by, where fi_trywait(3) does not help
  Fid<fid_cq> completions;
  Fid<fid_ep> endpoint;
  bool has_atomics = false;  // else they go by messages
  int wait_fd = -1;          // readable when there is something to do; the queue's
  std::string address;       // with the provider's name behind it (endpoint_address.h)

  explicit Impl(EventLoop& l) : loop(l) {}
  // Whether wait_fd may be waited for: nothing is there to be read, and what comes makes it
  // readable.
  bool may_block();
};

// The transport over an open endpoint.
Result<std::unique_ptr<Transport>> make_ofi_transport(std::unique_ptr<OfiEndpoint::Impl> endpoint,
                                                      NodeId self,
                                                      std::span<const std::string> addresses,
                                                      const Patience* patience);

}  // namespace krg
