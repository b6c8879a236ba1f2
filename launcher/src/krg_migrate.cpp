// krg_migrate: moves running processes to another node.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <getopt.h>
#include <pwd.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "krg/runtime/control_client.h"
#include "number_word.h"

namespace krg {
namespace {

constexpr int kFailure = 1;
constexpr int kUsageError = 2;

constexpr const char* kHelp =
    R"(Usage: krg_migrate [-f] PID… NODE
       krg_migrate -u USER [-n FROM] NODE
Moves processes to a node while they run; of a process whose threads are on
several nodes (krg_where --threads) one thread, by its own number: PID is the
first one. A process needs the capability
CAN_MIGRATE (krg_capset -e +CAN_MIGRATE PID, or krgrun --caps=+CAN_MIGRATE).
  -f, --family      each PID with all its descendants
  -u, --user USER   all processes of a user (name or number)
  -n, --from NODE   of those only the ones that execute on this node
  -h, --help    -V, --version
What cannot move stays where it is, untouched; the reason is told.
Exit status: 0; 1 when a process did not move; 2 for a wrong option.
)";

struct Options {
  bool family = false;
  std::optional<uid_t> user;
  std::optional<unsigned> from;
  std::vector<pid_t> pids;
  unsigned node = 0;
};

constexpr option kLongOptions[] = {
    {"family", no_argument, nullptr, 'f'},     {"user", required_argument, nullptr, 'u'},
    {"from", required_argument, nullptr, 'n'}, {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'V'},    {nullptr, 0, nullptr, 0},
};

int usage_error(const std::string& why) {
  fmt::print(stderr, "krg_migrate: {}\nTry 'krg_migrate --help'.\n", why);
  return kUsageError;
}

std::optional<uid_t> user_of(const std::string& text) {
  if (const passwd* entry = getpwnam(text.c_str())) return entry->pw_uid;
  if (auto number = number_of(text)) return static_cast<uid_t>(*number);
  return std::nullopt;
}

// Exits after --help and --version. Error: what is wrong.
Result<Options> parse_options(int argc, char** argv) {
  Options options;
  for (int c; (c = getopt_long(argc, argv, "fu:n:hV", kLongOptions, nullptr)) != -1;) {
    switch (c) {
      case 'f':
        options.family = true;
        break;
      case 'u':
        options.user = user_of(optarg);
        if (!options.user) return text_error(fmt::format("there is no user '{}'", optarg));
        break;
      case 'n':
        if (auto number = number_of(optarg)) options.from = static_cast<unsigned>(*number);
        if (!options.from) return text_error(fmt::format("'{}' is no node", optarg));
        break;
      case 'h':
        fmt::print("{}", kHelp);
        exit(EXIT_SUCCESS);
      case 'V':
        fmt::print("krg_migrate (Kerrighed) {}\n", KRG_VERSION);
        exit(EXIT_SUCCESS);
      default:
        exit(kUsageError);
    }
  }
  const int words = argc - optind;
  if (options.user ? words != 1 : words < 2)
    return text_error(options.user ? "one NODE is wanted" : "PID and NODE are wanted");
  if (options.from && !options.user) return text_error("--from goes with --user");
  for (int i = optind; i + 1 < argc; ++i) {
    const auto pid = number_of(argv[i]);
    if (!pid || *pid == 0) return text_error(fmt::format("'{}' is no pid", argv[i]));
    options.pids.push_back(static_cast<pid_t>(*pid));
  }
  const auto node = number_of(argv[argc - 1]);
  if (!node) return text_error(fmt::format("'{}' is no node", argv[argc - 1]));
  options.node = static_cast<unsigned>(*node);
  return options;
}

struct Process {
  pid_t pid = 0, parent = 0;
  unsigned node = 0;
  uid_t user = 0;
};

// The parent and the owner of a process anywhere, as the session's /proc shows them.
void look_up(Process& process) {
  const std::string directory = fmt::format("/proc/{}", process.pid);
  struct stat owner {};
  if (stat(directory.c_str(), &owner) == 0) process.user = owner.st_uid;
  std::ifstream status(directory + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("PPid:", 0) == 0) process.parent = std::atoi(line.c_str() + 5);
}

Result<std::vector<Process>> all_processes(ControlClient& krgd) {
  std::vector<Process> all;
  for (bool more = true; more;) {
    const pid_t after = all.empty() ? 0 : all.back().pid;
    Result<ControlClient::Answer> page = krgd.call("where", {{"after", after}});
    if (!page) return page.error();
    more = page->result.value("more", false);
    for (const nlohmann::json& process : page->result["processes"])
      all.push_back({process.value("pid", 0), 0, process.value("node", 0u), 0});
  }
  for (Process& process : all) look_up(process);
  return all;
}

// `roots` and all that descend from them, each once.
std::vector<pid_t> families_of(const std::vector<pid_t>& roots, const std::vector<Process>& all) {
  std::vector<pid_t> found = roots;
  for (size_t i = 0; i < found.size(); ++i)
    for (const Process& process : all)
      if (process.parent == found[i] &&
          std::find(found.begin(), found.end(), process.pid) == found.end())
        found.push_back(process.pid);
  return found;
}

Result<std::vector<pid_t>> chosen(ControlClient& krgd, const Options& options) {
  if (!options.user && !options.family) return options.pids;
  auto all = all_processes(krgd);
  if (!all) return all.error();
  if (options.family) return families_of(options.pids, *all);
  std::vector<pid_t> pids;
  for (const Process& process : *all)
    if (process.user == *options.user && (!options.from || process.node == *options.from) &&
        process.pid != getpid())
      pids.push_back(process.pid);
  return pids;
}

int run(const Options& options) {
  Result<ControlClient> krgd = ControlClient::connect_to_session();
  auto pids = krgd ? chosen(*krgd, options) : krgd.error();
  if (!pids) {
    fmt::print(stderr, "krg_migrate: {}\n", pids.error().message());
    return kFailure;
  }
  int status = EXIT_SUCCESS;
  for (pid_t pid : *pids) {
    auto moved = krgd->call("migrate", {{"pid", pid}, {"node", options.node}});
    if (moved) continue;
    fmt::print(stderr, "krg_migrate: {}: {}\n", pid, moved.error().message());
    status = kFailure;
  }
  return status;
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  auto options = krg::parse_options(argc, argv);
  return options ? krg::run(*options) : krg::usage_error(options.error().message());
}
