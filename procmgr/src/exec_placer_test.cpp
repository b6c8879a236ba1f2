// Both ends of a placement, each against a stand-in of the other: one kernel cannot have a shadow
// and a body of the same pid. Together they are tested on virtual nodes (tests/).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/exec_placer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <cstring>
#include <deque>
#include <filesystem>

#include "body_request.h"
#include "krg/procmgr/child_reaper.h"
#include "testing/filtered_child.h"
#include "testing/free_pid.h"
#include "testing/loopback_nodes.h"
#include "testing/path_descriptors.h"

namespace krg {
namespace {

using namespace exec_messages;
using testing::FilteredChild;
using testing::free_pid;
using testing::LoopbackNodes;

constexpr NodeId kHere{0}, kThere{1};

struct AlwaysThere : Placement {
  NodeId choose(GlobalPid) override {
    ++chosen;
    return kThere;
  }
  void ended(GlobalPid) override { ++given_back; }
  void becomes(GlobalPid, GlobalPid) override {}
  std::optional<NodeId> relief(double) override { return std::nullopt; }
  int chosen = 0, given_back = 0;
};

// One node's parts, without the rest of krgd.
struct Node {
  Node(NodeContext& context, ChildReaper* reaper) : node(context) {
    node.children = reaper;
    node.paths.libexec_dir = KRG_LIBEXEC_DIR;
    EXPECT_TRUE(shadows.start());
  }
  NodeContext& node;
  SyscallBroker broker{node};
  ProcessTable table{node};
  ShadowHost shadows{node, table};
  CapabilityTable capabilities{node};
  AlwaysThere placement;
  PathDescriptors descriptors;
  KnownForkers forkers{capabilities};
  ExecPlacer placer{node, {broker, table, shadows, capabilities, forkers, placement, descriptors}};
};

// ---- the origin, against a target that only answers ----

class OriginTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    CapabilitySets sets = initial_capabilities();
    sets.effective = sets.inheritable_effective = capability_set({Capability::kDistantFork});
    ASSERT_TRUE(origin.capabilities.adopt(getpid(), sets));
    nodes[1].messenger.on_request<StartBody>(
        [this](NodeId, const StartBody& ask, std::string_view payload, Messenger::Reply reply) {
          asked = ask;
          request = std::move(*BodyRequest::parse(payload));
          if (refuse_with) return reply.fail(refuse_with);
          reply.ok();
          if (on_start) on_start();
        });
    nodes[1].messenger.on<ShadowDied>(
        [this](NodeId, const ShadowDied&, std::string_view) { shadow_died = true; });
    nodes[1].messenger.on_request<SignalProcess>(
        [this](NodeId, const SignalProcess& signal, std::string_view, Messenger::Reply reply) {
          signals.push_back(signal);
          reply.ok();
        });
  }
  // The child has no descriptors that need more than a path.
  static int exec_true() {
    close_range(0, ~0U, 0);
    execl("/bin/true", "true", "argument", nullptr);
    return 99;
  }
  void tell_end(int wait_status) {
    BodyEnded ended;
    ended.pid = asked->pid;
    ended.wait_status = wait_status;
    ended.usage.ru_maxrss = 4711;
    ASSERT_TRUE(nodes[1].messenger.send(kHere, ended));
  }

  LoopbackNodes nodes{2};
  Node origin{nodes[0], nullptr};
  std::optional<StartBody> asked;
  BodyRequest request;
  int refuse_with = 0;
  std::function<void()> on_start;
  bool shadow_died = false;
  std::deque<SignalProcess> signals;
};

TEST_F(OriginTest, AnExecOfAForkedChildStartsThereAndEndsAsItsBodyDoes) {
  std::optional<BodyEnd> end;
  origin.shadows.on_body_end([&](pid_t, const BodyEnd& how) { end = how; });
  on_start = [this] { tell_end(W_EXITCODE(42, 0)); };
  FilteredChild child(origin.broker, exec_true);
  const int status = child.wait_in(nodes.loop());
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 42);
  ASSERT_TRUE(asked);
  EXPECT_EQ(asked->pid, child.pid());
  EXPECT_EQ(asked->group, getpgrp());
  EXPECT_TRUE(asked->capabilities.effective.has(Capability::kDistantFork));
  EXPECT_EQ(std::get<ExecSpec>(request.what).path, "/bin/true");
  EXPECT_EQ(std::get<ExecSpec>(request.what).argv.strings(),
            (std::vector<std::string>{"true", "argument"}));
  ASSERT_TRUE(end);
  EXPECT_EQ(end->usage.ru_maxrss, 4711);
  EXPECT_TRUE(nodes.run_until([&] { return origin.placement.given_back == 1; }));
  EXPECT_TRUE(origin.table.shadows().empty());
  EXPECT_FALSE(shadow_died) << "it ended because its body did";
}

