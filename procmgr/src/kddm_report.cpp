// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/kddm_report.h"

#include <sys/stat.h>

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "gather.h"
#include "kddm_texts.h"
#include "packed_bytes.h"

namespace krg {
namespace {

constexpr std::array kFiles = {"meminfo", "setstat"};
constexpr std::array kSetFiles = {"objectstates", "setstat", "setinfo"};

template <class Names>
bool is_one_of(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

KddmReport::NodeReport unpack_report(std::string_view bytes) {
  PackedReader reader(bytes);
  KddmReport::NodeReport report;
  report.memory_used = reader.get<uint64_t>();
  report.memory_limit = reader.get<uint64_t>();
  report.traffic = reader.get<KddmTraffic>();
  while (!reader.at_end()) report.sets.push_back(reader.get<KddmReport::SetReport>());
  if (!reader.ok()) report.sets.pop_back();
  return report;
}

KddmReport::StateCounts unpack_states(std::string_view bytes) {
  PackedReader reader(bytes);
  KddmReport::StateCounts counts;
  while (!reader.at_end()) {
    const std::string name(reader.get_string());
    counts[name] = reader.get<uint64_t>();
  }
  return counts;
}

nlohmann::json as_json(const KddmReport::NodeReports& reports) {
  nlohmann::json nodes = nlohmann::json::array();
  for (const auto& [node, report] : reports) {
    nlohmann::json sets = nlohmann::json::array();
    for (const auto& set : report.sets) {
      nlohmann::json entry = {{"set", kddm_set_name(set.info.id)},
                              {"object_bytes", set.info.object_bytes}};
      for (const NamedCount& named : kKddmCounts) entry[named.name] = set.statistics.*named.count;
      sets.push_back(std::move(entry));
    }
    nodes.push_back({{"node", node.value},
                     {"memory_used", report.memory_used},
                     {"memory_limit", report.memory_limit},
                     {"protocol_messages", report.traffic.protocol_messages},
                     {"sent", report.traffic.sent},
                     {"sets", std::move(sets)}});
  }
  return nodes;
}

}  // namespace

// Reply: memory used and its limit, the traffic, then a SetReport for each set; of kStates: the
// name of each state that objects are in, and their number.
struct KddmReport::Query {
  static constexpr uint16_t kId = message_ids::kKddmReport;
  enum : uint8_t { kSets, kStates };
  uint8_t version = 1;
  uint8_t what = kSets;
  uint8_t unused[6] = {};
  uint64_t set = 0;
};

KddmReport::KddmReport(NodeContext& node, Kddm& kddm) : node_(node), kddm_(kddm) {
  static_assert(sizeof(Query) == 16);
  node_.messenger.on_request<Query>(
      [this, alive = std::weak_ptr(alive_)](NodeId, const Query& query, std::string_view,
                                            Messenger::Reply reply) {
        if (!alive.expired()) reply.ok(answer(query));
      });
}

KddmReport::~KddmReport() = default;

std::string KddmReport::answer(const Query& query) const {
  PackedWriter writer;
  if (query.what == Query::kStates) {
    StateCounts counts;
    kddm_.for_each_state(SetId{query.set},
                         [&](ObjectId, std::string_view state) { ++counts[std::string(state)]; });
    for (const auto& [name, count] : counts) writer.put_string(name).put(count);
    return writer.take();
  }
  writer.put(uint64_t{kddm_.memory_used()}).put(uint64_t{kddm_.memory_limit()});
  writer.put(kddm_.traffic());
  for (const KddmSetInfo& set : kddm_.sets()) writer.put(SetReport{set, kddm_.statistics(set.id)});
  return writer.take();
}

void KddmReport::collect(std::function<void(NodeReports)> done) {
  auto ask = [this](NodeId node, std::function<void(Result<NodeReport>)> answered) {
    node_.messenger.request(node, Query{}, {}, [answered](const Result<std::string>& reply) {
      answered(reply ? Result<NodeReport>(unpack_report(*reply)) : reply.error());
    });
  };
  gather<NodeReport>(living_nodes(node_.messenger), ask, std::move(done));
}

void KddmReport::collect_states(SetId set,
                                std::function<void(std::map<NodeId, StateCounts>)> done) {
  auto ask = [this, set](NodeId node, std::function<void(Result<StateCounts>)> answered) {
    node_.messenger.request(
        node, Query{.what = Query::kStates, .set = set.value}, {},
        [answered](const Result<std::string>& reply) {
          answered(reply ? Result<StateCounts>(unpack_states(*reply)) : reply.error());
        });
  };
  gather<StateCounts>(living_nodes(node_.messenger), ask, std::move(done));
}

void KddmReport::add_commands(ControlServer& control) {
  control.add_command("kddm.status", [this](ControlServer::Request, ControlServer::Reply reply) {
    auto answer = std::make_shared<ControlServer::Reply>(std::move(reply));
    collect([answer](const NodeReports& reports) { answer->ok({{"nodes", as_json(reports)}}); });
  });
}

std::optional<mode_t> KddmReport::type(const std::string& path) const {
  const size_t slash = path.find('/');
  const std::string first = path.substr(0, slash);
  if (slash == std::string::npos && (path.empty() || is_one_of(kFiles, path)))
    return path.empty() ? S_IFDIR : S_IFREG;
  const auto set = kddm_set_of(first);
  if (!set) return std::nullopt;
  const auto sets = kddm_.sets();
  if (std::none_of(sets.begin(), sets.end(), [&](const auto& info) { return info.id == *set; }))
    return std::nullopt;
  if (slash == std::string::npos) return S_IFDIR;
  if (!is_one_of(kSetFiles, path.substr(slash + 1))) return std::nullopt;
  return S_IFREG;
}

std::vector<FsDirEntry> KddmReport::list(const std::string& path) const {
  std::vector<FsDirEntry> entries;
  if (!path.empty()) {
    for (const char* file : kSetFiles) entries.push_back({file, S_IFREG});
    return entries;
  }
  for (const char* file : kFiles) entries.push_back({file, S_IFREG});
  for (const KddmSetInfo& set : kddm_.sets()) entries.push_back({kddm_set_name(set.id), S_IFDIR});
  return entries;
}

void KddmReport::text(const std::string& path, std::function<void(Result<std::string>)> done) {
  const size_t slash = path.find('/');
  if (slash != std::string::npos) {
    const auto set = kddm_set_of(path.substr(0, slash));
    if (!set) return done(errno_error(path, ENOENT));
    return text_of_set(*set, path.substr(slash + 1), std::move(done));
  }
  collect([path, done = std::move(done)](const NodeReports& reports) {
    done(path == "meminfo" ? kddm_meminfo(reports) : kddm_setstat(reports));
  });
}

void KddmReport::text_of_set(SetId set, const std::string& file,
                             std::function<void(Result<std::string>)> done) {
  if (file == "objectstates")
    return collect_states(
        set, [done = std::move(done)](const auto& states) { done(kddm_objectstates(states)); });
  collect([set, file, done = std::move(done)](const NodeReports& reports) {
    done(file == "setstat" ? kddm_setstat(reports, set) : kddm_setinfo(reports, set));
  });
}

}  // namespace krg
