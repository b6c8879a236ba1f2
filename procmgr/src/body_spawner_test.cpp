// SPDX-License-Identifier: GPL-2.0-or-later
#include "body_spawner.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>

#include "testing/free_pid.h"
#include "testing/loopback_nodes.h"

namespace krg {
namespace {

using testing::free_pid;
using testing::LoopbackNodes;

// Bodies whose output the test reads back; the test reaps them itself.
class BodySpawnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "lacks root: pids are given (clone3 set_tid)";
    output = UniqueFd(open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    ASSERT_TRUE(output);
  }
  static ExecSpec shell(const std::string& script) {
    ExecSpec spec;
    spec.path = "/bin/sh";
    spec.cwd = "/";
    for (const std::string& text : {std::string("sh"), std::string("-c"), script})
      spec.argv.add(text);
    spec.environment.add("PATH=/usr/bin:/bin");
    ProcessAttributes& a = spec.attributes;
    a.capabilities_bounding = a.capabilities_permitted = a.capabilities_effective = ~0ULL >> 23;
    a.umask = 022;
    for (size_t i = 0; i < a.limits.size(); ++i)
      getrlimit(static_cast<__rlimit_resource>(i), &a.limits[i]);
    return spec;
  }
  // What spawn() told, with the child's wait status if it was reaped.
  struct Outcome {
    Result<int> started = errno_error("no answer", ETIMEDOUT);
    int status = -1;
    std::string text;
  };
  Outcome run(ExecSpec spec, pid_t pid, std::vector<ImportedFd> extra = {}) {
    Outcome outcome;
    bool answered = false, created = false;
    BodySpawner::Request request;
    request.pid = pid;
    request.spec = std::move(spec);
    request.fds = std::move(extra);
    request.fds.push_back({1, UniqueFd(fcntl(output.get(), F_DUPFD_CLOEXEC, 0))});
    request.on_created = [&] { created = true; };
    spawner.spawn(std::move(request), [&](Result<int> started) {
      outcome.started = std::move(started);
      answered = true;
    });
    EXPECT_TRUE(nodes.run_until([&] { return answered; }));
    if (!created) return outcome;
    EXPECT_TRUE(nodes.run_until([&] { return waitpid(pid, &outcome.status, WNOHANG) == pid; }));
    char buffer[4096];
    ssize_t length = pread(output.get(), buffer, sizeof buffer, 0);
    outcome.text.assign(buffer, static_cast<size_t>(std::max<ssize_t>(length, 0)));
    return outcome;
  }

