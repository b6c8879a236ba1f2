// A node that only stands still is declared dead in the middle of a get; when it goes on, nothing
// may be written any more to memory whose get has completed.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "harness.h"
#include "one_sided_scenarios.h"

namespace krg::test {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kStandstill{700}, kDeclaredAfter{200}, kWatched{1200};

// Stops this process; a child wakes it up later.
void stand_still() {
  const pid_t sleeper = getpid();
  const pid_t waker = fork();
  if (waker == 0) {
    usleep(std::chrono::microseconds(kStandstill).count());
    kill(sleeper, SIGCONT);
    _exit(0);
  }
  raise(SIGSTOP);
}

// Node 0 gets from node 1, which stops meanwhile.
class StoppedNode : public WithRegions {
 public:
  using WithRegions::WithRegions;
  static constexpr HandlerId kStop = 30;
  static constexpr std::byte kMark{0xee};

  void prepare() override {
    WithRegions::prepare();
    transport().set_handler(kStop,
                            [this](NodeId, std::span<const std::byte>, std::span<const std::byte>) {
                              stand_still();
                              finished_ = true;
                            });
  }
  bool done() const override { return finished_; }

 protected:
  size_t region_bytes() const override { return 64u << 20; }
  void start_with_regions() override {
    if (self() != 0) return;
    buffer_.resize(region_bytes());
    transport().get(node_id(1), remote_[1], 0, buffer_, [this](Status got) {
      EXPECT_EQ(error_number(got), EHOSTDOWN);
      std::fill(buffer_.begin(), buffer_.end(), kMark);  // the memory is used for something else
      completed_ = true;
    });
    EXPECT_EQ(error_number(transport().send(node_id(1), kStop, {}, {})), 0);
    declare_ = transport().loop().after(kDeclaredAfter, [this] {
      EXPECT_FALSE(completed_);
      transport().mark_failed(node_id(1));
    });
    look_ = transport().loop().after(kDeclaredAfter + kWatched, [this] {
      EXPECT_TRUE(completed_);
      EXPECT_EQ(static_cast<size_t>(std::count(buffer_.begin(), buffer_.end(), kMark)),
                buffer_.size());
      finished_ = true;
    });
  }

 private:
  std::vector<std::byte> buffer_;
  EventLoop::Timer declare_, look_;
  bool completed_ = false, finished_ = false;
};

TEST(StoppedNodeOnOfi, WritesNothingAfterItWasDeclaredDead) {
  for (const char* provider : {"net", "tcp;ofi_rxm"}) {
    SCOPED_TRACE(provider);
    ofi_harness(provider)->run(2, scenario<StoppedNode>(), std::nullopt);
  }
}

}  // namespace
}  // namespace krg::test
