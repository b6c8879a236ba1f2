// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster_facts.h"

#include <unistd.h>

#include <algorithm>
#include <map>

#include "gather.h"
#include "in_worker.h"
#include "packed_bytes.h"
#include "pid_identities.h"
#include "proc_view_messages.h"
#include "text_scan.h"

namespace krg {
namespace {

using proc_view_messages::CpuFilesRequest;
using proc_view_messages::FactsRequest;
using SharedCpuFiles = std::shared_ptr<const CpuFiles>;

// Processors whose files are kept; about 3 KiB each.
constexpr size_t kMaxKeptCpus = 4096;

FileUser own_user() {
  return {geteuid(), getegid()};
}

unsigned count_packages(const PlainFiles& directory, const CpuNumbers& cpus) {
  unsigned count = 1;
  for (unsigned cpu : cpus) {
    auto text =
        directory.read(own_user(), "cpu" + std::to_string(cpu) + "/topology/physical_package_id");
    // -1 where the architecture has no packages.
    if (auto id = to_number<unsigned>(trimmed(text ? *text : std::string())); id && *id < 65536)
      count = std::max(count, *id + 1);
  }
  return count;
}

std::string pack_facts(const NodeFacts& facts) {
  PackedWriter writer;
  writer.put(facts.boot_epoch_ns).put(facts.package_count);
  for (unsigned cpu : facts.cpus) writer.put(cpu);
  return writer.take();
}

// Inlined, g++ 12 takes the short string inside of the caller's Result for uninitialized.
[[gnu::noinline]] Result<NodeFacts> parse_facts(std::string_view payload) {
  NodeFacts facts;
  if (payload.size() < sizeof facts.boot_epoch_ns + sizeof facts.package_count)
    return errno_error("facts of a node", EPROTO);
  PackedReader reader(payload);
  facts.boot_epoch_ns = reader.get<int64_t>();
  facts.package_count = reader.get<unsigned>();
  while (!reader.at_end()) facts.cpus.push_back(reader.get<unsigned>());
  if (!reader.ok()) return errno_error("facts of a node", EPROTO);
  return facts;
}

// Reads the files below `path` that anybody may read, two levels deep (cache/index0/size).
void collect_files(const PlainFiles& directory, const std::string& base, const std::string& path,
                   int levels, CpuFiles& files) {
  auto entries = directory.list(own_user(), base + "/" + path);
  if (!entries) return;
  for (const FsDirEntry& entry : *entries) {
    std::string below = path + "/" + entry.name;
    if (entry.type == S_IFDIR && levels > 1)
      collect_files(directory, base, below, levels - 1, files);
    else if (entry.type == S_IFREG && entry.name != "uevent")
      if (auto text = directory.read(own_user(), base + "/" + below))
        files.emplace_back(below, std::move(*text));
  }
}

// The processors of its NUMA node, which sysfs only tells elsewhere: "nodeM" is a link to there.
Result<std::string> numa_cpus(const PlainFiles& directory, const std::string& base) {
  auto entries = directory.list(own_user(), base);
  if (!entries) return entries.error();
  for (const FsDirEntry& entry : *entries) {
    if (entry.name.substr(0, 4) != "node" || !to_number<unsigned>(entry.name.substr(4))) continue;
    auto nodes = PlainFiles::open("/sys/devices/system/node");
    if (!nodes) return nodes.error();
    return nodes->read(own_user(), entry.name + "/cpulist");
  }
  return errno_error("NUMA node", ENOENT);
}

Result<SharedCpuFiles> read_cpu_files(const PlainFiles& directory, unsigned cpu) {
  std::string base = "cpu" + std::to_string(cpu);
  if (auto there = directory.attributes(own_user(), base); !there) return there.error();
  auto files = std::make_shared<CpuFiles>();
  collect_files(directory, base, "topology", 1, *files);
  collect_files(directory, base, "cache", 2, *files);
  if (auto cpus = numa_cpus(directory, base))
    files->emplace_back("topology/numa_cpus_list", std::move(*cpus));
  return SharedCpuFiles(files);
}

Result<SharedCpuFiles> parse_cpu_files(const Result<std::string>& reply) {
  if (!reply) return reply.error();
  auto files = std::make_shared<CpuFiles>();
  PackedReader reader(*reply);
  while (!reader.at_end()) {
    std::string path(reader.get_string());
    files->emplace_back(std::move(path), reader.get_string());
  }
  if (!reader.ok()) return errno_error("files of a processor", EPROTO);
  return SharedCpuFiles(files);
}

}  // namespace

struct ClusterFacts::Impl : std::enable_shared_from_this<Impl> {
  Impl(NodeContext& n, PlainFiles d) : node(n), directory(std::move(d)) {}

  void read_own_cpu(unsigned cpu, std::function<void(Result<SharedCpuFiles>)> done) {
    in_worker(
        node.workers, [directory = directory, cpu] { return read_cpu_files(directory, cpu); },
        std::move(done));
  }
  void answer_cpu_files(unsigned cpu, Messenger::Reply reply);

