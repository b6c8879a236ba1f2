// DescriptorCluster: N nodes' descriptor parts in one process over the loopback transport, each
// with a krgfs of its own, and real child processes as the programs. The test's main thread runs
// all the nodes' loops: it must not touch a krgfs itself. For unit tests; needs root and /dev/fuse,
// else the test skips. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krg/procmgr/descriptors.h"
#include "krg/runtime/loopback_transport.h"

namespace krg::testing {

inline constexpr NodeId kHome{0}, kFar{1}, kFarther{2};

// A descriptor that a program is to have under `number`.
struct GivenFd {
  int number;
  int fd;
};

class DescriptorCluster : public ::testing::Test {
 protected:
  struct Node {
    Node(EventLoop& loop, LoopbackFabric& fabric, NodeId self, unsigned count);
    Messenger messenger;
    WorkerPool workers;
    NodeContext context;
    SessionFs fs;
    SyscallBroker broker;
    Descriptors descriptors;
  };

  void SetUp() override;
  void TearDown() override;
  void make_cluster(LoopbackFabric::Options options);

  Node& node(NodeId id) { return *nodes_.at(id.value); }
  // Handles what is ready until `holds`; false when it does not within the limit.
  bool pump_until(const std::function<bool()>& holds,
                  std::chrono::milliseconds limit = std::chrono::seconds(20));
  // Until nothing is ready any more.
  void settle();

  // A process that has just the given descriptors (and 0-2 on /dev/null where not given) and runs
  // `program`, whose result is its exit status. A native process: nothing moves.
  pid_t start(const std::vector<GivenFd>& fds, const std::function<int()>& program);
  // The same as if exec had placed it on `to`: its descriptors are exported from a process on
  // `from` and imported there. `from`'s process ends at once. -1 when refused (see last_error_).
  pid_t place(NodeId from, NodeId to, const std::vector<GivenFd>& fds,
              const std::function<int()>& program);
  // A process that has the descriptors and waits: to be exported, then to be ended by end() or,
  // with the same pid, to become the body that runs `program` by start_body().
  pid_t hold(const std::vector<GivenFd>& fds, const std::function<int()>& program);
  void end(pid_t held);
  Result<std::vector<ExportedFd>> export_from(NodeId id, pid_t held,
                                              WhichFds which = WhichFds::kKeptByExec);
  Result<std::vector<ImportedFd>> import_at(NodeId id, pid_t body, std::vector<ExportedFd> fds);
  // The held process's descriptors are replaced by the imported ones, then it goes on.
  void start_body(NodeId at, pid_t held, std::vector<ImportedFd> fds);
  // Handles everything until the process has ended; its wait(2) status. A body's offsets are back
  // home then.
  int wait_for(pid_t pid);

  // Where the nodes' krgfs are mounted.
  static std::string mount_point(NodeId id);

  std::optional<EventLoop> loop_;
  std::unique_ptr<LoopbackFabric> fabric_;
  std::vector<std::unique_ptr<Node>> nodes_;
  Error last_error_;

 private:
  struct Running {
    pid_t pid;
    NodeId node;
    bool is_body;
  };
  // What a held process is to have when it goes on; shared with it.
  struct Handover {
    pid_t giver;
    int count;
    GivenFd fds[64];
  };
  Handover* handover_ = nullptr;
  static void take_over(Handover& handover);
  std::vector<Running> running_;
};

// Pipes whose ends are close-on-exec.
struct Pipe {
  Pipe();
  UniqueFd reader, writer;
};

// exec of a program found in PATH, for use inside a program: returns 127 on failure.
int run_program(const std::vector<std::string>& argv);

}  // namespace krg::testing
