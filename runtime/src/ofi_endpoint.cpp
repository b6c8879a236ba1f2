// SPDX-License-Identifier: GPL-2.0-or-later
#include <rdma/fi_atomic.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_eq.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "endpoint_address.h"
#include "krg/runtime/log.h"
#include "ofi_handles.h"
#include "source_address.h"

namespace krg {
namespace {

constexpr uint32_t kFabricVersion = FI_VERSION(1, 15);
constexpr size_t kMaxAddressBytes = 256;

std::string environment_or(const char* name, std::string otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? std::string(value) : std::move(otherwise);
}

// Its fi_trywait(3) says yes to everything, and leaves the descriptor readable for ever after the
// first completion (libfabric 1.17); fi_wait(3) on a wait set does as it should. No later libfabric
// has the provider: there it is `tcp` itself.
constexpr const char* kNet = "net";
constexpr const char* kTcp = "tcp;ofi_rxm";

// Providers that talk IP take an address of this machine; others (shm, psm2) have names of their
// own.
bool speaks_ip(std::string_view provider) {
  for (std::string_view name : {"tcp", "udp", "sockets", "net", "verbs"})
    if (provider.substr(0, provider.find(';')) == name) return true;
  return false;
}

Result<FabricInfo> find_provider(const OfiOptions& options, const std::string& provider,
                                 uint64_t capabilities) {
  FabricInfo hints(fi_allocinfo());
  hints->caps = capabilities;
  hints->mode = FI_CONTEXT;
  hints->ep_attr->type = FI_EP_RDM;
  hints->tx_attr->msg_order = FI_ORDER_SAS;
  hints->rx_attr->msg_order = FI_ORDER_SAS;
  hints->domain_attr->threading = FI_THREAD_SAFE;
  hints->domain_attr->mr_mode = FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
  hints->fabric_attr->prov_name = strdup(provider.c_str());
  std::string node;
  if (speaks_ip(provider)) {
    auto address = source_address(options.interface);
    if (!address) return address.error();
    node = *address;
  }
  fi_info* found = nullptr;
  int returned = fi_getinfo(kFabricVersion, node.empty() ? nullptr : node.c_str(), nullptr,
                            node.empty() ? 0 : FI_SOURCE, hints.get(), &found);
  if (returned != 0) return ofi_error("libfabric provider " + provider, returned);
  return FabricInfo(found);
}

// With atomics where the provider has them.
Result<FabricInfo> find_provider(const OfiOptions& options) {
  const std::string wanted = options.provider;
  Result<FabricInfo> found = errno_error("no libfabric provider", ENODATA);
  for (const std::string& provider :
       wanted.empty() ? std::vector<std::string>{kNet, kTcp} : std::vector<std::string>{wanted})
    for (uint64_t capabilities : {FI_MSG | FI_RMA | FI_ATOMIC, FI_MSG | FI_RMA})
      if (found = find_provider(options, provider, capabilities); found) return found;
  return found;
}

// Whether the provider does the atomics of Transport itself.
bool supports_atomics(fid_ep* endpoint) {
  size_t count = 0;
  return fi_fetch_atomicvalid(endpoint, FI_UINT64, FI_SUM, &count) == 0 && count >= 1 &&
         fi_compare_atomicvalid(endpoint, FI_UINT64, FI_CSWAP, &count) == 0 && count >= 1;
}

template <class F, class Open>
Status open_fid(Fid<F>& to, const char* what, Open open) {
  F* opened = nullptr;
  if (int returned = open(&opened); returned != 0) return ofi_error(what, returned);
  to.reset(opened);
  return {};
}

Status open_objects(OfiEndpoint::Impl& e) {
  Status status = open_fid(e.fabric, "fi_fabric", [&](fid_fabric** to) {
    return fi_fabric(e.info->fabric_attr, to, nullptr);
  });
  if (!status) return status;
  status = open_fid(e.domain, "fi_domain", [&](fid_domain** to) {
    return fi_domain(e.fabric.get(), e.info.get(), to, nullptr);
  });
  if (!status) return status;
  fi_av_attr av{};
  av.type = FI_AV_TABLE;
  status = open_fid(e.addresses, "fi_av_open",
                    [&](fid_av** to) { return fi_av_open(e.domain.get(), &av, to, nullptr); });
  if (!status) return status;
  fi_cq_attr cq{};
  cq.format = FI_CQ_FORMAT_MSG;
  cq.wait_obj = FI_WAIT_FD;
  if (std::string_view(e.info->fabric_attr->prov_name) == kNet) {
    fi_wait_attr attributes{};
    attributes.wait_obj = FI_WAIT_FD;
    status = open_fid(e.waiter, "fi_wait_open",
                      [&](fid_wait** to) { return fi_wait_open(e.fabric.get(), &attributes, to); });
    if (!status) return status;
    cq.wait_obj = FI_WAIT_SET;
    cq.wait_set = e.waiter.get();
  }
  status = open_fid(e.completions, "fi_cq_open",
                    [&](fid_cq** to) { return fi_cq_open(e.domain.get(), &cq, to, nullptr); });
  if (!status) return status;
  return open_fid(e.endpoint, "fi_endpoint", [&](fid_ep** to) {
    return fi_endpoint(e.domain.get(), e.info.get(), to, nullptr);
  });
}

Status enable(OfiEndpoint::Impl& e) {
  int returned = fi_ep_bind(e.endpoint.get(), &e.addresses->fid, 0);
  if (returned == 0)
    returned = fi_ep_bind(e.endpoint.get(), &e.completions->fid, FI_TRANSMIT | FI_RECV);
  if (returned == 0) returned = fi_enable(e.endpoint.get());
  if (returned != 0) return ofi_error("fi_enable", returned);
  returned = fi_control(e.waiter ? &e.waiter->fid : &e.completions->fid, FI_GETWAIT, &e.wait_fd);
  if (returned != 0) return ofi_error("wait descriptor", returned);
  char name[kMaxAddressBytes];
  size_t length = sizeof name;
  returned = fi_getname(&e.endpoint->fid, name, &length);
  if (returned != 0) return ofi_error("fi_getname", returned);
  e.address = endpoint_address({name, length}, e.info->fabric_attr->prov_name);
  return {};
}

}  // namespace

Error ofi_error(std::string context, long returned) {
  // libfabric's own numbers start at 256 (FI_ERRNO_OFFSET); the others are errno values.
  const int number = static_cast<int>(returned < 0 ? -returned : returned);
  if (number < FI_ERRNO_OFFSET) return errno_error(std::move(context), number);
  return errno_error(std::move(context) + " (" + fi_strerror(number) + ")", EIO);
}

bool OfiEndpoint::Impl::may_block() {
  if (waiter) return fi_wait(waiter.get(), 0) == -FI_ETIMEDOUT;
  fid* queue = &completions->fid;
  return fi_trywait(fabric.get(), &queue, 1) == FI_SUCCESS;
}

OfiOptions OfiOptions::from_environment() {
  OfiOptions options;
  options.provider = environment_or("KRG_OFI_PROVIDER", options.provider);
  options.interface = environment_or("KRG_OFI_INTERFACE", "");
  return options;
}

OfiEndpoint::OfiEndpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
OfiEndpoint::OfiEndpoint(OfiEndpoint&&) noexcept = default;
OfiEndpoint& OfiEndpoint::operator=(OfiEndpoint&&) noexcept = default;
OfiEndpoint::~OfiEndpoint() = default;

Result<OfiEndpoint> OfiEndpoint::open(EventLoop& loop, const OfiOptions& options) {
  auto endpoint = std::make_unique<Impl>(loop);
  auto info = find_provider(options);
  if (!info) return info.error();
  const bool wants_atomics = ((*info)->caps & FI_ATOMIC) != 0;
  endpoint->info = std::move(*info);
  if (Status opened = open_objects(*endpoint); !opened) return opened.error();
  if (Status enabled = enable(*endpoint); !enabled) return enabled.error();
  endpoint->has_atomics = wants_atomics && supports_atomics(endpoint->endpoint.get());
  log_info("ofi", "provider {} fabric {}, atomics {}", endpoint->info->fabric_attr->prov_name,
           endpoint->info->fabric_attr->name,
           endpoint->has_atomics ? "of the provider" : "by messages");
  return OfiEndpoint(std::move(endpoint));
}

const std::string& OfiEndpoint::address() const {
  return impl_->address;
}

Result<std::unique_ptr<Transport>> OfiEndpoint::connect(NodeId self,
                                                        std::span<const std::string> addresses,
                                                        const Patience* patience) && {
  return make_ofi_transport(std::move(impl_), self, addresses, patience);
}

}  // namespace krg
