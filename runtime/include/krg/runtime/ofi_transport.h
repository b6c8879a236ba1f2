// The ofi transport: libfabric endpoints of type RDM. It comes up in two steps, so that addresses
// can be exchanged by whatever boots the cluster: open() makes the endpoint and tells its address,
// connect() takes everybody's addresses and gives the Transport. Connections are made when first
// used. Owner: krgd's main. Threads: the loop's thread; libfabric is only entered from there.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <span>
#include <string>

#include "krg/runtime/patience.h"
#include "krg/runtime/transport.h"

namespace krg {

struct OfiOptions {
  // libfabric's name of it; empty: the one for TCP, `net` where libfabric has it (1.17: messages
  // and one-sided operations straight on sockets), else `tcp;ofi_rxm`.
  std::string provider;
  // A network interface's name or one of this machine's IPv4 addresses; empty: the interface of the
  // default route, else the first that is up.
  std::string interface;

  // KRG_OFI_PROVIDER, KRG_OFI_INTERFACE.
  static OfiOptions from_environment();
};

class OfiEndpoint {
 public:
  struct Impl;  // known to the transport's own sources
  // Errors: no such provider or interface; what libfabric says. connect() too: a node with another
  // provider, which could not be spoken to.
  static Result<OfiEndpoint> open(EventLoop& loop, const OfiOptions& options);
  OfiEndpoint(OfiEndpoint&&) noexcept;
  OfiEndpoint& operator=(OfiEndpoint&&) noexcept;
  ~OfiEndpoint();

  // Where others reach this endpoint: opaque bytes, at most 256.
  const std::string& address() const;
  // The transport over this endpoint; `addresses` by node id, this node's own among them.
  // `patience`: outlives it; null: nobody asks for any.
  Result<std::unique_ptr<Transport>> connect(NodeId self, std::span<const std::string> addresses,
                                             const Patience* patience = nullptr) &&;

 private:
  explicit OfiEndpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
