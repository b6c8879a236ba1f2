// krg_clone: makes a second process like one that runs.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <getopt.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

#include "krg/runtime/control_client.h"
#include "number_word.h"

namespace krg {
namespace {

constexpr int kFailure = 1;
constexpr int kUsageError = 2;

constexpr const char* kHelp =
    R"(Usage: krg_clone PID [NODE]
Makes a second process like one that runs, with its memory, threads, timers and
descriptors, and prints its pid. It executes on NODE, or on the node where the
first one does. The first one goes on as before. It needs the capability
CAN_MIGRATE (krg_capset -e +CAN_MIGRATE PID, or krgrun --caps=+CAN_MIGRATE).
  -h, --help    -V, --version
What cannot be copied is not touched; the reason is told.
Exit status: 0; 1 when there is no copy; 2 for a wrong option.
)";

constexpr option kLongOptions[] = {
    {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'V'},
    {nullptr, 0, nullptr, 0},
};

int usage_error(const std::string& why) {
  fmt::print(stderr, "krg_clone: {}\nTry 'krg_clone --help'.\n", why);
  return kUsageError;
}

int clone(long pid, std::optional<long> node) {
  Result<ControlClient> krgd = ControlClient::connect_to_session();
  nlohmann::json arguments{{"pid", pid}};
  if (node) arguments["node"] = *node;
  auto copy = krgd ? krgd->call("clone", arguments) : krgd.error();
  if (!copy) {
    fmt::print(stderr, "krg_clone: {}: {}\n", pid, copy.error().message());
    return kFailure;
  }
  fmt::print("{}\n", copy->result.value("pid", 0));
  return EXIT_SUCCESS;
}

int run(int argc, char** argv) {
  for (int c; (c = getopt_long(argc, argv, "hV", kLongOptions, nullptr)) != -1;) {
    if (c == 'h') {
      fmt::print("{}", kHelp);
      return EXIT_SUCCESS;
    }
    if (c != 'V') return kUsageError;
    fmt::print("krg_clone (Kerrighed) {}\n", KRG_VERSION);
    return EXIT_SUCCESS;
  }
  const int words = argc - optind;
  if (words != 1 && words != 2) return usage_error("PID and perhaps NODE are wanted");
  const auto pid = number_of(argv[optind]);
  if (!pid || *pid == 0) return usage_error(fmt::format("'{}' is no pid", argv[optind]));
  std::optional<long> node;
  if (words == 2 && !(node = number_of(argv[optind + 1])))
    return usage_error(fmt::format("'{}' is no node", argv[optind + 1]));
  return clone(*pid, node);
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  return krg::run(argc, argv);
}
