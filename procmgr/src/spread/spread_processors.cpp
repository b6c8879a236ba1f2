// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_processors.h"

namespace krg {
namespace {

constexpr std::chrono::hours kMaxAge{24};  // a node's processors stay what they are

}  // namespace

void SpreadProcessors::divide(const ProcessorSet& wanted, std::function<void(const Parts&)> done) {
  resources_.get(kMaxAge, [wanted, done = std::move(done)](const std::vector<NodeReport>& reports) {
    Parts parts;
    unsigned first = 0;
    for (const NodeReport& report : reports) {
      const unsigned end = first + report.figures.processors;
      for (auto at = wanted.lower_bound(first); at != wanted.end() && *at < end; ++at)
        parts[report.node].insert(*at - first);
      first = end;
    }
    done(parts);
  });
}

void SpreadProcessors::name(const ProcessorSet& own,
                            std::function<void(const ProcessorSet&)> done) {
  resources_.get(kMaxAge, [this, own, done = std::move(done)](const auto&) {
    done(to_cluster(own, {resources_.own_processors(), resources_.first_processor(),
                          resources_.total_processors()}));
  });
}

ProcessorSet SpreadProcessors::part(const ProcessorSet& wanted, NodeId node) const {
  unsigned first = 0;
  for (const NodeReport& report : resources_.known()) {
    const unsigned end = first + report.figures.processors;
    if (report.node == node) return {wanted.lower_bound(first), wanted.lower_bound(end)};
    first = end;
  }
  return {};
}

ProcessorSet SpreadProcessors::own_numbers(const ProcessorSet& part) const {
  const std::vector<unsigned>& own = resources_.own_processors();
  const auto some = to_node(part, {.own = own});
  return some ? *some : ProcessorSet(own.begin(), own.end());
}

}  // namespace krg
