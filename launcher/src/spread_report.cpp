// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

namespace krg {
namespace {

using nlohmann::json;

constexpr size_t kMostRegions = 15, kMostShared = 5;

std::string format_threads(const json& threads) {
  std::string text =
      fmt::format("  {:>9} {:>9} {:>12} {:>10} {:>12} {:>8} {:>12}\n", "thread", "faults",
                  "waited ms", "team calls", "waited ms", "futexes", "waited ms");
  for (const json& thread : threads)
    text += fmt::format("  {:>9} {:>9} {:>12.1f} {:>10} {:>12.1f} {:>8} {:>12.1f}\n",
                        thread.contains("count") ? fmt::format("+{}", thread.value("count", 0u))
                                                 : std::to_string(thread.value("tid", 0)),
                        thread.value("faults", 0u), thread.value("fault_ms", 0.0),
                        thread.value("team_calls", 0u), thread.value("team_ms", 0.0),
                        thread.value("futexes", 0u), thread.value("futex_ms", 0.0));
  return text;
}

std::string name_of(const json& place) {
  if (place.contains("count")) return fmt::format("{} more", place.value("count", 0u));
  const std::string name = place.value("name", ""), line = place.value("line", "");
  return line.empty() ? name : fmt::format("{} ({})", line, name);
}

std::string name_of_part(const json& part) {
  if (part.contains("count")) return name_of(part);
  const json none = json::object();
  const std::string region = name_of(part.value("region", none));
  const json barrier = part.value("barrier", none);
  if (region.empty()) return "outside of parallel regions";
  const std::string behind = barrier.value("line", barrier.value("name", ""));
  // It ends in a barrier, and jumped there.
  if (behind.ends_with(" of libgomp.so.1")) return region + ", behind its last barrier";
  return behind.empty() ? region : fmt::format("{}, behind the barrier at {}", region, behind);
}

std::string format_parallel(const json& parallel) {
  if (parallel.empty()) return {};
  std::string text = fmt::format("  {:>9} {:>9} {:>12} {:>10} {:>12}  parallel region\n", "times",
                                 "faults", "waited ms", "team calls", "waited ms");
  for (const json& region : parallel) {
    if (&region - &parallel[0] == kMostRegions) {
      text += fmt::format("  and {} more (--stats=json)\n", parallel.size() - kMostRegions);
      break;
    }
    text += fmt::format("  {:>9} {:>9} {:>12.1f} {:>10} {:>12.1f}  {}\n", region.value("begun", 0u),
                        region.value("faults", 0u), region.value("fault_ms", 0.0),
                        region.value("team_calls", 0u), region.value("team_ms", 0.0),
                        name_of_part(region));
  }
  return text;
}

std::string format_writers(const json& process) {
  if (!process.contains("multiple_writers")) return {};
  const json& writers = process["multiple_writers"];
  return fmt::format(
      "  {} pages came to have several writers, {} of them have one again; home told {} changed "
      "pages "
      "in {} bytes\n",
      writers.value("pages", 0u), writers.value("ended", 0u), writers.value("changed_pages", 0u),
      writers.value("bytes", 0u));
}

std::string format_regions(const json& regions) {
  std::string text =
      fmt::format("  {:>12} {:>8} {:>8} {:>10} {:>12} {:>9} {:>6}  memory\n", "waited ms", "reads",
                  "writes", "KiB", "invalidated", "to-and-fro", "pages");
  for (const json& region : regions) {
    if (&region - &regions[0] == kMostRegions) {
      text += fmt::format("  and {} more (--stats=json)\n", regions.size() - kMostRegions);
      break;
    }
    text += fmt::format("  {:>12.1f} {:>8} {:>8} {:>10} {:>12} {:>9} {:>6}  {}\n",
                        region.value("wait_ms", 0.0), region.value("read_faults", 0u),
                        region.value("write_faults", 0u), region.value("bytes", 0ull) / 1024,
                        region.value("invalidations", 0u), region.value("ping_pong", 0u),
                        region.value("pages", 0u), name_of(region));
  }
  return text;
}

}  // namespace

std::string format_spread_report(const json& processes) {
  if (processes.empty()) return "krgrun: no process had threads on several nodes\n";
  std::string text;
  for (const json& process : processes) {
    text += fmt::format("krgrun: {} (pid {}), what its threads waited for:\n",
                        process.value("command", ""), process.value("pid", 0));
    text += format_threads(process.at("threads"));
    text += format_writers(process);
    text += format_parallel(process.value("parallel", json::array()));
    text += format_regions(process.at("regions"));
    const json& shared = process.at("false_sharing");
    for (size_t i = 0; i < shared.size() && i < kMostShared; ++i) {
      const std::string line = shared[i].value("line", "");
      text += fmt::format("  False sharing: {}{}{}\n", line, line.empty() ? "" : ", ",
                          shared[i].value("text", ""));
    }
    if (shared.size() > kMostShared)
      text += fmt::format("  and {} more pages (--stats=json)\n", shared.size() - kMostShared);
  }
  return text;
}

}  // namespace krg
