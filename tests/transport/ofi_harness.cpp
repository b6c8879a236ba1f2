// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "harness.h"
#include "krg/runtime/ofi_transport.h"

namespace krg::test {
namespace {

using std::chrono::milliseconds;

constexpr unsigned kMaxNodes = 8;
constexpr unsigned kHarnessPatience_s = 60;

// What the nodes' processes share: their addresses, and how far each is.
struct Board {
  struct Address {
    std::atomic<uint32_t> length;
    char bytes[256];
  };
  Address addresses[kMaxNodes];
  std::atomic<unsigned> addressed, prepared, finished;
};

// Waits until `count` has reached `wanted`, running the loop meanwhile.
void await(EventLoop& loop, const std::atomic<unsigned>& count, unsigned wanted) {
  auto tick = loop.every(milliseconds(2), [] {});
  while (count < wanted) loop.run_once(milliseconds(2));
}

Result<std::unique_ptr<Transport>> connect(EventLoop& loop, Board& board, const OfiOptions& options,
                                           unsigned self, unsigned nodes) {
  auto endpoint = OfiEndpoint::open(loop, options);
  if (!endpoint) return endpoint.error();
  auto& mine = board.addresses[self];
  std::memcpy(mine.bytes, endpoint->address().data(), endpoint->address().size());
  mine.length = static_cast<uint32_t>(endpoint->address().size());
  ++board.addressed;
  await(loop, board.addressed, nodes);
  std::vector<std::string> addresses;
  for (unsigned n = 0; n < nodes; ++n)
    addresses.emplace_back(board.addresses[n].bytes, board.addresses[n].length);
  return std::move(*endpoint).connect(node_id(self), addresses);
}

// The life of one node's process.
void run_node(Board& board, const OfiOptions& options, unsigned self, unsigned nodes,
              unsigned survivors, const ScenarioFactory& make) {
  auto loop = EventLoop::create();
  ASSERT_TRUE(loop);
  auto transport = connect(*loop, board, options, self, nodes);
  ASSERT_TRUE(transport) << transport.error().message();
  auto scenario = make({**transport, [] { kill(getpid(), SIGKILL); }});
  scenario->prepare();
  ++board.prepared;
  await(*loop, board.prepared, nodes);
  scenario->start();
  auto tick = loop->every(milliseconds(100), [] {});
  while (!scenario->done()) loop->run_once(milliseconds(100));
  ++board.finished;
  await(*loop, board.finished, survivors);
  scenario.reset();
}

class OfiHarness final : public Harness {
 public:
  explicit OfiHarness(std::string provider) : provider_(std::move(provider)) {}
  std::string name() const override { return provider_ == "net" ? "Net" : "TcpOverRxm"; }

  void run(unsigned nodes, const ScenarioFactory& make, std::optional<unsigned> dies) override {
    ASSERT_LE(nodes, kMaxNodes);
    void* shared =
        mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(shared, MAP_FAILED);
    auto* board = new (shared) Board{};
    const OfiOptions options{.provider = provider_, .interface = "127.0.0.1"};
    std::vector<pid_t> children;
    for (unsigned n = 0; n < nodes; ++n) {
      pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(kHarnessPatience_s);
        run_node(*board, options, n, nodes, nodes - (dies ? 1 : 0), make);
        std::fflush(nullptr);
        _exit(::testing::Test::HasFailure() ? 1 : 0);
      }
      children.push_back(child);
    }
    for (unsigned n = 0; n < nodes; ++n) {
      int status = 0;
      waitpid(children[n], &status, 0);
      if (dies == n)
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "node " << n;
      else
        EXPECT_EQ(status, 0) << "node " << n;
      // No use to wait for the others when one has failed.
      if (status != 0 && dies != n)
        for (unsigned other = n + 1; other < nodes; ++other) kill(children[other], SIGKILL);
    }
    munmap(shared, sizeof(Board));
  }

 private:
  std::string provider_;
};

}  // namespace

std::unique_ptr<Harness> ofi_harness(const std::string& provider) {
  return std::make_unique<OfiHarness>(provider);
}

}  // namespace krg::test
