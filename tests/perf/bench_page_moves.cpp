// krg_bench_page_moves: how the pages of a moved process come, beside the bare transport that
// carries them, in one run. Started by mpirun -n 2: rank 1 has a stopped process with memory, rank
// 0 the one into which it moves. SPDX-License-Identifier: GPL-2.0-or-later
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <optional>
#include <random>

#include "image/content_ranges.h"
#include "krg/procmgr/page_moves.h"
#include "krg/runtime/boot.h"
#include "krg/runtime/ofi_transport.h"
#include "krg/runtime/unix_socket.h"
#include "krg/shmem/page_set.h"
#include "timing.h"
#include "transport_meter.h"

namespace krg::perf {
namespace {

constexpr uint64_t kPlace = 0x100000000000;  // of the memory, in both processes
constexpr size_t kMegabyte = 1u << 20;
constexpr size_t kFaults = 2'000, kFaultStride = 64;  // pages
constexpr double kFaultAtLeast = 5;                   // µs; else the page was there already

// Has rank 1 make a stopped process with so much memory. The reply: the move's number, ranges.
struct Prepare {
  static constexpr uint16_t kId = 400;
  uint8_t version = 1;
  uint64_t bytes = 0;
};
struct Stop {
  static constexpr uint16_t kId = 401;
  uint8_t version = 1;
};

char* map_memory(size_t bytes) {
  void* at = mmap(reinterpret_cast<void*>(kPlace), bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (at == MAP_FAILED) _exit(1);
  return static_cast<char*>(at);
}

template <class Run>
pid_t start(Run run) {
  const pid_t parent = getpid(), child = fork();
  if (child != 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  run();
  _exit(0);
}

void end(pid_t child) {
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

// The process into which the memory moves: touches pages when it may run, and tells how long each
// touch took.
class Target {
 public:
  Target(size_t bytes, size_t touches) : sockets_(require(seqpacket_pair())) {
    pid_ = start([&] { run(bytes, touches); });
    sockets_.second.reset();
    auto packet = require(receive_packet(sockets_.first.get()));
    if (packet.fds.size() == 1) userfaultfd_ = std::move(packet.fds[0]);
  }
  ~Target() { end(pid_); }
  Target(const Target&) = delete;

  pid_t pid() const { return pid_; }
  UniqueFd take_userfaultfd() { return std::move(userfaultfd_); }
  void may_run() { require(send_packet(sockets_.first.get(), "r")); }
  // None: it is not done yet.
  std::optional<double> median_us() {
    double median;
    if (recv(sockets_.first.get(), &median, sizeof median, MSG_DONTWAIT) != sizeof median)
      return std::nullopt;
    return median;
  }

 private:
  void run(size_t bytes, size_t touches) {
    const int socket = sockets_.second.get();
    char* memory = map_memory(bytes);
    const int fd = static_cast<int>(syscall(SYS_userfaultfd, PageSet::userfaultfd_flags(false)));
    if (fd < 0 || !send_packet(socket, "u", {&fd, 1}) || !receive_packet(socket)) _exit(1);
    close(fd);
    std::vector<size_t> order(touches);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(7));
    Samples samples;
    for (size_t i : order) {
      const auto begin = Clock::now();
      static_cast<void>(*static_cast<volatile char*>(memory + i * kFaultStride * kPageBytes));
      const double time_us = microseconds_since(begin);
      if (time_us > kFaultAtLeast) samples.add(time_us);
    }
    const double median = samples.median_us();
    if (!send_packet(socket, {reinterpret_cast<const char*>(&median), sizeof median})) _exit(1);
    pause();
  }

  FdPair sockets_;
  pid_t pid_ = 0;
  UniqueFd userfaultfd_;
};

class Rank {
 public:
  explicit Rank(Transport& transport)
      : loop_(transport.loop()),
        meter_(transport),
        messenger_(transport),
        workers_(loop_, 4),
        node_{loop_, workers_, messenger_, transport.self(), 2, PidRange(transport.self(), 2), {}},
        calls_(node_),
        moves_(node_, calls_) {
    messenger_.on_request<Prepare>(
        [this](NodeId, const Prepare& prepare, std::string_view, Messenger::Reply reply) {
          reply.ok(prepare_source(prepare.bytes));
        });
    messenger_.on<Stop>([this](NodeId, const Stop&, std::string_view) { stopped_ = true; });
  }

  void serve() {
    meter_.introduce();
    meter_.await(stopped_);
  }
  void measure();

 private:
  struct Moved {
    double total_us = 0, touch_us = 0;
  };
  std::string prepare_source(size_t bytes);
  Moved move(size_t bytes, size_t touches, bool before_it_runs);
  void measure_total(size_t megabytes);

  EventLoop& loop_;
  TransportMeter meter_;
  Messenger messenger_;
  WorkerPool workers_;
  NodeContext node_;
  SyscallBroker calls_;
  PageMoves moves_;
  bool stopped_ = false;
};

std::string Rank::prepare_source(size_t bytes) {
  const pid_t source = start([bytes] {
    std::memset(map_memory(bytes), 's', bytes);
    raise(SIGSTOP);
  });
  waitpid(source, nullptr, WUNTRACED);
  std::vector<PageRange> ranges;
  for (const PageRange& range : require(content_ranges(source)))
    if (range.start.value >= kPlace && range.end().value <= kPlace + bytes) ranges.push_back(range);
  const uint64_t number = require(moves_.serve(NodeId{0}, source, ranges, [source](Status done) {
    require(done);
    end(source);
  }));
  std::string reply(reinterpret_cast<const char*>(&number), sizeof number);
  return reply.append(reinterpret_cast<const char*>(ranges.data()),
                      ranges.size() * sizeof(PageRange));
}

// Until all is here, and all touches are done.
Rank::Moved Rank::move(size_t bytes, size_t touches, bool before_it_runs) {
  std::string prepared;
  bool answered = false;
  messenger_.request(NodeId{1}, Prepare{.bytes = bytes}, {}, [&](Result<std::string> reply) {
    prepared = require(std::move(reply));
    answered = true;
  });
  meter_.await(answered);
  PageMoves::Arrival arrival{.source = NodeId{1}};
  std::memcpy(&arrival.move, prepared.data(), sizeof arrival.move);
  arrival.ranges.resize((prepared.size() - sizeof arrival.move) / sizeof(PageRange));
  std::memcpy(arrival.ranges.data(), prepared.data() + sizeof arrival.move,
              arrival.ranges.size() * sizeof(PageRange));

  Target target(bytes, touches);
  bool here = false;
  arrival.pid = target.pid();
  if (!before_it_runs) arrival.userfaultfd = target.take_userfaultfd();
  arrival.may_run = [&target](Status may) {
    require(may);
    target.may_run();
  };
  arrival.all_here = [&here](Status all) {
    require(all);
    here = true;
  };
  const auto begin = Clock::now();
  moves_.receive(std::move(arrival));
  meter_.await(here);
  Moved moved{.total_us = microseconds_since(begin)};
  std::optional<double> median;
  while (!(median = target.median_us())) loop_.run_once(std::chrono::milliseconds(1));
  moved.touch_us = *median;
  return moved;
}

void Rank::measure_total(size_t megabytes) {
  const size_t bytes = megabytes * kMegabyte;
  const double to_rate = static_cast<double>(bytes);  // bytes / µs: MB/s
  meter_.puts_us(bytes / 8);
  const double puts = to_rate / meter_.puts_us(bytes), gets = to_rate / meter_.gets_us(bytes);
  const double later = to_rate / move(bytes, 0, false).total_us;
  const double puts_again = to_rate / meter_.puts_us(bytes);
  const double before = to_rate / move(bytes, 0, true).total_us;
  std::printf("%zu MiB; bare puts of 1 MiB %.0f and %.0f MB/s, gets %.0f\n", megabytes, puts,
              puts_again, gets);
  print_row("  while it runs / puts before and after", later, (puts + puts_again) / 2, "MB/s");
  print_row("  before it runs / puts before", before, puts_again, "MB/s");
}

void Rank::measure() {
  meter_.introduce();
  std::printf("%-44s %9s %9s %7s\n", "", "ours", "bare", "ratio");
  const double bare = meter_.round_trip_us(0);
  const double touch = move(kFaults * kFaultStride * kPageBytes, kFaults, false).touch_us;
  print_row("touch of a page to come / round trip, 4 KiB", touch, bare, "µs");
  Samples small;
  for (int i = 0; i < 20; ++i) small.add(move(kMegabyte, 0, true).total_us);
  print_row("1 MiB before it runs / round trip, 4 KiB", small.median_us(), bare, "µs");
  measure_total(256);
  measure_total(1024);
  require(messenger_.send(NodeId{1}, Stop{}));
  for (int i = 0; i < 100; ++i) loop_.run_once(std::chrono::microseconds(100));
}

int main() {
  auto boot = require(MpiBoot::init());
  if (boot.node_count() != 2) {
    std::fprintf(stderr, "usage: mpirun -n 2 krg_bench_page_moves\n");
    return 2;
  }
  auto loop = require(EventLoop::create());
  OfiOptions options = OfiOptions::from_environment();
  if (options.interface.empty()) options.interface = "127.0.0.1";
  auto endpoint = require(OfiEndpoint::open(loop, options));
  auto addresses = require(boot.allgather(endpoint.address()));
  auto transport = require(std::move(endpoint).connect(boot.self(), addresses));
  Rank rank(*transport);
  require(boot.barrier());
  boot.self().value == 0 ? rank.measure() : rank.serve();
  return 0;
}

}  // namespace
}  // namespace krg::perf

int main() {
  return krg::perf::main();
}
