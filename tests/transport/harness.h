// How the conformance suite runs a scenario on N nodes, one way per transport.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <optional>
#include <string>

#include "scenario.h"

namespace krg::test {

class Harness {
 public:
  virtual ~Harness() = default;
  virtual std::string name() const = 0;
  // Empty when it can run here, else the reason why not.
  virtual std::string why_not() const { return {}; }
  // Runs the scenario on all nodes until each is done; failures are GoogleTest's. `dies`: the node
  // that will call die().
  virtual void run(unsigned nodes, const ScenarioFactory& make, std::optional<unsigned> dies) = 0;
};

std::unique_ptr<Harness> loopback_harness(std::optional<uint64_t> seed);
// Nodes are processes on 127.0.0.1.
std::unique_ptr<Harness> ofi_harness(const std::string& provider);
// Nodes are the ranks of this MPI job; needs to be started by mpirun.
std::unique_ptr<Harness> mpi_harness();

}  // namespace krg::test
