// SPDX-License-Identifier: GPL-2.0-or-later
#include "endpoint_address.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

// Any bytes, as an endpoint's name has them.
const std::string kName = std::string("\x02\x00@\x1f\x00", 5);

TEST(EndpointAddress, GivesTheNameBack) {
  auto name = endpoint_name(NodeId{3}, endpoint_address(kName, "net"), "net");
  ASSERT_TRUE(name);
  EXPECT_EQ(*name, kName);
}

TEST(EndpointAddress, RefusesANodeWithAnotherProvider) {
  auto name = endpoint_name(NodeId{3}, endpoint_address(kName, "tcp;ofi_rxm"), "net");
  ASSERT_FALSE(name);
  EXPECT_EQ(
      name.error().message(),
      "node 3 uses the libfabric provider tcp;ofi_rxm, this node net: have the same libfabric "
      "on all nodes, or set KRG_OFI_PROVIDER to one that all have (tcp;ofi_rxm)");
  EXPECT_FALSE(endpoint_name(NodeId{3}, "a", "net"));
}

}  // namespace
}  // namespace krg
