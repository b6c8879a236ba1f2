// krg_capset: shows and changes the capabilities of a process anywhere in the cluster, as the
// original's krgcapset(1): same options, same output, same question.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <getopt.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "krg/procmgr/capabilities.h"
#include "krg/runtime/control_client.h"

namespace krg {
namespace {

constexpr int kFailure = 1;
constexpr int kUsageError = 2;

constexpr const char* kHelp =
    R"(Usage: krg_capset [PID] -l
       krg_capset [PID] [-f] {-e|-p|-d|-i {[+|-]NAME[,…] | OCTAL}}…

Shows or changes the capabilities of a process of the cluster; without PID, of
the process that runs krg_capset (the shell).
  -l, -s, --list, --show           show the four sets
  -e, --effective SET              what the process itself may use
  -p, --permitted SET              the most that the other sets may hold; only shrinks
  -d, --inheritable-effective SET  what its children will have effective
  -i, --inheritable-permitted SET  what its children will have permitted
  -f, --father, --force            act on the father (the default), and never ask
  -k, --pid PID                    the process, as a PID without option
  -h, --help    -v, --version

The capabilities that can be set:
)";

// A set that is to change, and what the user typed for it.
struct Edit {
  CapabilitySet CapabilitySets::*set;
  std::string text;
};

struct Options {
  pid_t pid = 0;
  bool show = false;
  bool force = false;
  std::vector<Edit> edits;
};

int usage_error(const std::string& why) {
  fmt::print(stderr, "krg_capset: {}\nTry 'krg_capset --help'.\n", why);
  return kUsageError;
}

Result<pid_t> parse_pid(const char* text) {
  char* end = nullptr;
  errno = 0;
  long pid = strtol(text, &end, 10);
  if (errno || end == text || *end || pid <= 0 || pid > INT32_MAX)
    return text_error(fmt::format("'{}' is no pid", text));
  return static_cast<pid_t>(pid);
}

constexpr option kLongOptions[] = {
    {"list", no_argument, nullptr, 'l'},
    {"show", no_argument, nullptr, 's'},
    {"father", no_argument, nullptr, 'f'},
    {"force", no_argument, nullptr, 'f'},
    {"pid", required_argument, nullptr, 'k'},
    {"effective", required_argument, nullptr, 'e'},
    {"permitted", required_argument, nullptr, 'p'},
    {"inheritable-effective", required_argument, nullptr, 'd'},
    {"inheritable-permitted", required_argument, nullptr, 'i'},
    {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'v'},
    {nullptr, 0, nullptr, 0},
};

[[noreturn]] void show_help() {
  fmt::print("{}  {}\n", kHelp, capability_names(kSupportedCapabilities, "\n  "));
  exit(EXIT_SUCCESS);
}

// Exits after --help, --version and what getopt has complained about itself.
Result<Options> parse_options(int argc, char** argv) {
  Options options;
  auto edit = [&options](CapabilitySet CapabilitySets::*set) {
    options.edits.push_back({set, optarg});
  };
  auto take_pid = [&options](const char* text) -> Status {
    Result<pid_t> pid = parse_pid(text);
    if (!pid) return pid.error();
    options.pid = *pid;
    return {};
  };
  for (int c; (c = getopt_long(argc, argv, "lsfk:e:p:d:i:hv", kLongOptions, nullptr)) != -1;) {
    switch (c) {
      case 'l':
      case 's':
        options.show = true;
        break;
      case 'f':
        options.force = true;
        break;
      case 'e':
        edit(&CapabilitySets::effective);
        break;
      case 'p':
        edit(&CapabilitySets::permitted);
        break;
      case 'd':
        edit(&CapabilitySets::inheritable_effective);
        break;
      case 'i':
        edit(&CapabilitySets::inheritable_permitted);
        break;
      case 'k':
        if (Status taken = take_pid(optarg); !taken) return taken.error();
        break;
      case 'h':
        show_help();
      case 'v':
        fmt::print("krg_capset (Kerrighed) {}\n", KRG_VERSION);
        exit(EXIT_SUCCESS);
      default:
        exit(kUsageError);
    }
  }
  if (argc - optind > 1) return text_error("more than one pid");
  if (optind < argc)
    if (Status taken = take_pid(argv[optind]); !taken) return taken.error();
  if (!options.show && options.edits.empty()) return text_error("nothing to show or to change");
  // Started by krgrun itself, which is outside of the session, krg_capset has no father to see.
  if (options.pid == 0) options.pid = getppid() > 0 ? getppid() : getpid();
  return options;
}

CapabilitySets sets_from(const nlohmann::json& json) {
  auto set = [&json](const char* name) { return CapabilitySet{json.value(name, 0u)}; };
  return {set("effective"), set("permitted"), set("inheritable_effective"),
          set("inheritable_permitted")};
}

nlohmann::json as_arguments(pid_t pid, const CapabilitySets& sets) {
  return {{"pid", pid},
          {"effective", sets.effective.bits},
          {"permitted", sets.permitted.bits},
          {"inheritable_effective", sets.inheritable_effective.bits},
          {"inheritable_permitted", sets.inheritable_permitted.bits}};
}

// True when the user, at a terminal, does not confirm that the process is to lose the right to
// change its capabilities.
bool is_refused(const CapabilitySets& sets, bool force) {
  if (force || sets.effective.has(Capability::kChangeKerrighedCap) || !isatty(STDIN_FILENO))
    return false;
  fmt::print(stderr,
             "Are you sure you want to lose the capability to change the capabilities of "
             "this process? (y/N) ");
  int answer = getchar();
  return answer != 'y' && answer != 'Y';
}

int run(const Options& options) {
  auto complain = [&options](const Error& error) {
    fmt::print(stderr, "krg_capset: process {}: {}\n", options.pid, error.message());
    return kFailure;
  };
  Result<ControlClient> krgd = ControlClient::connect_to_session();
  if (!krgd) {
    fmt::print(stderr, "krg_capset: {}\n", krgd.error().message());
    return kFailure;
  }
  Result<ControlClient::Answer> before = krgd->call("capget", {{"pid", options.pid}});
  if (!before) return complain(before.error());
  CapabilitySets sets = sets_from(before->result);

  for (const Edit& edit : options.edits) {
    Result<CapabilitySet> wanted = parse_capability_set(edit.text, sets.*edit.set);
    if (!wanted) return usage_error(wanted.error().context);
    sets.*edit.set = *wanted;
  }
  if (!options.edits.empty()) {
    if (is_refused(sets, options.force)) return EXIT_SUCCESS;
    Result<ControlClient::Answer> after = krgd->call("capset", as_arguments(options.pid, sets));
    if (!after) return complain(after.error());
    sets = sets_from(after->result);
  }
  if (options.show) fmt::print("{}", format_capabilities(sets));
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  krg::Result<krg::Options> options = krg::parse_options(argc, argv);
  if (!options) return krg::usage_error(options.error().message());
  return krg::run(*options);
}
