// SPDX-License-Identifier: GPL-2.0-or-later
#include "kradm_nodes_change.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "cluster_finder.h"
#include "node_list.h"

namespace krg {
namespace {

using nlohmann::json;
using Kind = NodeSelection::Kind;
using Clock = std::chrono::steady_clock;

constexpr const char* kChangeUsage =
    "usage: kradm nodes add {-n LIST | -c COUNT | -t TOTAL | -a}\n"
    "       kradm nodes del {-n LIST | -c COUNT | -t TOTAL | -a} [--timeout SECONDS]\n";
constexpr std::chrono::milliseconds kLookPeriod{250};
// A process that was on its way when its node left is there at the next look.
constexpr unsigned kEmptyLooks = 2;

struct Options {
  Kind kind = Kind::kListed;
  std::string list;
  unsigned number = 0;
  std::optional<std::chrono::duration<double>> timeout;
};

Result<Options> parse(NodeChange change, std::span<const std::string> arguments) {
  namespace po = boost::program_options;
  Options options;
  unsigned count = 0, total = 0;
  double timeout_s = 0;
  bool all = false;
  po::options_description known;
  auto add = known.add_options();
  add("nodes,n", po::value(&options.list));
  add("count,c", po::value(&count));
  add("total,t", po::value(&total));
  add("all,a", po::bool_switch(&all));
  if (change == NodeChange::kDelete) add("timeout", po::value(&timeout_s));
  po::variables_map given;
  try {
    const std::vector<std::string> words(arguments.begin(), arguments.end());
    po::store(po::command_line_parser(words).options(known).run(), given);
    po::notify(given);
  } catch (const po::error& error) {
    return text_error(error.what());
  }
  if (given.count("nodes") + given.count("count") + given.count("total") + (all ? 1 : 0) != 1)
    return text_error("one of -n, -c, -t and -a says which nodes");
  if (given.contains("count")) options.kind = Kind::kCount;
  if (given.contains("total")) options.kind = Kind::kTotal;
  if (all) options.kind = Kind::kAll;
  options.number = given.contains("count") ? count : total;
  if (given.contains("timeout")) {
    if (timeout_s < 0) return text_error("--timeout takes a number of seconds");
    options.timeout = std::chrono::duration<double>(timeout_s);
  }
  return options;
}

Result<std::vector<NodeId>> select(NodeChange change, const Options& options, const json& nodes) {
  NodeSelection selection{.kind = options.kind, .listed = {}, .number = options.number};
  if (options.kind == Kind::kListed) {
    auto listed = parse_node_list(options.list, static_cast<unsigned>(nodes.size()));
    if (!listed) return listed.error();
    selection.listed = *listed;
  }
  std::vector<NodeId> online, present;
  for (const json& node : nodes) {
    const NodeId id{node.at("node").get<uint16_t>()};
    const auto state = node.at("state").get<std::string>();
    if (state == "online") online.push_back(id);
    if (state == "present" || state == "leaving") present.push_back(id);
  }
  return change == NodeChange::kAdd ? nodes_to_add(selection, online, present)
                                    : nodes_to_remove(selection, online);
}

// How many processes of the session execute on each of the nodes; krgd lists them by pages.
Result<std::map<NodeId, unsigned>> count_processes(ControlClient& krgd,
                                                   const std::vector<NodeId>& nodes) {
  std::map<NodeId, unsigned> counts;
  int after = 0;
  for (bool more = true; more;) {
    auto page = krgd.call("where", {{"after", after}});
    if (!page) return page.error();
    const json& processes = page->result.at("processes");
    for (const json& process : processes) {
      const NodeId node{process.at("node").get<uint16_t>()};
      if (std::find(nodes.begin(), nodes.end(), node) != nodes.end()) ++counts[node];
      after = process.at("pid").get<int>();
    }
    more = page->result.value("more", false) && !processes.empty();
  }
  return counts;
}

std::string describe(const std::map<NodeId, unsigned>& counts) {
  std::vector<std::string> parts;
  for (const auto& [node, count] : counts)
    parts.push_back(
        fmt::format("{} process{} on node {}", count, count == 1 ? "" : "es", node.value));
  return fmt::format("{}", fmt::join(parts, ", "));
}

// Processes cannot be moved yet: they have to end.
Status wait_until_empty(ControlClient& krgd, const std::vector<NodeId>& nodes,
                        const Options& options) {
  const auto start = Clock::now();
  bool told = false;
  for (unsigned empty = 0; empty < kEmptyLooks;) {
    auto counts = count_processes(krgd, nodes);
    if (!counts) return counts.error();
    empty = counts->empty() ? empty + 1 : 0;
    if (empty == kEmptyLooks) break;
    if (!counts->empty() && options.timeout && Clock::now() - start >= *options.timeout)
      return text_error("there is still " + describe(*counts) +
                        ", which cannot be moved; none comes any more");
    if (!counts->empty() && !told)
      fmt::print(stderr, "kradm nodes: waiting for the end of {}\n", describe(*counts));
    told = told || !counts->empty();
    std::this_thread::sleep_for(kLookPeriod);
  }
  return {};
}

Status carry_out(NodeChange change, const Options& options) {
  auto krgd = connect_to_cluster("");
  if (!krgd) return krgd.error();
  auto status = krgd->call("nodes.status");
  if (!status) return status.error();
  auto nodes = select(change, options, status->result.at("nodes"));
  if (!nodes) return nodes.error();
  std::vector<unsigned> numbers;
  for (NodeId node : *nodes) numbers.push_back(node.value);
  auto changed =
      krgd->call("nodes.set_online", {{"nodes", numbers}, {"online", change == NodeChange::kAdd}});
  if (!changed) return changed.error();
  if (change == NodeChange::kAdd || nodes->empty()) return {};
  return wait_until_empty(*krgd, *nodes, options);
}

}  // namespace

int kradm_change_nodes(NodeChange change, std::span<const std::string> arguments) {
  auto options = parse(change, arguments);
  if (!options) {
    fmt::print(stderr, "kradm nodes: {}\n{}", options.error().message(), kChangeUsage);
    return 2;
  }
  auto done = carry_out(change, *options);
  if (done) return 0;
  fmt::print(stderr, "kradm nodes: {}\n", done.error().message());
  return 1;
}

}  // namespace krg
