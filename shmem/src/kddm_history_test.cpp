// Kddm itself (protocol, messages, batches, recovery) under threads on several nodes whose accesses
// are recorded: over all objects they must be sequentially consistent. The simulator does the same
// to the bare protocol, and more of it. SPDX-License-Identifier: GPL-2.0-or-later
#include <cstdlib>
#include <random>

#include "testing/kddm_fixture.h"
#include "testing/sequential_consistency.h"

namespace krg {
namespace {

using kddm::AccessHistory;
using testing::kSet;

class KddmHistoryTest : public testing::KddmFixture {
 protected:
  static constexpr unsigned kObjects = 5;
  static constexpr unsigned kThreadsPerNode = 2;
  static constexpr unsigned kOperations = 60;  // of each thread

  // A thread gets or grabs an object, holds it for a while, sometimes takes one with a higher
  // number beside it, puts both, and goes on.
  struct Thread {
    unsigned node = 0, id = 0;
    unsigned left = kOperations;
    std::vector<uint64_t> held;
  };

  void start_threads(unsigned nodes, uint64_t seed) {
    random_.seed(seed);
    history_ = {};
    for (unsigned object = 0; object < kObjects; ++object) history_.begin_object(object, 1);
    next_value_.assign(kObjects, 1);
    threads_.assign(size_t{nodes} * kThreadsPerNode, {});
    for (unsigned id = 0; id < threads_.size(); ++id) {
      threads_[id].id = id;
      threads_[id].node = id / kThreadsPerNode;
      go_on(threads_[id]);
    }
  }
  void go_on(Thread& thread) {
    loop_->post([this, &thread] {
      if (alive_[thread.node]) next(thread);
    });
  }

  void next(Thread& thread) {
    const uint64_t above = thread.held.empty() ? 0 : thread.held.back() + 1;
    if (thread.held.empty() ? thread.left == 0 : random_() % 4 == 0) {
      if (thread.held.empty()) return;
      return go_on(thread);  // holds on
    }
    if (thread.held.size() < 2 && above < kObjects && (thread.held.empty() || random_() % 3 == 0))
      return access(thread, above + random_() % (kObjects - above));
    if (thread.held.empty()) return;
    kddms_[thread.node]->put(kSet, ObjectId{thread.held.back()});
    thread.held.pop_back();
    if (random_() % 8 == 0)
      kddms_[thread.node]->flush(kSet, ObjectId{random_() % kObjects},
                                 NodeId{static_cast<uint16_t>(random_() % kddms_.size())});
    go_on(thread);
  }

  void access(Thread& thread, uint64_t object) {
    const bool write = random_() % 2 == 0;
    if (thread.left > 0) --thread.left;
    auto use = [this, &thread, object, write](Result<std::span<std::byte>> bytes) {
      if (!alive_[thread.node]) return;
      if (bytes) {
        // Values start at 1: the history knows no 0.
        const uint64_t read = number_in(*bytes) + 1;
        const uint64_t wrote = write ? ++next_value_[object] : AccessHistory::kNothing;
        if (write) set_number(*bytes, wrote - 1);
        history_.record({thread.id, static_cast<unsigned>(object), read, wrote});
        thread.held.push_back(object);
      } else {
        EXPECT_EQ(bytes.error().errno_or(0), EOWNERDEAD) << bytes.error().message();
      }
      go_on(thread);
    };
    if (write) {
      kddms_[thread.node]->grab(kSet, ObjectId{object}, Kddm::Touch::kFirstTouch, use);
    } else {
      kddms_[thread.node]->get(kSet, ObjectId{object}, Kddm::Touch::kFirstTouch, use);
    }
  }

  bool all_done() const {
    for (const Thread& thread : threads_)
      if (alive_[thread.node] && (thread.left > 0 || !thread.held.empty())) return false;
    return true;
  }
  static unsigned seeds(unsigned otherwise) {
    const char* times = std::getenv("KRG_SIM_RUNS");
    return otherwise * (times ? static_cast<unsigned>(std::strtoul(times, nullptr, 10)) : 1);
  }

  std::mt19937_64 random_;
  AccessHistory history_;
  std::vector<uint64_t> next_value_;  // unique for each object
  std::vector<Thread> threads_;
};

TEST_F(KddmHistoryTest, IsSequentiallyConsistent) {
  for (uint64_t seed = 1; seed <= seeds(20); ++seed) {
    SCOPED_TRACE(seed);
    make(
        2 + static_cast<unsigned>(seed % 5), [](unsigned) { return KddmSetOptions{}; }, seed);
    start_threads(static_cast<unsigned>(kddms_.size()), seed);
    run_until([&] { return all_done(); });
    EXPECT_EQ(history_.violation(), "");
    EXPECT_GE(history_.size(), threads_.size() * kOperations / 2);
    if (HasFailure()) return;
    unmake();
  }
}

TEST_F(KddmHistoryTest, StaysSoWhenANodeDies) {
  for (uint64_t seed = 1; seed <= seeds(20); ++seed) {
    SCOPED_TRACE(seed);
    make(
        3 + static_cast<unsigned>(seed % 4), [](unsigned) { return KddmSetOptions{}; }, seed);
    start_threads(static_cast<unsigned>(kddms_.size()), seed);
    run_some(static_cast<unsigned>(random_() % 400));
    kill(static_cast<unsigned>(random_() % kddms_.size()));
    run_until([&] { return all_done(); });
    EXPECT_EQ(history_.violation(), "");
    if (HasFailure()) return;
    unmake();
  }
}

}  // namespace
}  // namespace krg
