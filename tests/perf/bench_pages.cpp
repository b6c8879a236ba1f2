// krg_bench_pages: what programs pay for pages of other nodes, beside the bare transport that
// carries them, in one run. Started by mpirun: rank 0 measures, each rank has one program. With 2
// ranks: a remote read fault against a round trip that brings 4 KiB, a sequential read against
// one-sided gets, and the invalidation of 1,000 pages; with 4 ranks also a write fault on a page
// with 3 readers. SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "krg/runtime/boot.h"
#include "krg/runtime/messenger.h"
#include "krg/runtime/ofi_transport.h"
#include "page_program.h"
#include "timing.h"
#include "transport_meter.h"

namespace krg::perf {
namespace {

constexpr SetId kSet{1};
// Has a rank's program touch pages; the reply carries a Touched.
struct RunTouch {
  static constexpr uint16_t kId = 250;
  uint8_t version = 1;
  Touch touch;
};
// The processor time of a rank's krgd, in µs; the reply carries a double.
struct AskTime {
  static constexpr uint16_t kId = 252;
  uint8_t version = 1;
};
struct Stop {
  static constexpr uint16_t kId = 251;
  uint8_t version = 1;
};

// Of this process, in all its threads.
double cpu_us() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  auto us = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
  };
  return us(used.ru_utime) + us(used.ru_stime);
}