TEST_F(OriginTest, WhatTheTargetRefusesRunsHere) {
  refuse_with = EEXIST;
  FilteredChild child(origin.broker, exec_true);
  EXPECT_EQ(child.wait_in(nodes.loop()), 0) << "true";
  EXPECT_EQ(origin.placement.given_back, 1);
}

TEST_F(OriginTest, ASecondExecStaysWhereItIs) {
  refuse_with = EEXIST;
  FilteredChild child(origin.broker, [] {
    close_range(0, ~0U, 0);
    execl("/usr/bin/env", "env", "/bin/true", nullptr);
    return 99;
  });
  EXPECT_EQ(child.wait_in(nodes.loop()), 0);
  EXPECT_EQ(origin.placement.chosen, 1);
}

TEST_F(OriginTest, DescriptorsThatCannotComeKeepTheProcessHere) {
  FilteredChild child(origin.broker, [] {
    int ends[2];
    if (pipe(ends) != 0) return 98;
    execl("/bin/true", "true", nullptr);
    return 99;
  });
  EXPECT_EQ(child.wait_in(nodes.loop()), 0);
  EXPECT_FALSE(asked);
}

TEST_F(OriginTest, SignalsAndStopsPassBothWays) {
  on_start = [] {};
  FilteredChild child(origin.broker, [] {
    setpgid(0, 0);
    return exec_true();
  });
  ASSERT_TRUE(nodes.run_until([&] { return origin.table.find_shadow(child.pid()) != nullptr; }));
  EXPECT_EQ(origin.table.find_shadow(child.pid())->body_node, kThere);
  kill(child.pid(), SIGTERM);
  ASSERT_TRUE(nodes.run_until([&] { return signals.size() == 1; }));
  EXPECT_EQ(signals[0].signal, SIGTERM);
  EXPECT_EQ(signals[0].sender, getpid());

  BodyStopped stopped;
  stopped.pid = child.pid();
  stopped.signal = SIGTSTP;
  ASSERT_TRUE(nodes[1].messenger.send(kHere, stopped));
  int status = 0;
  auto waited = [&](int flags) {
    return nodes.run_until([&] { return waitpid(child.pid(), &status, flags | WNOHANG) > 0; });
  };
  ASSERT_TRUE(waited(WUNTRACED));
  EXPECT_TRUE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP);
  kill(child.pid(), SIGCONT);
  ASSERT_TRUE(nodes.run_until([&] { return signals.size() == 2; }));
  EXPECT_EQ(signals[1].signal, SIGCONT);
  ASSERT_TRUE(waited(WCONTINUED));

  // Stopped again, and killed there: a stopped shadow must end all the same.
  ASSERT_TRUE(nodes[1].messenger.send(kHere, stopped));
  ASSERT_TRUE(waited(WUNTRACED));
  tell_end(W_EXITCODE(0, SIGKILL));
  status = child.wait_in(nodes.loop());
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(OriginTest, AKilledShadowTakesItsBodyAlong) {
  on_start = [] {};
  FilteredChild child(origin.broker, exec_true);
  ASSERT_TRUE(nodes.run_until([&] { return origin.table.find_shadow(child.pid()) != nullptr; }));
  kill(child.pid(), SIGKILL);
  EXPECT_TRUE(nodes.run_until([&] { return shadow_died; }));
  EXPECT_EQ(origin.placement.given_back, 1);
}

TEST_F(OriginTest, ACallerThatDiesWhileItIsPlacedTakesItsBodyAlong) {
  on_start = [this] { kill(asked->pid, SIGKILL); };  // the reply is under way
  FilteredChild child(origin.broker, exec_true);
  EXPECT_TRUE(WIFSIGNALED(child.wait_in(nodes.loop())));
  EXPECT_TRUE(nodes.run_until([&] { return shadow_died; }));
  EXPECT_TRUE(origin.table.shadows().empty());
}

