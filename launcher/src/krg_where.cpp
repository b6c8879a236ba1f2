// krg_where: on which node a process executes; without pids, all processes of the session.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <getopt.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <vector>

#include "krg/runtime/control_client.h"

namespace krg {
namespace {

constexpr int kFailure = 1;
constexpr int kUsageError = 2;

constexpr const char* kHelp =
    R"(Usage: krg_where [--json] [--threads] [PID…]
Shows the node on which each process executes, one a line: pid, node, host
name, command. Without PID: all processes of the session, with a title.
  -j, --json    print JSON
  -t, --threads also the threads of processes that are spread over nodes:
                their ids in place of the pid, their nodes
  -h, --help    -V, --version
Exit status: 0; 1 when a PID does not exist; 2 for a wrong option.
)";

struct Options {
  bool json = false, threads = false;
  std::vector<pid_t> pids;
};

constexpr option kLongOptions[] = {
    {"json", no_argument, nullptr, 'j'},
    {"threads", no_argument, nullptr, 't'},
    {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'V'},
    {nullptr, 0, nullptr, 0},
};

// Exits after --help and --version, and for what getopt has complained about itself.
std::optional<Options> parse_options(int argc, char** argv) {
  Options options;
  for (int c; (c = getopt_long(argc, argv, "jthV", kLongOptions, nullptr)) != -1;) {
    switch (c) {
      case 'j':
        options.json = true;
        break;
      case 't':
        options.threads = true;
        break;
      case 'h':
        fmt::print("{}", kHelp);
        exit(EXIT_SUCCESS);
      case 'V':
        fmt::print("krg_where (Kerrighed) {}\n", KRG_VERSION);
        exit(EXIT_SUCCESS);
      default:
        exit(kUsageError);
    }
  }
  for (int i = optind; i < argc; ++i) {
    char* end = nullptr;
    long pid = strtol(argv[i], &end, 10);
    if (*end || pid <= 0 || pid > INT32_MAX) {
      fmt::print(stderr, "krg_where: '{}' is no pid\n", argv[i]);
      return std::nullopt;
    }
    options.pids.push_back(static_cast<pid_t>(pid));
  }
  return options;
}

// Every process of the session, by pid: krgd hands them out a page at a time.
Result<nlohmann::json> find_all(ControlClient& krgd) {
  nlohmann::json all = nlohmann::json::array();
  for (bool more = true; more;) {
    int after = all.empty() ? 0 : all.back().value("pid", 0);
    Result<ControlClient::Answer> page = krgd.call("where", {{"after", after}});
    if (!page) return page.error();
    more = page->result.value("more", false);
    for (nlohmann::json& process : page->result["processes"]) all.push_back(std::move(process));
  }
  return all;
}

void print_table(const nlohmann::json& processes, bool has_title, bool has_threads) {
  if (has_title) fmt::print("{:>7} {:>4} {:<15} {}\n", "PID", "NODE", "HOST", "COMMAND");
  for (const nlohmann::json& p : processes) {
    fmt::print("{:>7} {:>4} {:<15} {}\n", p.value("pid", 0), p.value("node", 0),
               p.value("host", ""), p.value("command", ""));
    if (!has_threads) continue;
    for (const nlohmann::json& thread : p.value("threads", nlohmann::json::array()))
      fmt::print("{:>7} {:>4} {:<15} {}\n", thread.value("tid", 0), thread.value("node", 0), "-",
                 "- thread");
  }
}

int run(const Options& options) {
  Result<ControlClient> krgd = ControlClient::connect_to_session();
  if (!krgd) {
    fmt::print(stderr, "krg_where: {}\n", krgd.error().message());
    return kFailure;
  }
  Result<nlohmann::json> all = find_all(*krgd);
  if (!all) {
    fmt::print(stderr, "krg_where: {}\n", all.error().message());
    return kFailure;
  }
  nlohmann::json shown = options.pids.empty() ? *all : nlohmann::json::array();
  int status = EXIT_SUCCESS;
  for (pid_t pid : options.pids) {
    auto found = std::find_if(all->begin(), all->end(),
                              [pid](const auto& p) { return p.value("pid", 0) == pid; });
    if (found != all->end()) {
      shown.push_back(*found);
    } else {
      fmt::print(stderr, "krg_where: no process {}\n", pid);
      status = kFailure;
    }
  }
  if (options.json) {
    fmt::print("{}\n", shown.dump());
  } else {
    print_table(shown, options.pids.empty(), options.threads);
  }
  return status;
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  std::optional<krg::Options> options = krg::parse_options(argc, argv);
  return options ? krg::run(*options) : krg::kUsageError;
}
