// What the conformance suite does on each node, written once for all transports: a Scenario is
// started on every node, reacts to what arrives, and is done at some time. How the nodes are run
// (in one process, as processes, under mpirun) is the harness's business.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>

#include "krg/runtime/transport.h"

namespace krg::test {

// One node of the suite.
struct Node {
  Transport& transport;
  std::function<void()> die;  // does not return where a node is a process
};

class Scenario {
 public:
  explicit Scenario(Node node) : node_(std::move(node)) {}
  virtual ~Scenario() = default;
  // Sets handlers; runs on every node before start() runs on any.
  virtual void prepare() = 0;
  virtual void start() = 0;
  virtual bool done() const = 0;

 protected:
  Transport& transport() const { return node_.transport; }
  unsigned self() const { return transport().self().value; }
  unsigned nodes() const { return transport().node_count(); }
  Node node_;
};

using ScenarioFactory = std::function<std::unique_ptr<Scenario>(Node)>;
template <class S>
ScenarioFactory scenario() {
  return [](Node node) { return std::make_unique<S>(std::move(node)); };
}

inline NodeId node_id(unsigned n) {
  return NodeId{static_cast<uint16_t>(n)};
}

}  // namespace krg::test
