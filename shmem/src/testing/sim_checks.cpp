// The simulator's invariants.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "kddm_steps.h"
#include "sim_cluster.h"

namespace krg::kddm {
namespace {

// Clusters up to this size are checked entry by entry after each step; larger ones now and then.
constexpr unsigned kSmallCluster = 4;
constexpr unsigned kStepsBetweenChecks = 64;

}  // namespace

SimCluster::Tally SimCluster::tally_of(const Entry& entry) {
  // Who still reads an object that was lost does not stand in the way of its successor.
  const bool of_lost = entry.drop_when_unpinned && entry.deferred_acks.empty();
  return {is_owner(entry), entry.writer, of_lost ? 0 : static_cast<int>(entry.readers)};
}

bool SimCluster::expect(bool holds, std::string_view what, unsigned object) {
  if (!holds && failure_.empty())
    failure_ = fmt::format("{} (object {}, step {}): {}", what, object, steps_run_, states(object));
  return holds;
}

void SimCluster::check_step(unsigned object) {
  const Tally& sums = tallies_[object];
  expect(sums.owners <= 1, "two owners", object);
  expect(sums.writers <= 1, "two writers", object);
  expect(sums.writers == 0 || sums.readers == 0, "a reader beside a writer", object);
  if (recovering_) return;  // half of the nodes know already
  if (options_.nodes <= kSmallCluster || steps_run_ % kStepsBetweenChecks == 0)
    check_entries(object);
}

void SimCluster::check_entries(unsigned object) {
  Tally sums;
  const Object* owner = nullptr;
  for (const Node& node : nodes_) {
    if (!node.alive) continue;
    const Object& at = node.objects[object];
    const Tally share = tally_of(at.entry);
    sums = {sums.owners + share.owners, sums.writers + share.writers, sums.readers + share.readers};
    if (at.entry.state == State::kReadOwner || at.entry.state == State::kWriteOwner) owner = &at;
  }
  expect(sums == tallies_[object], "the simulator's sums are wrong", object);
  if (!owner) return;
  for (unsigned n = 0; n < options_.nodes; ++n) {
    const Object& at = nodes_[n].objects[object];
    if (!nodes_[n].alive || &at == owner || !at.entry.has_data || at.entry.drop_when_unpinned)
      continue;
    if (!expect(owner->entry.copyset.contains(NodeId{static_cast<uint16_t>(n)}),
                "a copy that the owner does not know of", object))
      return;
    expect(at.data == owner->data, "a stale copy", object);
  }
}

void SimCluster::check_end() {
  for (const Node& node : nodes_)
    for (const Thread& thread : node.threads)
      if (node.alive) expect(!thread.waiting, "an operation hangs", thread.object);
  for (unsigned o = 0; o < options_.objects; ++o) {
    check_entries(o);
    expect(tallies_[o].owners == 1, "an object without an owner", o);
    for (const Node& node : nodes_) {
      const Entry& entry = node.objects[o].entry;
      if (!node.alive || !is_owner(entry)) continue;
      expect(entry.state == State::kInvOwner || entry.state == State::kReadOwner ||
                 entry.state == State::kWriteOwner,
             "an owner that still waits", o);
    }
  }
  if (const std::string wrong = accesses_.violation(); !wrong.empty())
    expect(false, "not sequentially consistent: " + wrong, 0);
}

std::string SimCluster::states(unsigned object) const {
  std::string text;
  for (size_t n = 0; n < nodes_.size(); ++n) {
    const Entry& e = nodes_[n].objects[object].entry;
    if (!nodes_[n].alive || (e.state == State::kInvCopy && e.waiting.empty() &&
                             e.requests.empty() && e.acks_missing == 0 && e.readers == 0))
      continue;
    text += fmt::format("n{} {} v{} waiting {} requests {} acks {} readers {}{}{}{} removals {}; ",
                        n, name_of(e.state), e.version, e.waiting.size(), e.requests.size(),
                        e.acks_missing, e.readers, e.read_outstanding ? " R" : "",
                        e.write_outstanding ? " W" : "", e.drop_when_unpinned ? " D" : "",
                        e.removals.size());
  }
  return text;
}

}  // namespace krg::kddm
