// SPDX-License-Identifier: GPL-2.0-or-later
#include "kradm_cluster.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <boost/program_options.hpp>
#include <chrono>
#include <filesystem>
#include <thread>

#include "cluster_finder.h"
#include "cluster_starter.h"
#include "memory_size.h"
#include "state_dir.h"

namespace krg {

using nlohmann::json;

namespace {

constexpr const char* kUsage =
    "usage: kradm cluster start [-N NODES] [-c PROCESSORS] [--mem-per-node=SIZE] [--balance] "
    "[--share-files=FOLDER] [--network=veth|host] [NAME]\n"
    "       kradm cluster stop [NAME]\n"
    "       kradm cluster status [--json] [NAME]\n";
constexpr const char* kDefaultName = "cluster";
constexpr std::chrono::seconds kStopLimit{10};

struct Options {
  std::string action, name, network, memory_text, shared_files;
  uint64_t memory_per_node = 0;
  bool balance = false;
  unsigned nodes = 1;
  unsigned processors_per_node = 0;
  bool as_json = false;
};

Result<Options> parse(std::span<const std::string> arguments) {
  namespace po = boost::program_options;
  Options options;
  po::options_description known;
  auto add = known.add_options();
  add("nodes,N", po::value(&options.nodes));
  add("cpus-per-task,c", po::value(&options.processors_per_node));
  add("mem-per-node", po::value(&options.memory_text));
  add("balance", po::bool_switch(&options.balance));
  add("share-files", po::value(&options.shared_files));
  add("network", po::value(&options.network)->default_value("veth"));
  add("json", po::bool_switch(&options.as_json));
  add("action", po::value(&options.action)->required());
  add("name", po::value(&options.name));
  po::positional_options_description positions;
  positions.add("action", 1).add("name", 1);
  try {
    po::variables_map given;
    const std::vector<std::string> words(arguments.begin(), arguments.end());
    po::store(po::command_line_parser(words).options(known).positional(positions).run(), given);
    po::notify(given);
  } catch (const po::error& error) {
    return text_error(error.what());
  }
  if (!options.memory_text.empty()) {
    auto bytes = parse_memory_size(options.memory_text);
    if (!bytes) return bytes.error();
    options.memory_per_node = *bytes;
  }
  if (!options.shared_files.empty()) {
    auto folder = parse_shared_folder(options.shared_files);
    if (!folder) return folder.error();
    options.shared_files = *folder;
  }
  if (options.nodes == 0) return text_error("-N needs at least one node");
  if (options.network != "veth" && options.network != "host")
    return text_error("--network is veth or host");
  if (options.name.find('/') != std::string::npos) return text_error("a cluster's name has no /");
  return options;
}

Status start(const Options& options) {
  ClusterPlan plan{.name = options.name.empty() ? kDefaultName : options.name,
                   .nodes = options.nodes,
                   .processors_per_node = options.processors_per_node,
                   .own_network = options.network == "veth",
                   .outlives_caller = true};
  set_memory_per_node(options.memory_per_node);
  set_balance(options.balance);
  set_shared_files(options.shared_files);
  auto cluster = RunningCluster::start_virtual(plan);
  if (!cluster) return cluster.error();
  cluster->keep_running();
  fmt::print("cluster {}: {} node{} running\n", plan.name, plan.nodes, plan.nodes == 1 ? "" : "s");
  return {};
}

Status stop(const Options& options) {
  auto path = find_cluster(options.name);
  if (!path) return path.error();
  if (!*path) return text_error("no cluster is running");
  if (!ask_to_shut_down(control_socket_path(**path, NodeId{0})))
    return text_error("the cluster does not answer");
  const std::string name = std::filesystem::path(**path).filename();
  const auto end = std::chrono::steady_clock::now() + kStopLimit;
  while (std::filesystem::exists(**path)) {
    if (std::chrono::steady_clock::now() > end)
      return text_error("cluster " + name + " does not end");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  fmt::print("cluster {}: stopped\n", name);
  return {};
}

void print_status(const json& status) {
  const json& failed = status.at("failed");
  fmt::print("cluster {}: {} nodes, {} failed\n", status.at("name").get<std::string>(),
             status.at("nodes").get<unsigned>(), failed.size());
  for (const json& job : status.at("jobs"))
    fmt::print("  job {}: {}\n", job.at("job").get<unsigned>(),
               fmt::join(job.at("options").value("command", std::vector<std::string>()), " "));
}

Status status(const Options& options) {
  auto krgd = connect_to_cluster(options.name);
  if (!krgd) return krgd.error();
  auto answer = krgd->call("cluster.status");
  if (!answer) return answer.error();
  if (options.as_json)
    fmt::print("{}\n", answer->result.dump(2));
  else
    print_status(answer->result);
  return {};
}

}  // namespace

int kradm_cluster(std::span<const std::string> arguments) {
  auto options = parse(arguments);
  Status done;
  if (!options)
    done = options.error();
  else if (options->action == "start")
    done = start(*options);
  else if (options->action == "stop")
    done = stop(*options);
  else if (options->action == "status")
    done = status(*options);
  else
    return fmt::print(stderr, "{}", kUsage), 2;
  if (done) return 0;
  fmt::print(stderr, "kradm cluster: {}\n", done.error().message());
  return options ? 1 : 2;
}

}  // namespace krg
