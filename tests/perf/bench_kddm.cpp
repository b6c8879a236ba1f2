// krg_bench_kddm: what operations on coherent objects of 4 KiB cost, by who has the object, beside
// a round trip of the bare transport that brings 4 KiB, in one run. The cases are those of the
// original's benchmark, and the hand-over of a lock and the invalidation of 1,000 objects. Started
// by mpirun with 4 ranks; rank 0 measures.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstdio>
#include <cstring>

#include "krg/runtime/boot.h"
#include "krg/runtime/messenger.h"
#include "krg/runtime/ofi_transport.h"
#include "krg/shmem/kddm.h"
#include "timing.h"
#include "transport_meter.h"

namespace krg::perf {
namespace {

constexpr SetId kSet{1};
constexpr size_t kObjectBytes = 4096;
constexpr unsigned kRanks = 4;
constexpr uint64_t kObjects = 300;  // of each case
constexpr uint64_t kInvalidated = 1'000;
constexpr unsigned kHandOvers = 500;
constexpr std::chrono::microseconds kHold{200};  // longer than a grab takes

enum class Verb : uint32_t { kGet, kGrab, kRemove, kTakeTurns, kStop };

// Has a rank do something to objects, one after the other.
struct Work {
  static constexpr uint16_t kId = 250;
  uint8_t version = 1;
  Verb verb = Verb::kGet;
  uint64_t first = 0, count = 0, times = 0;
};

// What lies in an object that is handed over.
struct Release {
  uint16_t rank = 0;
  Clock::time_point at{};
};

class Rank {
 public:
  Rank(EventLoop& loop, Transport& transport)
      : loop_(loop),
        transport_(transport),
        meter_(transport),
        messenger_(transport),
        kddm_(messenger_) {
    require(kddm_.open_set(kSet, {.object_bytes = kObjectBytes}));
    messenger_.on_request<Work>(
        [this](NodeId, const Work& work, std::string_view, Messenger::Reply reply) {
          stopped_ |= work.verb == Verb::kStop;
          auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
          auto done = [shared] { shared->ok({}); };
          if (work.verb == Verb::kTakeTurns)
            take_turns(ObjectId{work.first}, work.times, turns_, std::move(done));
          else
            run(work, std::move(done));
        });
  }

  void measure();
  void serve() {
    meter_.introduce();
    await(stopped_);
    for (int i = 0; i < 100; ++i) loop_.run_once(std::chrono::microseconds(100));
  }

 private:
  void await(const bool& reached) {
    while (!reached) loop_.run_once(std::chrono::seconds(1));
  }
  // One operation, with the put that ends it.
  void operate(Verb verb, ObjectId object, std::function<void()> done);
  void run(const Work& work, std::function<void()> done);
  void take_turns(ObjectId object, uint64_t times, Samples& samples, std::function<void()> done);
  void prepare(unsigned rank, const Work& work);
  double median_of(Verb verb, uint64_t first);
  void row(const char* what, double ours_us);
  void measure_case(const char* what, std::initializer_list<std::pair<unsigned, Verb>> before,
                    Verb verb);
  void hand_over();
  void invalidate();

