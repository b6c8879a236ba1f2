// The protocol under the simulator (testing/sim_cluster.h). KRG_SIM_RUNS=n runs n times as many
// seeds; KRG_SIM_SEED=n replays one. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>

#include "testing/sim_cluster.h"
#include "testing/sim_seeds.h"

namespace krg::kddm {
namespace {

// Says which seed it was when the protocol itself aborts (check()).
char announcement[160];
size_t announcement_bytes = 0;
void announce(int) {
  if (write(STDERR_FILENO, announcement, announcement_bytes) < 0) _exit(1);
}

class KddmSimulation : public ::testing::Test {
 protected:
  void SetUp() override {
    struct sigaction action {};
    action.sa_handler = announce;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGABRT, &action, nullptr);
  }
  void TearDown() override { signal(SIGABRT, SIG_DFL); }

  static std::string replay(uint64_t seed) {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    return "replay with KRG_SIM_SEED=" + std::to_string(seed) + " --gtest_filter=KddmSimulation." +
           test->name();
  }
  static bool run(SimCluster& cluster, uint64_t seed) {
    announcement_bytes = static_cast<size_t>(
        std::snprintf(announcement, sizeof announcement, "%s\n", replay(seed).c_str()));
    const bool held = cluster.run();
    EXPECT_TRUE(held) << cluster.failure() << "\n" << replay(seed);
    return held;
  }
  // Runs seeds until one fails; `vary` makes a seed's options. Returns the last cluster's counts.
  struct Totals {
    uint64_t grants = 0, evictions = 0, lost = 0, accesses = 0;
  };
  template <class Vary>
  static Totals run_seeds(unsigned count, Vary vary) {
    Totals totals;
    for (uint64_t seed = first_seed(); seed < first_seed() + seed_count(count); ++seed) {
      SimOptions options = vary(seed);
      options.seed = seed;
      SimCluster cluster(options);
      if (!run(cluster, seed)) break;
      totals.grants += cluster.grants();
      totals.evictions += cluster.evictions();
      totals.lost += cluster.lost_objects();
      totals.accesses += cluster.recorded_accesses();
    }
    return totals;
  }
};

SimOptions small_cluster(uint64_t seed) {
  SimOptions options;
  options.nodes = 2 + seed % 7;
  options.objects = 1 + seed % 4;
  options.threads_per_node = 1 + seed % 4;
  options.steps = 10'000;
  options.remove_percent = 0;
  options.grab_percent = 15 + seed % 3 * 30;
  options.give_percent = 2 + seed % 5 * 15;
  return options;
}

TEST_F(KddmSimulation, HistoriesAreSequentiallyConsistent) {
  const Totals totals = run_seeds(80, small_cluster);
  EXPECT_GT(totals.accesses, 1000u);
}

TEST_F(KddmSimulation, RemovalsNeverHangNorLeaveTwoOwners) {
  run_seeds(40, [](uint64_t seed) {
    SimOptions options = small_cluster(seed);
    options.remove_percent = 15;
    options.give_percent = 10;
    return options;
  });
}

TEST_F(KddmSimulation, SurvivorsGoOnAndOnlyLostObjectsAreLost) {
  const Totals totals = run_seeds(80, [](uint64_t seed) {
    SimOptions options = small_cluster(seed);
    options.nodes = 3 + seed % 6;
    options.objects = 4;
    options.steps = 6'000;
    options.remove_percent = seed % 2 ? 5 : 0;
    options.kill_every_steps = 900;
    return options;
  });
  if (seed_count(80) > 1) {
    EXPECT_GT(totals.lost, 10u) << "the runs include losses";
  }
}

TEST_F(KddmSimulation, RemovalsAndLossesNeverHang) {
  run_seeds(40, [](uint64_t seed) {
    SimOptions options = small_cluster(seed);
    options.nodes = 3 + seed % 6;
    options.steps = 6'000;
    options.remove_percent = 15;
    options.kill_every_steps = 900;
    return options;
  });
}

TEST_F(KddmSimulation, NodesStayBelowTheirMemoryLimits) {
  const Totals totals = run_seeds(40, [](uint64_t seed) {
    SimOptions options = small_cluster(seed);
    options.objects = 16;
    options.memory_limit = options.objects / options.nodes + 1;
    options.remove_percent = seed % 2 ? 3 : 0;
    options.give_percent = options.drop_percent = 0;  // whatever moves is evicted
    options.kill_every_steps = seed % 4 == 3 ? 4'000 : 0;
    if (options.kill_every_steps > 0) options.memory_limit = 16;
    return options;
  });
  EXPECT_GT(totals.evictions, 100u);
}

TEST_F(KddmSimulation, ManyNodes) {
  const Totals totals = run_seeds(1, [](uint64_t) {
    SimOptions options = small_cluster(0);
    options.nodes = 1024;
    options.objects = 4;
    options.threads_per_node = 1;
    options.steps = 200'000;
    options.nest_percent = 5;
    return options;
  });
  EXPECT_GT(totals.grants, 1000u);
}

TEST_F(KddmSimulation, ManyNodesOfWhichSomeDie) {
  run_seeds(1, [](uint64_t) {
    SimOptions options = small_cluster(0);
    options.nodes = 256;
    options.objects = 8;
    options.threads_per_node = 1;
    options.steps = 100'000;
    options.remove_percent = 1;
    options.kill_every_steps = 10'000;
    return options;
  });
}

TEST_F(KddmSimulation, ASeedReplaysExactly) {
  SimOptions options = small_cluster(first_seed());
  options.remove_percent = 5;
  options.kill_every_steps = 3'000;
  uint64_t digests[2];
  for (uint64_t& digest : digests) {
    SimCluster cluster(options);
    ASSERT_TRUE(run(cluster, options.seed));
    digest = cluster.digest();
  }
  EXPECT_EQ(digests[0], digests[1]);
}

// Runs seeds with a fault put in, in a child process since the protocol may abort. Returns whether
// one of them failed.
bool finds(Fault fault) {
  const pid_t child = fork();
  if (child == 0) {
    dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
    signal(SIGABRT, SIG_DFL);
    for (uint64_t seed = 1; seed <= 4000; ++seed) {
      SimOptions options = small_cluster(seed);
      options.seed = seed;
      options.steps = 200 + seed % 8 * 300;  // short: what hangs may get free again by a gift
      options.fault = fault;
      SimCluster cluster(options);
      if (!cluster.run()) _exit(1);
    }
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
  }
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

TEST_F(KddmSimulation, FindsTheFaultsThatArePutIn) {
  for (unsigned fault = 1; fault < kFaultCount; ++fault)
    EXPECT_TRUE(finds(static_cast<Fault>(fault))) << name_of(static_cast<Fault>(fault));
}

// The rows of the table in shmem/README.md: | STATE | event | NEXT, NEXT |
std::set<std::string> documented_rows() {
  std::set<std::string> rows;
  std::ifstream readme(KRG_SHMEM_README);
  EXPECT_TRUE(readme) << KRG_SHMEM_README;
  bool in_table = false;
  for (std::string line; std::getline(readme, line);) {
    if (line.rfind("| state | event |", 0) == 0) in_table = true;
    if (in_table && line.empty()) break;
    if (in_table && line.rfind("| `", 0) == 0) rows.insert(line);
  }
  return rows;
}

std::string row(State state, unsigned event, uint16_t next) {
  std::string text = "| `" + std::string(name_of(state)) + "` | ";
  text += std::string(name_of_event(event)) + " | ";
  const char* separator = "";
  for (unsigned to = 0; to < kStateCount; ++to) {
    if (!(next >> to & 1)) continue;
    text += separator + ("`" + std::string(name_of(static_cast<State>(to))) + "`");
    separator = ", ";
  }
  return text + " |";
}

std::set<std::string> observed_rows() {
  Transitions seen{};
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SimOptions options = small_cluster(seed);
    options.seed = seed;
    options.remove_percent = seed % 2 ? 12 : 2;
    options.drop_percent = 10;
    SimCluster cluster(options);
    EXPECT_TRUE(cluster.run()) << cluster.failure();
    for (unsigned state = 0; state < kStateCount; ++state)
      for (unsigned event = 0; event < kEventCount; ++event)
        seen[state][event] |= cluster.transitions()[state][event];
  }
  std::set<std::string> rows;
  for (unsigned state = 0; state < kStateCount; ++state)
    for (unsigned event = 0; event < kEventCount; ++event) {
      const uint16_t next = seen[state][event];
      // The table leaves out what changes nothing.
      if (next != 0 && next != 1u << state)
        rows.insert(row(static_cast<State>(state), event, next));
    }
  return rows;
}

// Each transition that the protocol takes stands in the README, and each that stands there is
// taken.
TEST_F(KddmSimulation, TheTableInTheReadmeIsTheProtocol) {
  const auto documented = documented_rows(), observed = observed_rows();
  for (const std::string& line : observed)
    EXPECT_TRUE(documented.count(line)) << "not in shmem/README.md: " << line;
  for (const std::string& line : documented)
    EXPECT_TRUE(observed.count(line)) << "the protocol does not do: " << line;
  if (!HasFailure()) return;
  std::string table;
  for (const std::string& line : observed) table += line + "\n";
  std::printf("the table now:\n%s", table.c_str());
}

}  // namespace
}  // namespace krg::kddm
