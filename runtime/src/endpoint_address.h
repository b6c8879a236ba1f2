// What nodes tell each other of their libfabric endpoints: the provider's own name of the endpoint,
// and behind it the provider, since two of them may not be able to speak to each other though their
// endpoints look alike. Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"

namespace krg {

inline std::string endpoint_address(std::string_view name, std::string_view provider) {
  return fmt::format("{}@{}", name, provider);
}

// The endpoint's own name. Errors: the node has another provider than this one.
inline Result<std::string> endpoint_name(NodeId node, const std::string& address,
                                         std::string_view provider) {
  const size_t at = address.rfind('@');
  if (at == std::string::npos || std::string_view(address).substr(at + 1) != provider)
    return text_error(fmt::format(
        "node {} uses the libfabric provider {}, this node {}: have the same libfabric on all "
        "nodes, or set KRG_OFI_PROVIDER to one that all have (tcp;ofi_rxm)",
        node.value, at == std::string::npos ? "(none)" : address.substr(at + 1), provider));
  return address.substr(0, at);
}

}  // namespace krg