class Rank {
 public:
  Rank(EventLoop& loop, Transport& transport, PageProgram& program, size_t scanned)
      : scanned_(scanned),
        loop_(loop),
        program_(program),
        messenger_(transport),
        kddm_(messenger_),
        set_(require(PageSet::create(loop, kddm_, kSet, scanned + 10'000))),
        meter_(transport) {
    program_.attach(loop, *set_);
    messenger_.on_request<RunTouch>(
        [this](NodeId, const RunTouch& run, std::string_view, Messenger::Reply reply) {
          auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
          program_.run(run.touch, [shared](Touched touched) {
            shared->ok({reinterpret_cast<char*>(&touched), sizeof touched});
          });
        });
    messenger_.on_request<AskTime>(
        [](NodeId, const AskTime&, std::string_view, Messenger::Reply reply) {
          const double now = cpu_us();
          reply.ok({reinterpret_cast<const char*>(&now), sizeof now});
        });
    messenger_.on<Stop>([this](NodeId, const Stop&, std::string_view) { stopped_ = true; });
  }

  void measure();
  void serve() {
    meter_.introduce();
    meter_.await(stopped_);
    for (int i = 0; i < 100; ++i) loop_.run_once(std::chrono::microseconds(100));
  }

 private:
  Touched touch(unsigned rank, const Touch& touch);
  double time_of(unsigned rank);

  const size_t scanned_;  // pages
  EventLoop& loop_;
  PageProgram& program_;
  Messenger messenger_;
  Kddm kddm_;
  std::unique_ptr<PageSet> set_;
  TransportMeter meter_;
  bool stopped_ = false;
};

Touched Rank::touch(unsigned rank, const Touch& touch) {
  Touched touched;
  bool done = false;
  messenger_.request(NodeId{static_cast<uint16_t>(rank)}, RunTouch{.touch = touch}, {},
                     [&](Result<std::string> reply) {
                       const std::string bytes = require(std::move(reply));
                       std::memcpy(&touched, bytes.data(), sizeof touched);
                       done = true;
                     });
  meter_.await(done);
  return touched;
}

double Rank::time_of(unsigned rank) {
  double time = 0;
  bool done = false;
  messenger_.request(NodeId{static_cast<uint16_t>(rank)}, AskTime{}, {},
                     [&](Result<std::string> reply) {
                       std::memcpy(&time, require(std::move(reply)).data(), sizeof time);
                       done = true;
                     });
  meter_.await(done);
  return time;
}

void Rank::measure() {
  using enum Touch::Kind;
  meter_.introduce();
  std::printf("%-44s %9s %9s %7s\n", "", "ours", "bare", "ratio");
  constexpr uint64_t kFaults = 2'000, kIdleFaults = 200, kInvalidated = 1'000;
  constexpr uint32_t kPause = 3'000;
  uint64_t first = 0;

  touch(1, {.kind = kWrite, .first = first, .count = kFaults});
  double bare = meter_.round_trip_us(0);
  Touched ours = touch(0, {.kind = kRead, .first = first, .count = kFaults, .shuffled = 7});
  print_row("read fault / round trip with 4 KiB", ours.median_us, bare, "µs");
  first += kFaults;

  touch(1, {.kind = kWrite, .first = first, .count = kIdleFaults});
  bare = meter_.round_trip_us(kPause);
  ours = touch(
      0, {.kind = kRead, .pause_us = kPause, .first = first, .count = kIdleFaults, .shuffled = 9});
  print_row("the same after 3 ms of rest", ours.median_us, bare, "µs");
  first += kIdleFaults;

  touch(1, {.kind = kWrite, .first = first, .count = scanned_});
  meter_.gets_us(4u << 20);
  bare = meter_.gets_us(scanned_ * kPageBytes);
  const double before[] = {time_of(0), time_of(1)};
  ours = touch(0, {.kind = Touch::Kind::kScan, .first = first, .count = scanned_});
  const double megabytes = scanned_ * kPageBytes / 1e6;
  print_row("sequential read / one-sided gets of 1 MiB", 1e6 * megabytes / ours.total_us,
            1e6 * megabytes / bare, "MB/s");
  for (unsigned rank : {0u, 1u})
    std::printf("  processor time of rank %u's krgd for a page   %9.1f\n", rank,
                (time_of(rank) - before[rank]) / static_cast<double>(scanned_));
  print_row("  / the same gets into a new memfd", 1e6 * megabytes / ours.total_us,
            1e6 * megabytes / meter_.gets_into_new_memory_us(scanned_ * kPageBytes), "MB/s");
  first += scanned_;
  print_row("messages of 256 KiB / one-sided gets of 1 MiB",
            1e6 * megabytes / meter_.messages_us(scanned_ * kPageBytes), 1e6 * megabytes / bare,
            "MB/s");

  touch(0, {.kind = kWrite, .first = first, .count = kInvalidated});
  touch(1, {.kind = kRead, .first = first, .count = kInvalidated});
  bare = meter_.round_trip_us(0);
  ours = touch(0, {.kind = kWrite, .first = first, .count = kInvalidated});
  print_row("1,000 pages invalidated / round trip", ours.total_us, bare, "µs");
  first += kInvalidated;

  if (messenger_.node_count() >= 4) {
    touch(0, {.kind = kWrite, .first = first, .count = kFaults});
    for (unsigned reader = 1; reader < 4; ++reader)
      touch(reader, {.kind = kRead, .first = first, .count = kFaults});
    bare = meter_.round_trip_us(0);
    ours = touch(0, {.kind = kWrite, .first = first, .count = kFaults, .shuffled = 5});
    print_row("write fault, 3 readers / round trip", ours.median_us, bare, "µs");
  }
  const PageSetStatistics s = set_->statistics();
  std::printf(
      "rank 0: %lu read faults, %lu write faults, %lu answered here, %lu fetched ahead (%lu "
      "hits), %lu mapped around\n",
      s.read_faults, s.write_faults, s.answered_here, s.fetched_ahead, s.fetched_ahead_hit,
      s.mapped_around);
  for (unsigned rank = 1; rank < messenger_.node_count(); ++rank)
    require(messenger_.send(NodeId{static_cast<uint16_t>(rank)}, Stop{}));
  for (int i = 0; i < 100; ++i) loop_.run_once(std::chrono::microseconds(100));
}

int main(size_t scanned) {
  PageProgram program;
  auto boot = require(MpiBoot::init());
  if (boot.node_count() < 2) {
    std::fprintf(stderr, "usage: mpirun -n 2|4 krg_bench_pages [PAGES_TO_SCAN]\n");
    return 2;
  }
  auto loop = require(EventLoop::create());
  OfiOptions options = OfiOptions::from_environment();
  if (options.interface.empty()) options.interface = "127.0.0.1";
  auto endpoint = require(OfiEndpoint::open(loop, options));
  auto addresses = require(boot.allgather(endpoint.address()));
  auto transport = require(std::move(endpoint).connect(boot.self(), addresses));
  {
    Rank rank(loop, *transport, program, scanned);
    require(boot.barrier());
    if (boot.self().value == 0) {
      rank.measure();
    } else {
      rank.serve();
    }
  }
  return 0;
}

}  // namespace
}  // namespace krg::perf

int main(int argc, char** argv) {
  return krg::perf::main(argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 16'384);
}
