// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "harness.h"
#include "krg/runtime/boot.h"
#include "krg/runtime/mpi_transport.h"

namespace krg::test {
namespace {

using std::chrono::milliseconds;

constexpr unsigned kPatience_s = 60;
constexpr HandlerId kFinished = 254;

// MPI is initialized once per process: all tests share the boot.
class MpiJob : public ::testing::Environment {
 public:
  void SetUp() override {
    auto made = MpiBoot::init();
    ASSERT_TRUE(made) << made.error().message();
    boot.emplace(std::move(*made));
  }
  void TearDown() override { boot.reset(); }
  std::optional<MpiBoot> boot;
};

bool started_by_mpirun() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr;
}

class MpiHarness final : public Harness {
 public:
  explicit MpiHarness(MpiJob* job) : job_(job) {}
  std::string name() const override { return "Mpi"; }
  std::string why_not() const override {
    return started_by_mpirun() ? "" : "not started by mpirun";
  }

  void run(unsigned nodes, const ScenarioFactory& make, std::optional<unsigned>) override {
    MpiBoot& boot = *job_->boot;
    ASSERT_EQ(boot.node_count(), nodes);
    alarm(kPatience_s);
    auto loop = EventLoop::create();
    ASSERT_TRUE(loop);
    auto transport = make_mpi_transport(*loop, boot);
    ASSERT_TRUE(transport) << transport.error().message();
    unsigned finished = 0;
    (*transport)
        ->set_handler(kFinished, [&](NodeId, std::span<const std::byte>,
                                     std::span<const std::byte>) { ++finished; });
    auto scenario = make({**transport, [] { std::abort(); }});
    scenario->prepare();
    ASSERT_TRUE(boot.barrier());
    scenario->start();
    while (!scenario->done()) loop->run_once(milliseconds(100));
    for (unsigned n = 0; n < nodes; ++n) {
      Status sent = (*transport)->send(node_id(n), kFinished, {}, {});
      while (!sent && sent.error().errno_or(0) == ENOBUFS) {
        loop->run_once(milliseconds(1));
        sent = (*transport)->send(node_id(n), kFinished, {}, {});
      }
      EXPECT_TRUE(sent);
    }
    while (finished < nodes) loop->run_once(milliseconds(100));
    scenario.reset();
    alarm(0);
  }

 private:
  MpiJob* job_;
};

}  // namespace

std::unique_ptr<Harness> mpi_harness() {
  // GoogleTest owns it; under mpirun it is registered before the tests run, when the suite is
  // instantiated and names its parameters.
  static MpiJob* job = [] {
    auto made = std::make_unique<MpiJob>();
    return started_by_mpirun()
               ? static_cast<MpiJob*>(::testing::AddGlobalTestEnvironment(made.release()))
               : nullptr;
  }();
  return std::make_unique<MpiHarness>(job);
}

}  // namespace krg::test
