// The conformance suite: what every transport must do, run on each of them.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include "harness.h"
#include "message_scenarios.h"
#include "one_sided_scenarios.h"

namespace krg::test {
namespace {

constexpr unsigned kNodes = 4;

using HarnessMaker = std::unique_ptr<Harness> (*)();

class TransportConformance : public ::testing::TestWithParam<HarnessMaker> {
 protected:
  void run(const ScenarioFactory& make, std::optional<unsigned> dies = std::nullopt) {
    auto harness = GetParam()();
    if (auto reason = harness->why_not(); !reason.empty()) GTEST_SKIP() << reason;
    harness->run(kNodes, make, dies);
  }
};

TEST_P(TransportConformance, AllToAllInOrder) {
  run(scenario<AllToAllInOrder>());
}
TEST_P(TransportConformance, AllSizes) {
  run(scenario<AllSizes>());
}
TEST_P(TransportConformance, RoundTrips) {
  run(scenario<RoundTrips>());
}
TEST_P(TransportConformance, BackPressure) {
  run(scenario<BackPressure>());
}
TEST_P(TransportConformance, OneSidedOfOddSizes) {
  run(scenario<OneSidedOfOddSizes>());
}
TEST_P(TransportConformance, ContendedAtomics) {
  run(scenario<ContendedAtomics>());
}
// What only a transport that reports deaths can do: the mpi one does not (docs/LIMITS.md).
class TransportDeath : public TransportConformance {};

TEST_P(TransportDeath, DeathOfANode) {
  run(scenario<DeathOfANode>(), kNodes - 1);
}
TEST_P(TransportDeath, DeathInSilence) {
  run(scenario<DeathInSilence>(), kNodes - 1);
}

std::string name_of(const ::testing::TestParamInfo<HarnessMaker>& info) {
  return info.param()->name();
}

const auto kLoopback = ::testing::Values(
    +[] { return loopback_harness(std::nullopt); }, +[] { return loopback_harness(1); },
    +[] { return loopback_harness(2024); });
const auto kOfi = ::testing::Values(
    +[] { return ofi_harness("net"); }, +[] { return ofi_harness("tcp;ofi_rxm"); });

INSTANTIATE_TEST_SUITE_P(Loopback, TransportConformance, kLoopback, name_of);
INSTANTIATE_TEST_SUITE_P(Loopback, TransportDeath, kLoopback, name_of);
INSTANTIATE_TEST_SUITE_P(Ofi, TransportConformance, kOfi, name_of);
INSTANTIATE_TEST_SUITE_P(Ofi, TransportDeath, kOfi, name_of);
INSTANTIATE_TEST_SUITE_P(Mpi, TransportConformance, ::testing::Values(&mpi_harness), name_of);

}  // namespace
}  // namespace krg::test
