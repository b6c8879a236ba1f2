// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/node_resources.h"

#include "packed_bytes.h"

#include <dirent.h>
#include <sched.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <string>

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;

struct FiguresQuery {
  static constexpr uint16_t kId = message_ids::kSignals + 0;
  uint8_t version = 1;
};
static_assert(sizeof(FiguresQuery) == 1);

struct FileCloser {
  void operator()(FILE* file) const { fclose(file); }
};
using File = std::unique_ptr<FILE, FileCloser>;

// More processors than any machine has had: 8192 (CONFIG_NR_CPUS of Debian).
constexpr unsigned kMaxProcessors = 8192;

std::vector<unsigned> allowed_processors() {
  std::vector<unsigned long> mask(kMaxProcessors / (8 * sizeof(unsigned long)));
  std::vector<unsigned> processors;
  auto* set = reinterpret_cast<cpu_set_t*>(mask.data());
  const size_t bytes = mask.size() * sizeof(unsigned long);
  if (sched_getaffinity(0, bytes, set) != 0) return {0};
  for (unsigned cpu = 0; cpu < kMaxProcessors; ++cpu)
    if (CPU_ISSET_S(cpu, bytes, set)) processors.push_back(cpu);
  return processors;
}

// sysinfo(2) has neither MemAvailable nor the page cache.
void read_meminfo(NodeFigures& figures) {
  File file(fopen("/proc/meminfo", "re"));
  char line[128];
  while (file && fgets(line, sizeof line, file.get())) {
    unsigned long kib = 0;
    if (sscanf(line, "MemAvailable: %lu", &kib) == 1) figures.available_bytes = kib << 10;
    if (sscanf(line, "Cached: %lu", &kib) == 1) figures.cached_bytes = kib << 10;
  }
}

void read_loads_and_uptime(NodeFigures& figures) {
  if (File file{fopen("/proc/loadavg", "re")}; file)
    if (fscanf(file.get(), "%lf %lf %lf %u", &figures.load_1min, &figures.load_5min,
               &figures.load_15min, &figures.running) != 4)
      figures.running = 0;
  if (File file{fopen("/proc/uptime", "re")}; file)
    if (fscanf(file.get(), "%lf %lf", &figures.uptime_s, &figures.idle_s) != 2) figures.idle_s = 0;
}

// The processes in the session's procfs, which krgd keeps at /proc.
uint32_t count_processes() {
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return 0;
  uint32_t count = 0;
  while (const dirent* entry = readdir(proc))
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9') ++count;
  closedir(proc);
  return count;
}

NodeFigures measure(uint32_t processors) {
  NodeFigures figures;
  figures.processors = processors;
  struct sysinfo info {};
  if (sysinfo(&info) == 0) {
    const uint64_t unit = info.mem_unit;
    figures.memory_bytes = info.totalram * unit;
    figures.free_bytes = info.freeram * unit;
    figures.shared_bytes = info.sharedram * unit;
    figures.buffer_bytes = info.bufferram * unit;
    figures.swap_bytes = info.totalswap * unit;
    figures.free_swap_bytes = info.freeswap * unit;
  }
  read_meminfo(figures);
  read_loads_and_uptime(figures);
  figures.processes = count_processes();
  return figures;
}

}  // namespace

NodeFigures sum_of(const std::vector<NodeReport>& reports) {
  NodeFigures sum;
  for (const NodeReport& report : reports) {
    const NodeFigures& node = report.figures;
    sum.processors += node.processors;
    sum.memory_bytes += node.memory_bytes;
    sum.free_bytes += node.free_bytes;
    sum.available_bytes += node.available_bytes;
    sum.shared_bytes += node.shared_bytes;
    sum.buffer_bytes += node.buffer_bytes;
    sum.cached_bytes += node.cached_bytes;
    sum.swap_bytes += node.swap_bytes;
    sum.free_swap_bytes += node.free_swap_bytes;
    sum.load_1min += node.load_1min;
    sum.load_5min += node.load_5min;
    sum.load_15min += node.load_15min;
    // The cluster has been up since its first node is; idle time adds up like processors do.
    sum.uptime_s = std::max(sum.uptime_s, node.uptime_s);
    sum.idle_s += node.idle_s;
    sum.processes += node.processes;
    sum.running += node.running;
  }
  return sum;
}

