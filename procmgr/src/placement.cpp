// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/placement.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "krg/runtime/unique_fd.h"
#include "load_book.h"

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint8_t kLoadVersion = 1;

// Asks a node for its load; the reply's payload is a LoadReport.
struct LoadQuery {
  static constexpr uint16_t kId = message_ids::kPlacement;
  uint8_t version = kLoadVersion;
};
struct LoadReport {
  uint8_t version = kLoadVersion;
  uint32_t running = 0;
  uint32_t cores = 1;
  uint32_t age_us = 0;  // since the sample
};
static_assert(sizeof(LoadReport) == 16);

// The exchange gets rarer as the cluster grows: so many nodes are asked in one period, so that a
// node never sends more than some hundred queries a second.
constexpr unsigned kNodesPerPeriod = 16;
// A sample is taken again only after this many times what it cost: at most 2 % of one core.
constexpr int kSampleRest = 50;
constexpr milliseconds kMinSampleAge{20};

// The local running count, taken afresh when it is asked for and old enough.
class RunningSample {
 public:
  explicit RunningSample(std::function<unsigned()> count) : count_(std::move(count)) {}
  void refresh() {
    Clock::time_point now = Clock::now();
    if (taken_ != Clock::time_point{} && now < next_) return;
    running_ = count_();
    taken_ = now;
    Clock::time_point end = Clock::now();
    next_ = end + std::max<Clock::duration>(kMinSampleAge, (end - now) * kSampleRest);
  }
  unsigned running() const { return running_; }
  Clock::time_point taken() const { return taken_; }

 private:
  std::function<unsigned()> count_;
  unsigned running_ = 0;
  Clock::time_point taken_{}, next_{};
};

class LeastLoaded : public Placement {
 public:
  LeastLoaded(NodeContext& node, LoadSources sources)
      : node_(node),
        sources_(std::move(sources)),
        sample_(sources_.running),
        book_(node.self, node.node_count) {
    node_.messenger.on_request<LoadQuery>(
        [this](NodeId, const LoadQuery&, std::string_view, Messenger::Reply reply) {
          sample_.refresh();
          auto age =
              std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - sample_.taken());
          LoadReport report{.running = sample_.running(),
                            .cores = sources_.cores,
                            .age_us = static_cast<uint32_t>(age.count())};
          reply.ok({reinterpret_cast<const char*>(&report), sizeof report});
        });
  }

  NodeId choose(GlobalPid child) override {
    return book_.choose(child, sources_.is_online, exchange_from_now_on());
  }

  std::optional<NodeId> relief(double gap) override {
    return book_.relief(gap, sources_.is_online, exchange_from_now_on());
  }

  void ended(GlobalPid child) override { book_.ended(child); }
  void becomes(GlobalPid before, GlobalPid child) override { book_.becomes(before, child); }

 private:
  Clock::time_point exchange_from_now_on() {
    last_choice_ = Clock::now();
    if (!exchange_ && node_.node_count > 1) {
      exchange();
      exchange_ = node_.loop.every(period(), [this] { exchange(); });
    }
    return last_choice_;
  }
  milliseconds period() const {
    return sources_.exchange_period * ((node_.node_count + kNodesPerPeriod - 1) / kNodesPerPeriod);
  }

  void exchange() {
    if (Clock::now() - last_choice_ > sources_.exchange_lifetime) {
      exchange_.reset();
      return;
    }
    sample_.refresh();
    book_.set_report(node_.self, sample_.running(), sources_.cores, sample_.taken());
    for (uint16_t i = 0; i < node_.node_count; ++i) {
      NodeId peer{i};
      if (peer == node_.self || !sources_.is_online(peer)) continue;
      node_.messenger.request(peer, LoadQuery{}, {}, [this, peer](Result<std::string> reply) {
        if (reply) take_report(peer, *reply);
      });
    }
  }

  void take_report(NodeId peer, std::string_view bytes) {
    LoadReport report;
    if (bytes.size() != sizeof report) return;
    std::memcpy(&report, bytes.data(), sizeof report);
    if (report.version != kLoadVersion) return;
    book_.set_report(peer, report.running, report.cores,
                     Clock::now() - std::chrono::microseconds(report.age_us));
  }

  NodeContext& node_;
  LoadSources sources_;
  RunningSample sample_;
  LoadBook book_;
  Clock::time_point last_choice_{};
  EventLoop::Timer exchange_;
};

// The state letter of /proc/PID/stat (field 3, proc(5)); '\0' when the process has gone.
char process_state(int proc_dir, const char* pid) {
  char path[32];
  snprintf(path, sizeof path, "%.20s/stat", pid);
  UniqueFd stat(openat(proc_dir, path, O_RDONLY | O_CLOEXEC));
  if (!stat) return '\0';
  char text[128];  // a pid, a name of at most 64 bytes, the state
  ssize_t length = read(stat.get(), text, sizeof text - 1);
  if (length <= 0) return '\0';
  text[length] = '\0';
  const char* name_end = strrchr(text, ')');
  return name_end && name_end[1] == ' ' ? name_end[2] : '\0';
}

}  // namespace

std::unique_ptr<Placement> make_least_loaded(NodeContext& node, LoadSources sources) {
  return std::make_unique<LeastLoaded>(node, std::move(sources));
}

unsigned count_running_processes() {
  std::unique_ptr<DIR, int (*)(DIR*)> proc(opendir("/proc"), closedir);
  if (!proc) return 0;
  unsigned running = 0;
  while (const dirent* entry = readdir(proc.get())) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    if (strcmp(entry->d_name, "1") == 0) continue;
    char state = process_state(dirfd(proc.get()), entry->d_name);
    if (state == 'R' || state == 'D') ++running;
  }
  return running;
}

unsigned usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<unsigned>(std::max(CPU_COUNT(&set), 1));
}

}  // namespace krg