TEST_F(OriginTest, ShadowsOfADeadNodeDie) {
  on_start = [] {};
  FilteredChild child(origin.broker, exec_true);
  ASSERT_TRUE(nodes.run_until([&] { return origin.table.find_shadow(child.pid()) != nullptr; }));
  nodes.fabric().kill(kThere, LoopbackFabric::Death::kNoticed);
  const int status = child.wait_in(nodes.loop());
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(OriginTest, TheShadowChangesGroupAndSessionForItsBody) {
  on_start = [] {};
  FilteredChild child(origin.broker, exec_true);
  ASSERT_TRUE(nodes.run_until([&] { return origin.table.find_shadow(child.pid()) != nullptr; }));
  std::optional<Status> done;
  origin.shadows.set_group(GlobalPid{child.pid()}, -1, [&](Status s) { done = s; });
  ASSERT_TRUE(nodes.run_until([&] { return done.has_value(); }));
  EXPECT_EQ(done->error().errno_or(0), EINVAL);
  done.reset();
  origin.shadows.set_session(GlobalPid{child.pid()}, [&](Status s) { done = s; });
  ASSERT_TRUE(nodes.run_until([&] { return done.has_value(); }));
  EXPECT_TRUE(done->has_value());
  std::optional<Result<ProcessIdentity>> now;
  origin.shadows.identity(GlobalPid{child.pid()}, [&](auto found) { now = found; });
  ASSERT_TRUE(nodes.run_until([&] { return now.has_value(); }));
  ASSERT_TRUE(*now);
  EXPECT_EQ((*now)->session, child.pid());
  EXPECT_EQ((*now)->group, child.pid());
  EXPECT_EQ((*now)->parent, getpid());
}

// ---- the target, against an origin that only asks ----

class TargetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    nodes[0].messenger.on<BodyEnded>(
        [this](NodeId, const BodyEnded& e, std::string_view) { ended = e; });
    nodes[0].messenger.on<BodyStopped>(
        [this](NodeId, const BodyStopped& s, std::string_view) { stops.push_back(s.signal); });
  }
  // Asks for a shell; the answer is 0, an errno, or -1 when none comes.
  int start(pid_t pid, const std::string& script, std::string path = "/bin/sh") {
    BodyRequest request;
    ExecSpec& spec = std::get<ExecSpec>(request.what);
    spec.path = std::move(path);
    spec.cwd = "/";
    for (const std::string& text : {std::string("sh"), std::string("-c"), script})
      spec.argv.add(text);
    spec.environment.add("PATH=/bin:/usr/bin");
    for (size_t i = 0; i < spec.attributes.limits.size(); ++i)
      getrlimit(static_cast<__rlimit_resource>(i), &spec.attributes.limits[i]);
    StartBody ask;
    ask.origin = kHere;
    ask.pid = pid;
    ask.group = 17;
    ask.session = 16;
    ask.capabilities = initial_capabilities();
    std::optional<int> answer;
    nodes[0].messenger.request(kThere, ask, request.serialize(), [&](Result<std::string> reply) {
      answer = reply ? 0 : reply.error().errno_or(EIO);
    });
    nodes.run_until([&] {
      if (!could_be_claimed && target.table.find_body(pid))
        could_be_claimed = target.table.claim(pid).has_value();
      return answer.has_value();
    });
    return answer.value_or(-1);
  }
  bool wait_for_end() {
    return nodes.run_until([&] { return ended.has_value(); });
  }

  LoopbackNodes nodes{2};
  std::unique_ptr<ChildReaper> reaper = std::move(*ChildReaper::create(nodes.loop()));
  Node target{nodes[1], reaper.get()};
  std::optional<BodyEnded> ended;
  std::vector<int> stops;
  std::optional<bool> could_be_claimed;  // when there was a body for the first time
};

TEST_F(TargetTest, ABodyRunsAndItsEndIsToldWithItsUsage) {
  const pid_t pid = free_pid();
  ASSERT_EQ(start(pid, "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; exit 9"), 0);
  ASSERT_NE(target.table.find_body(pid), nullptr);
  EXPECT_EQ(target.table.find_body(pid)->virtual_group, 17);
  EXPECT_EQ(target.table.find_body(pid)->origin, kHere);
  ASSERT_TRUE(wait_for_end());
  EXPECT_EQ(ended->pid, pid);
  EXPECT_TRUE(WIFEXITED(ended->wait_status) && WEXITSTATUS(ended->wait_status) == 9);
  EXPECT_GT(ended->usage.ru_maxrss, 0);
  EXPECT_EQ(target.table.find_body(pid), nullptr);
}

