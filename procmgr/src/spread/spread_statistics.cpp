// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "process_environment.h"
#include "process_status.h"

namespace krg {
namespace {

using nlohmann::json;

constexpr double kMs = 1e6;  // in nanoseconds
// A page that was taken away so often is one that nodes take from each other.
constexpr uint64_t kPingPong = 4;
constexpr size_t kMostPagesTold = 20;
// A process of thousands of threads has as many stacks; an answer of krgd's is 192 KiB at the most.
constexpr size_t kMostThreadsTold = 128, kMostRegionsTold = 256, kMostPartsTold = 256;
constexpr size_t kMostWordsTold = 3;
constexpr uint64_t kWordBytes = 8;
constexpr std::string_view kVariable = "KRG_STATS";

using PageByNode = std::map<NodeId, const FaultCounts::Page*>;

struct Region {
  uint64_t pages = 0, reads = 0, writes = 0, fetched = 0, taken = 0, ping_pong = 0, waited_ns = 0;
};

uint64_t taken_of(const PageByNode& page) {
  uint64_t taken = 0;
  for (const auto& [node, counts] : page) taken += counts->taken;
  return taken;
}

size_t writers_of(const PageByNode& page) {
  return static_cast<size_t>(
      std::count_if(page.begin(), page.end(), [](const auto& e) { return e.second->writes > 0; }));
}

bool is_ping_pong(const PageByNode& page) {
  return page.size() > 1 && writers_of(page) > 0 && taken_of(page) >= kPingPong;
}

// Several nodes write it, but none of them a word that another one writes.
bool is_shared_falsely(const PageByNode& page) {
  if (!is_ping_pong(page) || writers_of(page) < 2) return false;
  std::set<uint16_t> words;
  size_t sum = 0;
  for (const auto& [node, counts] : page) {
    if (counts->written.size() >= FaultCounts::kMostWords) return false;
    words.insert(counts->written.begin(), counts->written.end());
    sum += counts->written.size();
  }
  return words.size() == sum;
}

// Those behind the `most` first ones are added up in one, whose `count` says how many they are.
void join_rest(json& list, size_t most) {
  if (list.size() <= most) return;
  json rest = json::object();
  for (size_t i = most; i < list.size(); ++i)
    for (const auto& [key, value] : list[i].items()) {
      if (key == "tid" || !value.is_number()) continue;
      if (!rest.contains(key))
        rest[key] = value;
      else if (value.is_number_float())
        rest[key] = rest[key].get<double>() + value.get<double>();
      else
        rest[key] = rest[key].get<uint64_t>() + value.get<uint64_t>();
    }
  rest["count"] = list.size() - most;
  list.erase(list.begin() + static_cast<ptrdiff_t>(most), list.end());
  list.push_back(std::move(rest));
}

// Where the program allocated what lies there, if it has told.
void add_site(json& what, uint64_t address, const MemoryNames& names) {
  if (auto sites = names.sites_at(address); !sites.empty())
    what["site"] = {{"file", names.program()}, {"addresses", std::move(sites)}};
}

json false_sharing(uint64_t address, const PageByNode& page, MemoryNames& names) {
  json writers = json::array();
  std::string who;
  for (const auto& [node, counts] : page) {
    if (counts->writes == 0) continue;
    json words = json::array();
    for (uint16_t word : counts->written) {
      if (words.size() == kMostWordsTold) break;
      words.push_back(names.word_at(address + word * kWordBytes));
    }
    std::vector<std::string> texts = words;
    who += fmt::format("{}node {} writes {}", who.empty() ? "" : ", ", node.value,
                       fmt::join(texts, " and "));
    writers.push_back({{"node", node.value}, {"words", std::move(words)}});
  }
  json told = {{"page", address},
               {"invalidations", taken_of(page)},
               {"writers", std::move(writers)},
               {"text", fmt::format("{}: a page of 4 KiB that nodes took from each other {} times, "
                                    "though they write different words of it: {}",
                                    names.region_at(address), taken_of(page), who)}};
  add_site(told, address, names);
  return told;
}

using Parts = std::map<FaultCounts::Part, FaultCounts::Region>;

Parts parallel_parts(const std::map<NodeId, FaultCounts>& counts) {
  Parts sums;
  for (const auto& [node, own] : counts)
    for (const auto& [part, region] : own.regions()) {
      FaultCounts::Region& sum = sums[part];
      sum.begun += region.begun;
      sum.faults += region.faults;
      sum.fault_ns += region.fault_ns;
      sum.team_calls += region.team_calls;
      sum.team_ns += region.team_ns;
    }
  return sums;
}

// A place in the program's code; nothing: none.
json code_at(uint64_t address, MemoryNames& names) {
  if (address == 0) return {{"name", ""}};
  json place = {{"name", names.word_at(address)}, {"address", address}};
  if (auto in_file = names.in_file(address)) {
    place["file"] = in_file->path;
    place["address"] = in_file->address;
  }
  return place;
}

json parallel_part(const FaultCounts::Part& part, const FaultCounts::Region& sum,
                   MemoryNames& names) {
  return {{"region", code_at(part.region, names)},
          {"barrier", code_at(part.barrier, names)},
          {"begun", sum.begun},
          {"faults", sum.faults},
          {"fault_ms", static_cast<double>(sum.fault_ns) / kMs},
          {"team_calls", sum.team_calls},
          {"team_ms", static_cast<double>(sum.team_ns) / kMs}};
}

}  // namespace

std::optional<SpreadStatistics> SpreadStatistics::wanted_by(pid_t pid) {
  auto job = environment_variable(pid, kVariable);
  if (!job) return std::nullopt;
  SpreadStatistics statistics;
  statistics.pid = pid;
  statistics.job = std::move(*job);
  statistics.command = read_proc_text(pid, "comm").value_or("");
  while (statistics.command.ends_with('\n')) statistics.command.pop_back();
  statistics.names = MemoryNames::of_process(pid);
  return statistics;
}

json SpreadStatistics::report() {
  std::map<pid_t, FaultCounts::Thread> threads;
  std::map<uint64_t, PageByNode> pages;
  for (const auto& [node, own] : counts) {
    for (const auto& [address, page] : own.pages()) pages[address][node] = &page;
    for (const auto& [tid, thread] : own.threads()) {
      FaultCounts::Thread& sum = threads[tid];
      sum.faults += thread.faults;
      sum.fault_ns += thread.fault_ns;
      sum.barriers += thread.barriers;
      sum.barrier_ns += thread.barrier_ns;
      sum.futexes += thread.futexes;
      sum.futex_ns += thread.futex_ns;
    }
  }
  json all = {{"pid", pid},
              {"command", command},
              {"threads", json::array()},
              {"parallel", json::array()},
              {"regions", json::array()},
              {"false_sharing", json::array()}};
  if (multiple_writers)
    all["multiple_writers"] = {{"pages", multiple_writers->pages_begun},
                               {"ended", multiple_writers->pages_ended},
                               {"changed_pages", multiple_writers->pages_told},
                               {"bytes", multiple_writers->bytes_told}};
  for (const auto& [tid, thread] : threads)
    all["threads"].push_back({{"tid", tid},
                              {"faults", thread.faults},
                              {"fault_ms", static_cast<double>(thread.fault_ns) / kMs},
                              {"team_calls", thread.barriers},
                              {"team_ms", static_cast<double>(thread.barrier_ns) / kMs},
                              {"futexes", thread.futexes},
                              {"futex_ms", static_cast<double>(thread.futex_ns) / kMs}});
  for (const auto& [part, sum] : parallel_parts(counts))
    all["parallel"].push_back(parallel_part(part, sum, names));
  std::map<std::pair<std::string, std::vector<uint64_t>>, Region> regions;
  for (const auto& [address, page] : pages) {
    Region& region = regions[{names.region_at(address), names.sites_at(address)}];
    ++region.pages;
    for (const auto& [node, own] : page) {
      region.reads += own->reads;
      region.writes += own->writes;
      region.fetched += own->fetched;
      region.waited_ns += own->waited_ns;
    }
    region.taken += taken_of(page);
    if (is_ping_pong(page)) region.ping_pong += taken_of(page);
    if (is_shared_falsely(page))
      all["false_sharing"].push_back(false_sharing(address, page, names));
  }
  for (const auto& [what, region] : regions) {
    all["regions"].push_back({{"name", what.first},
                              {"pages", region.pages},
                              {"read_faults", region.reads},
                              {"write_faults", region.writes},
                              {"bytes", region.fetched * kPageBytes},
                              {"invalidations", region.taken},
                              {"ping_pong", region.ping_pong},
                              {"wait_ms", static_cast<double>(region.waited_ns) / kMs}});
    if (!what.second.empty())
      all["regions"].back()["site"] = {{"file", names.program()}, {"addresses", what.second}};
  }
  const auto most_first = [](json& list, const char* key) {
    std::stable_sort(list.begin(), list.end(),
                     [key](const json& a, const json& b) { return a[key] > b[key]; });
  };
  const auto waited = [](const json& a) {
    return a["fault_ms"].get<double>() + a["team_ms"].get<double>();
  };
  std::stable_sort(all["parallel"].begin(), all["parallel"].end(),
                   [&](const json& a, const json& b) { return waited(a) > waited(b); });
  const auto waited_in_all = [](const json& a) {
    return a["fault_ms"].get<double>() + a["team_ms"].get<double>() + a["futex_ms"].get<double>();
  };
  if (all["threads"].size() > kMostThreadsTold)
    std::stable_sort(
        all["threads"].begin(), all["threads"].end(),
        [&](const json& a, const json& b) { return waited_in_all(a) > waited_in_all(b); });
  join_rest(all["threads"], kMostThreadsTold);
  join_rest(all["parallel"], kMostPartsTold);
  most_first(all["regions"], "wait_ms");
  join_rest(all["regions"], kMostRegionsTold);
  most_first(all["false_sharing"], "invalidations");
  if (all["false_sharing"].size() > kMostPagesTold)
    all["false_sharing"].erase(all["false_sharing"].begin() + kMostPagesTold,
                               all["false_sharing"].end());
  return all;
}

}  // namespace krg