  EventLoop& loop_;
  Transport& transport_;
  TransportMeter meter_;
  Messenger messenger_;
  Kddm kddm_;
  uint64_t next_ = 0;  // objects that no case has used
  double bare_us_ = 0;
  Samples turns_;  // of this rank, when it is not the one that measures
  EventLoop::Timer hold_;
  bool stopped_ = false;
};

void Rank::operate(Verb verb, ObjectId object, std::function<void()> done) {
  if (verb == Verb::kRemove) return kddm_.remove(kSet, object, std::move(done));
  auto granted = [this, object, done = std::move(done)](Result<std::span<std::byte>> bytes) {
    require(std::move(bytes));
    kddm_.put(kSet, object);
    done();
  };
  if (verb == Verb::kGet)
    kddm_.get(kSet, object, Kddm::Touch::kFirstTouch, std::move(granted));
  else
    kddm_.grab(kSet, object, Kddm::Touch::kFirstTouch, std::move(granted));
}

void Rank::run(const Work& work, std::function<void()> done) {
  if (work.count == 0) return done();
  operate(work.verb, ObjectId{work.first}, [this, work, done = std::move(done)] {
    const Work rest{.verb = work.verb, .first = work.first + 1, .count = work.count - 1};
    loop_.post([this, rest, done] { run(rest, done); });
  });
}

void Rank::prepare(unsigned rank, const Work& work) {
  bool done = false;
  messenger_.request(NodeId{static_cast<uint16_t>(rank)}, work, {}, [&](Result<std::string> reply) {
    require(std::move(reply));
    done = true;
  });
  await(done);
}

double Rank::median_of(Verb verb, uint64_t first) {
  Samples samples;
  for (uint64_t i = first; i < first + kObjects; ++i) {
    const auto start = Clock::now();
    bool done = false;
    operate(verb, ObjectId{i}, [&] { done = true; });
    await(done);
    samples.add(microseconds_since(start));
  }
  return samples.median_us();
}

void Rank::row(const char* what, double ours_us) {
  std::printf("%-46s %9.1f %9.1f %7.2f\n", what, ours_us, bare_us_, ours_us / bare_us_);
}

void Rank::measure_case(const char* what, std::initializer_list<std::pair<unsigned, Verb>> before,
                        Verb verb) {
  for (const auto& [rank, prepared] : before)
    prepare(rank, {.verb = prepared, .first = next_, .count = kObjects});
  bare_us_ = meter_.round_trip_us(0);
  row(what, median_of(verb, next_));
  next_ += kObjects;
}

// Grabs the object `times` times, each time long enough for the other's grab to wait here, and
// leaves word of who puts it, and when: all ranks have one clock.
void Rank::take_turns(ObjectId object, uint64_t times, Samples& samples,
                      std::function<void()> done) {
  if (times == 0) return done();
  auto granted = [this, object, times, &samples, done](Result<std::span<std::byte>> result) {
    const auto now = Clock::now();
    const auto bytes = require(std::move(result));
    Release last;
    std::memcpy(&last, bytes.data(), sizeof last);
    if (last.at != Clock::time_point{} && last.rank != transport_.self().value)
      samples.add(std::chrono::duration<double, std::micro>(now - last.at).count());
    hold_ = loop_.after(kHold, [this, object, times, &samples, done, bytes] {
      const Release mine{transport_.self().value, Clock::now()};
      std::memcpy(bytes.data(), &mine, sizeof mine);
      kddm_.put(kSet, object);
      take_turns(object, times - 1, samples, done);
    });
  };
  kddm_.grab(kSet, object, Kddm::Touch::kFirstTouch, std::move(granted));
}

// Ranks 0 and 1 take one object from each other.
void Rank::hand_over() {
  bool theirs = false, ours = false;
  bare_us_ = meter_.round_trip_us(0);
  const ObjectId object{next_++};
  messenger_.request(NodeId{1},
                     Work{.verb = Verb::kTakeTurns, .first = object.value, .times = kHandOvers}, {},
                     [&](Result<std::string> reply) {
                       require(std::move(reply));
                       theirs = true;
                     });
  Samples samples;
  take_turns(object, kHandOvers, samples, [&] { ours = true; });
  await(theirs);
  await(ours);
  row("lock hand-over: from its put there to the grab", samples.median_us());
}

void Rank::invalidate() {
  prepare(0, {.verb = Verb::kGrab, .first = next_, .count = kInvalidated});
  prepare(1, {.verb = Verb::kGet, .first = next_, .count = kInvalidated});
  bare_us_ = meter_.round_trip_us(0);
  const auto start = Clock::now();
  uint64_t granted = 0;
  bool done = false;
  kddm_.grab_range(kSet, ObjectId{next_}, kInvalidated, Kddm::Touch::kFirstTouch,
                   [&](ObjectId object, Result<std::span<std::byte>> bytes) {
                     require(std::move(bytes));
                     kddm_.put(kSet, object);
                     done = ++granted == kInvalidated;
                   });
  await(done);
  row("grab of 1,000 objects that another has copies of", microseconds_since(start));
  next_ += kInvalidated;
}

void Rank::measure() {
  using enum Verb;
  meter_.introduce();
  std::printf("%-46s %9s %9s %7s\n", "median, microseconds", "ours", "bare", "ratio");
  measure_case("get, first touch", {}, kGet);
  measure_case("get, local", {{0, kGrab}}, kGet);
  measure_case("get from 1 node", {{1, kGrab}}, kGet);
  measure_case("get, 2 nodes have it", {{1, kGrab}, {2, kGet}}, kGet);
  measure_case("grab, first touch", {}, kGrab);
  measure_case("grab, local", {{0, kGrab}}, kGrab);
  measure_case("grab from 1 node", {{1, kGrab}}, kGrab);
  measure_case("grab, 2 nodes have it", {{1, kGrab}, {2, kGet}}, kGrab);
  measure_case("grab, 3 nodes have it", {{1, kGrab}, {2, kGet}, {3, kGet}}, kGrab);
  measure_case("grab, a copy here and 2 elsewhere", {{1, kGrab}, {0, kGet}, {2, kGet}}, kGrab);
  measure_case("grab by the owner, 3 copies elsewhere",
               {{0, kGrab}, {1, kGet}, {2, kGet}, {3, kGet}}, kGrab);
  measure_case("remove, local", {{0, kGrab}}, kRemove);
  measure_case("remove, another node has it", {{1, kGrab}}, kRemove);
  hand_over();
  invalidate();
  for (unsigned rank = 1; rank < kRanks; ++rank) prepare(rank, {.verb = kStop});
}

}  // namespace
}  // namespace krg::perf

int main() {
  using namespace krg::perf;
  auto boot = require(krg::MpiBoot::init());
  if (boot.node_count() != kRanks) {
    std::fprintf(stderr, "usage: mpirun -n 4 krg_bench_kddm\n");
    return 2;
  }
  auto loop = require(krg::EventLoop::create());
  krg::OfiOptions options = krg::OfiOptions::from_environment();
  if (options.interface.empty()) options.interface = "127.0.0.1";
  auto endpoint = require(krg::OfiEndpoint::open(loop, options));
  auto addresses = require(boot.allgather(endpoint.address()));
  auto transport = require(std::move(endpoint).connect(boot.self(), addresses));
  Rank rank(loop, *transport);
  require(boot.barrier());
  boot.self().value == 0 ? rank.measure() : rank.serve();
  return 0;
}