// A family's capture would stop it before its exec, for which its parent may wait in vfork(2).
TEST_F(TargetTest, NobodyStopsABodyBeforeItsExec) {
  const pid_t pid = free_pid();
  ASSERT_EQ(start(pid, "kill -STOP $$"), 0);
  EXPECT_EQ(could_be_claimed, false);
  EXPECT_TRUE(target.table.claim(pid).has_value());
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  EXPECT_TRUE(wait_for_end());
}

TEST_F(TargetTest, DeathStopAndContinueAreTold) {
  const pid_t pid = free_pid();
  ASSERT_EQ(start(pid, "kill -STOP $$; while :; do :; done"), 0);
  ASSERT_TRUE(nodes.run_until([&] { return stops.size() == 1; }));
  EXPECT_EQ(stops[0], SIGSTOP);
  SignalProcess signal;
  signal.pid = pid;
  signal.signal = SIGCONT;
  std::optional<bool> sent;
  const auto hear = [&](Result<std::string> reply) { sent = reply.has_value(); };
  nodes[0].messenger.request(kThere, signal, {}, hear);
  // Before its death, which the kernel tells in the place of all else.
  ASSERT_TRUE(nodes.run_until([&] { return stops.size() == 2 && sent; }));
  EXPECT_EQ(sent, true);
  EXPECT_EQ(stops[1], 0);
  signal.signal = SIGUSR1;
  nodes[0].messenger.request(kThere, signal, {}, hear);
  ASSERT_TRUE(wait_for_end());
  EXPECT_TRUE(WIFSIGNALED(ended->wait_status) && WTERMSIG(ended->wait_status) == SIGUSR1);
}

TEST_F(TargetTest, AFailedExecLeavesNoBody) {
  const pid_t pid = free_pid();
  EXPECT_EQ(start(pid, "", "/nowhere"), ENOENT);
  EXPECT_EQ(target.table.find_body(pid), nullptr);
  EXPECT_EQ(start(getpid(), ""), EEXIST);
  nodes.loop().run_once(std::chrono::milliseconds(20));
  EXPECT_FALSE(ended) << "nobody hears of it";
}

TEST_F(TargetTest, ABodyDiesWithItsShadowOrItsOriginsNode) {
  const pid_t first = free_pid(), second = free_pid();
  ASSERT_EQ(start(first, "sleep 20 & kill -STOP $$"), 0);
  ASSERT_TRUE(nodes.run_until([&] { return stops.size() == 1; }));  // the child exists
  ShadowDied died;
  died.pid = first;
  ASSERT_TRUE(nodes[0].messenger.send(kThere, died));
  ASSERT_TRUE(wait_for_end());
  EXPECT_EQ(WTERMSIG(ended->wait_status), SIGKILL);
  ASSERT_NE(target.table.find_group(first), nullptr) << "its child is still there";
  kill(-first, SIGKILL);

  ASSERT_EQ(start(second, "exec sleep 20"), 0);
  nodes.fabric().kill(kHere, LoopbackFabric::Death::kNoticed);
  EXPECT_TRUE(nodes.run_until([&] { return kill(second, 0) != 0; }));
}

TEST(PathDescriptors, TakesPathsAndRefusesSharedState) {
  PathDescriptors descriptors;
  const pid_t child = fork();
  if (child == 0) {
    close_range(0, ~0U, 0);
    if (open("/dev/null", O_RDWR) != 0 || open("/tmp", O_RDONLY) != 1) _exit(1);
    open("/dev/zero", O_RDONLY | O_CLOEXEC);
    pause();
  }
  const std::string last = "/proc/" + std::to_string(child) + "/fd/2";
  std::error_code none_yet;
  for (int i = 0; i < 10000 && std::filesystem::read_symlink(last, none_yet) != "/dev/zero"; ++i)
    usleep(1000);
  std::vector<ExportedFd> exported;
  descriptors.export_fds(child, WhichFds::kKeptByExec, [&](Result<std::vector<ExportedFd>> fds) {
    ASSERT_TRUE(fds);
    exported = std::move(*fds);
  });
  EXPECT_EQ(exported.size(), 2u);
  descriptors.import_fds(child, exported, [&](Result<std::vector<ImportedFd>> fds) {
    ASSERT_TRUE(fds);
    struct stat file {};
    ASSERT_EQ(fstat((*fds)[0].fd.get(), &file), 0);
    EXPECT_TRUE(S_ISCHR(file.st_mode));
  });
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  descriptors.export_fds(getpid(), WhichFds::kKeptByExec, [](Result<std::vector<ExportedFd>> fds) {
    ASSERT_FALSE(fds);
    EXPECT_EQ(fds.error().errno_or(0), ENOTSUP);
  });
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace krg