struct NodeResources::Impl {
  struct Known {
    NodeFigures figures;
    Clock::time_point measured;
  };
  // One get() that waits for answers.
  struct Pending {
    unsigned missing = 0;
    std::function<void(const std::vector<NodeReport>&)> done;
  };

  explicit Impl(NodeContext& context) : node(context), processors(allowed_processors()) {}

  NodeFigures measure_here() const { return measure(static_cast<uint32_t>(processors.size())); }
  bool is_fresh(NodeId id, std::chrono::milliseconds max_age) const {
    auto found = known.find(id);
    return found != known.end() && Clock::now() - found->second.measured <= max_age;
  }
  std::vector<NodeReport> reports() const {
    std::vector<NodeReport> all;
    for (const auto& [id, entry] : known)
      if (!node.messenger.is_failed(id)) all.push_back({id, entry.figures});
    return all;
  }
  void store(NodeId from, std::string_view reply) {
    NodeFigures figures;
    if (reply.size() != sizeof figures) return;
    std::memcpy(&figures, reply.data(), sizeof figures);
    if (figures.version == NodeFigures{}.version) known[from] = {figures, Clock::now()};
  }
  void ask(NodeId id, const std::shared_ptr<Pending>& pending,
           const std::weak_ptr<Impl>& weak_self) {
    ++pending->missing;
    node.messenger.request(id, FiguresQuery{}, {},
                           [weak_self, pending, id](Result<std::string> reply) {
                             auto self = weak_self.lock();
                             if (!self) return;
                             if (reply) self->store(id, *reply);
                             if (--pending->missing == 0) pending->done(self->reports());
                           });
  }

  NodeContext& node;
  const std::vector<unsigned> processors;
  std::map<NodeId, Known> known;
};

NodeResources::NodeResources(NodeContext& node) : impl_(std::make_shared<Impl>(node)) {
  node.messenger.on_request<FiguresQuery>(
      [weak = std::weak_ptr<Impl>(impl_)](NodeId, const FiguresQuery&, std::string_view,
                                          Messenger::Reply reply) {
        if (auto self = weak.lock()) reply.ok(object_bytes(self->measure_here()));
      });
}
NodeResources::~NodeResources() = default;

void NodeResources::start() {
  get(std::chrono::milliseconds(0), [](const std::vector<NodeReport>&) {});
}

void NodeResources::get(std::chrono::milliseconds max_age,
                        std::function<void(const std::vector<NodeReport>&)> done) {
  auto pending = std::make_shared<Impl::Pending>();
  pending->done = std::move(done);
  for (unsigned i = 0; i < impl_->node.node_count; ++i) {
    const NodeId id{static_cast<uint16_t>(i)};
    if (impl_->node.messenger.is_failed(id) || impl_->is_fresh(id, max_age)) continue;
    if (id == impl_->node.self)
      impl_->known[id] = {impl_->measure_here(), Clock::now()};
    else
      impl_->ask(id, pending, impl_);
  }
  if (pending->missing == 0) pending->done(impl_->reports());
}

std::vector<NodeReport> NodeResources::known() const {
  return impl_->reports();
}
const std::vector<unsigned>& NodeResources::own_processors() const {
  return impl_->processors;
}

unsigned NodeResources::first_processor() const {
  unsigned first = 0;
  for (const NodeReport& report : impl_->reports())
    if (report.node < impl_->node.self) first += report.figures.processors;
  return first;
}

unsigned NodeResources::total_processors() const {
  return std::max(sum_of(impl_->reports()).processors,
                  static_cast<uint32_t>(impl_->processors.size()));
}

}  // namespace krg