  NodeContext& node;
  const PlainFiles directory;
  std::map<NodeId, NodeFacts> facts;
  std::map<std::pair<NodeId, unsigned>, SharedCpuFiles> kept_cpus;
};

void ClusterFacts::Impl::answer_cpu_files(unsigned cpu, Messenger::Reply reply) {
  auto answer = std::make_shared<Messenger::Reply>(std::move(reply));
  read_own_cpu(cpu, [answer](Result<SharedCpuFiles> files) {
    if (!files) return answer->fail(files.error());
    PackedWriter payload;
    for (const auto& [path, text] : **files) payload.put_string(path).put_string(text);
    answer->ok(payload.bytes());
  });
}

ClusterFacts::ClusterFacts(NodeContext& node, PlainFiles cpu_directory, CpuNumbers own_cpus)
    : impl_(std::make_shared<Impl>(node, cpu_directory)) {
  NodeFacts& own = impl_->facts[node.self];
  own.boot_epoch_ns = boot_epoch_ns();
  own.package_count = count_packages(cpu_directory, own_cpus);
  own.cpus = std::move(own_cpus);
  std::weak_ptr<Impl> weak = impl_;
  node.messenger.on_request<FactsRequest>(
      [weak](NodeId, const FactsRequest&, std::string_view, Messenger::Reply reply) {
        if (auto self = weak.lock()) reply.ok(pack_facts(self->facts[self->node.self]));
      });
  node.messenger.on_request<CpuFilesRequest>(
      [weak](NodeId, const CpuFilesRequest& request, std::string_view, Messenger::Reply reply) {
        if (auto self = weak.lock()) self->answer_cpu_files(request.cpu, std::move(reply));
      });
}
ClusterFacts::~ClusterFacts() = default;

const NodeFacts& ClusterFacts::own() const {
  return impl_->facts[impl_->node.self];
}

void ClusterFacts::when_known(std::function<void()> ready) {
  std::vector<NodeId> unknown;
  for (NodeId node : living_nodes(impl_->node.messenger))
    if (!impl_->facts.contains(node)) unknown.push_back(node);
  gather<NodeFacts>(
      unknown,
      [this](NodeId node, auto answered) {
        impl_->node.messenger.request(node, FactsRequest{}, {},
                                      [answered](Result<std::string> reply) {
                                        if (!reply) return answered(reply.error());
                                        answered(parse_facts(*reply));
                                      });
      },
      [weak = std::weak_ptr<Impl>(impl_),
       ready = std::move(ready)](NodeAnswers<NodeFacts> answers) {
        auto self = weak.lock();
        if (!self) return;
        self->facts.merge(answers);
        ready();
      });
}

CpuPlaces ClusterFacts::places(NodeId node) const {
  CpuPlaces places;
  for (const auto& [id, facts] : impl_->facts) {
    if (id == node) {
      places.locals = facts.cpus;
      return places;
    }
    if (impl_->node.messenger.is_failed(id)) continue;
    places.first += static_cast<unsigned>(facts.cpus.size());
    places.first_package += facts.package_count;
  }
  return places;
}

unsigned ClusterFacts::cpu_count() const {
  size_t count = 0;
  for (const auto& [id, facts] : impl_->facts)
    if (!impl_->node.messenger.is_failed(id)) count += facts.cpus.size();
  return static_cast<unsigned>(count);
}

NodeId ClusterFacts::node_of_cpu(unsigned cluster_cpu) const {
  for (const auto& [id, facts] : impl_->facts)
    if (!impl_->node.messenger.is_failed(id) && places(id).local_number(cluster_cpu)) return id;
  return kNoNode;
}

StatShift ClusterFacts::shift_from(NodeId node) const {
  auto found = impl_->facts.find(node);
  if (found == impl_->facts.end()) return {};
  const int64_t tick_ns = 1'000'000'000 / sysconf(_SC_CLK_TCK);
  const int64_t later_ns = found->second.boot_epoch_ns - own().boot_epoch_ns;
  // Rounded to the nearest tick, so that two krgds of one machine agree.
  const int64_t half_ns = later_ns < 0 ? -tick_ns / 2 : tick_ns / 2;
  return {.start_ticks = (later_ns + half_ns) / tick_ns, .first_cpu = places(node).first};
}

void ClusterFacts::cpu_files(NodeId node, unsigned local_cpu,
                             std::function<void(Result<SharedCpuFiles>)> done) {
  auto key = std::pair(node, local_cpu);
  if (auto kept = impl_->kept_cpus.find(key); kept != impl_->kept_cpus.end())
    return done(kept->second);
  auto keep = [weak = std::weak_ptr<Impl>(impl_), key,
               done = std::move(done)](Result<SharedCpuFiles> files) {
    if (auto self = weak.lock(); self && files) {
      if (self->kept_cpus.size() >= kMaxKeptCpus) self->kept_cpus.clear();
      self->kept_cpus[key] = *files;
    }
    done(std::move(files));
  };
  if (node == impl_->node.self) return impl_->read_own_cpu(local_cpu, keep);
  impl_->node.messenger.request(
      node, CpuFilesRequest{.version = 1, .padding = {}, .cpu = local_cpu}, {},
      [keep](Result<std::string> reply) { keep(parse_cpu_files(reply)); });
}

}  // namespace krg
