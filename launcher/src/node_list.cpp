// SPDX-License-Identifier: GPL-2.0-or-later
#include "node_list.h"

#include <fmt/core.h>

#include <charconv>
#include <optional>
#include <set>

namespace krg {
namespace {

std::optional<unsigned> parse_number(std::string_view text) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Error too_few(size_t wanted, size_t there) {
  return text_error(fmt::format("{} nodes asked for, there are {}", wanted, there));
}

// So many of the nodes are to change for `total` of them to be on the other side.
Result<size_t> how_many(const NodeSelection& selection, size_t candidates,
                        size_t change_for_total) {
  if (selection.kind == NodeSelection::Kind::kAll) return candidates;
  const size_t wanted =
      selection.kind == NodeSelection::Kind::kCount ? selection.number : change_for_total;
  if (wanted > candidates) return too_few(wanted, candidates);
  return wanted;
}

}  // namespace

Result<std::vector<NodeId>> parse_node_list(std::string_view text, unsigned node_count) {
  std::set<NodeId> nodes;
  for (bool more = true; more;) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    more = comma != std::string_view::npos;
    if (more) text.remove_prefix(comma + 1);
    const size_t dash = part.find_first_of("-:");
    const auto first = parse_number(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : parse_number(part.substr(dash + 1));
    if (!first || !last || *first > *last)
      return text_error(
          fmt::format("a list of nodes is ID or A-B or A:B, by commas, not {}", part));
    if (*last >= node_count)
      return text_error(fmt::format("there is no node {}: the last is {}", *last, node_count - 1));
    for (unsigned id = *first; id <= *last; ++id) nodes.insert(NodeId{static_cast<uint16_t>(id)});
  }
  return std::vector<NodeId>(nodes.begin(), nodes.end());
}

Result<std::vector<NodeId>> nodes_to_add(const NodeSelection& selection,
                                         const std::vector<NodeId>& online,
                                         const std::vector<NodeId>& present) {
  if (selection.kind == NodeSelection::Kind::kListed) return selection.listed;
  const size_t missing = selection.number > online.size() ? selection.number - online.size() : 0;
  auto count = how_many(selection, present.size(), missing);
  if (!count) return count.error();
  return std::vector<NodeId>(present.begin(), present.begin() + static_cast<long>(*count));
}

Result<std::vector<NodeId>> nodes_to_remove(const NodeSelection& selection,
                                            const std::vector<NodeId>& online) {
  if (selection.kind == NodeSelection::Kind::kListed) return selection.listed;
  std::vector<NodeId> candidates;
  for (NodeId node : online)
    if (node.value != 0) candidates.push_back(node);
  const size_t extra = online.size() > selection.number ? online.size() - selection.number : 0;
  auto count = how_many(selection, candidates.size(), extra);
  if (!count) return count.error();
  return std::vector<NodeId>(candidates.end() - static_cast<long>(*count), candidates.end());
}

}  // namespace krg