  LoopbackNodes nodes{1};
  SyscallBroker broker{nodes.loop()};
  BodySpawner spawner{nodes[0], broker};
  UniqueFd output;
};

TEST_F(BodySpawnerTest, RunsTheProgramWithItsPid) {
  const pid_t pid = free_pid();
  Outcome outcome = run(shell("echo $$ $PWD; exit 3"), pid);
  ASSERT_TRUE(outcome.started) << outcome.started.error().message();
  EXPECT_EQ(*outcome.started, 0);
  EXPECT_EQ(outcome.text, std::to_string(pid) + " /\n");
  ASSERT_TRUE(WIFEXITED(outcome.status));
  EXPECT_EQ(WEXITSTATUS(outcome.status), 3);
}

TEST_F(BodySpawnerTest, RestoresAttributes) {
  ExecSpec spec = shell(
      "umask; ulimit -n; id -u; id -g; id -G; nice; pwd; cut -d' ' -f5 /proc/$$/stat;"
      "grep -E '^(SigIgn|Cap(Eff|Bnd)|NoNewPrivs)' /proc/$$/status; exec 2>&1; ls "
      "/proc/$$/fd");
  spec.cwd = "/usr";
  spec.groups = {5, 6};
  ProcessAttributes& a = spec.attributes;
  a.umask = 0027;
  a.limits[RLIMIT_NOFILE] = {99, 100};
  a.uids = {1234, 1234, 1234};
  a.gids = {4321, 4321, 4321};
  a.nice = 3;
  a.ignored_signals = 1ULL << (SIGHUP - 1);
  a.capabilities_permitted = a.capabilities_effective = 0;
  a.capabilities_bounding = 0xff;
  a.no_new_privs = 1;
  const pid_t pid = free_pid();
  chmod(("/proc/self/fd/" + std::to_string(output.get())).c_str(), 0666);
  Outcome outcome = run(std::move(spec), pid);
  ASSERT_TRUE(outcome.started) << outcome.started.error().message();
  // ls has 0 (none here), 1, 2 and what it opens itself.
  EXPECT_EQ(outcome.text, "0027\n99\n1234\n4321\n4321 5 6\n3\n/usr\n" + std::to_string(pid) +
                              "\nSigIgn:\t0000000000000001\n"
                              "CapEff:\t0000000000000000\nCapBnd:\t00000000000000ff\n"
                              "NoNewPrivs:\t1\n1\n2\n");
  struct stat own {};
  EXPECT_EQ(stat("/proc/self/fd", &own), 0);
  EXPECT_EQ(own.st_uid, 0u) << "krgd stays dumpable";
}

TEST_F(BodySpawnerTest, RestoresTheSignalMask) {
  ExecSpec spec = shell("");  // which clears its own
  spec.path = "/bin/grep";
  spec.argv = {};
  for (const char* text : {"grep", "SigBlk", "/proc/self/status"}) spec.argv.add(text);
  spec.attributes.blocked_signals = 1ULL << (SIGUSR1 - 1);
  EXPECT_EQ(run(std::move(spec), free_pid()).text, "SigBlk:\t0000000000000200\n");
}

TEST_F(BodySpawnerTest, PlacesDescriptorsWhateverTheirNumbersAre) {
  // Sources and targets cross: 5 comes from what is 6 here and the other way round.
  std::vector<ImportedFd> fds;
  UniqueFd a(memfd_create("a", MFD_CLOEXEC)), b(memfd_create("b", MFD_CLOEXEC));
  ASSERT_EQ(write(a.get(), "A\n", 2), 2);
  ASSERT_EQ(write(b.get(), "B\n", 2), 2);
  const int first = a.get(), second = b.get();
  fds.push_back({second, std::move(a)});
  fds.push_back({first, std::move(b)});
  Outcome outcome = run(shell("cat /proc/self/fd/" + std::to_string(first) + " /proc/self/fd/" +
                              std::to_string(second)),
                        free_pid(), std::move(fds));
  ASSERT_TRUE(outcome.started);
  EXPECT_EQ(outcome.text, "B\nA\n");
}

TEST_F(BodySpawnerTest, TellsExecsErrorsFromItsOwn) {
  ExecSpec missing = shell("");
  missing.path = "/nowhere";
  Outcome outcome = run(std::move(missing), free_pid());
  ASSERT_TRUE(outcome.started) << outcome.started.error().message();
  EXPECT_EQ(*outcome.started, ENOENT);
  ExecSpec homeless = shell("");
  homeless.cwd = "/nowhere";
  outcome = run(std::move(homeless), free_pid());
  ASSERT_FALSE(outcome.started);
  EXPECT_EQ(outcome.started.error().errno_or(0), ENOENT);
  EXPECT_NE(outcome.started.error().message().find("working directory"), std::string::npos);
  outcome = run(shell(""), getpid());
  ASSERT_FALSE(outcome.started);
  EXPECT_EQ(outcome.started.error().errno_or(0), EEXIST);
}

TEST_F(BodySpawnerTest, ABodyIsUnderTheFilter) {
  int stopped = 0;
  broker.set_handler(SYS_execve, [&](SyscallBroker::Call call) {
    ++stopped;
    call.go_on();
  });
  Outcome outcome = run(shell("/bin/true; /bin/true"), free_pid());
  ASSERT_TRUE(outcome.started);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(stopped, 2) << "the exec of the body itself is not asked about";
}

TEST_F(BodySpawnerTest, StartsAndEndsManyAtOnce) {
  constexpr int kBodies = 50;
  std::vector<pid_t> pids;
  int started = 0;
  for (int i = 0; i < kBodies; ++i) {
    BodySpawner::Request request;
    request.pid = free_pid();
    pids.push_back(request.pid);
    request.spec = shell("exit " + std::to_string(i));
    request.on_created = [] {};
    spawner.spawn(std::move(request), [&](Result<int> result) {
      EXPECT_TRUE(result && *result == 0);
      ++started;
    });
  }
  EXPECT_TRUE(nodes.run_until([&] { return started == kBodies; }));
  for (int i = 0; i < kBodies; ++i) {
    int status = -1;
    const pid_t pid = pids[static_cast<size_t>(i)];
    EXPECT_TRUE(nodes.run_until([&] { return waitpid(pid, &status, WNOHANG) == pid; }));
    EXPECT_EQ(WEXITSTATUS(status), i);
  }
}

}  // namespace
}  // namespace krg
