// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include "harness.h"
#include "krg/runtime/loopback_transport.h"

namespace krg::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{30};

class LoopbackHarness final : public Harness {
 public:
  explicit LoopbackHarness(std::optional<uint64_t> seed) : seed_(seed) {}
  std::string name() const override {
    return seed_ ? "LoopbackSeed" + std::to_string(*seed_) : "Loopback";
  }
  void run(unsigned nodes, const ScenarioFactory& make, std::optional<unsigned>) override {
    auto loop = EventLoop::create();
    ASSERT_TRUE(loop);
    LoopbackFabric fabric(*loop, {.nodes = nodes, .seed = seed_});
    std::vector<std::unique_ptr<Scenario>> scenarios;
    std::vector<bool> dead(nodes, false);
    for (unsigned n = 0; n < nodes; ++n) {
      auto die = [&, n] {
        dead[n] = true;
        fabric.kill(node_id(n), LoopbackFabric::Death::kNoticed);
      };
      scenarios.push_back(make({fabric.node(node_id(n)), die}));
    }
    for (auto& s : scenarios) s->prepare();
    for (auto& s : scenarios) s->start();
    const auto give_up = steady_clock::now() + kPatience;
    auto all_done = [&] {
      for (unsigned n = 0; n < nodes; ++n)
        if (!dead[n] && !scenarios[n]->done()) return false;
      return true;
    };
    while (!all_done()) {
      ASSERT_LT(steady_clock::now(), give_up) << "the scenario hangs";
      loop->run_once(milliseconds(10));
    }
  }

 private:
  std::optional<uint64_t> seed_;
};

}  // namespace

std::unique_ptr<Harness> loopback_harness(std::optional<uint64_t> seed) {
  return std::make_unique<LoopbackHarness>(seed);
}

}  // namespace krg::test
