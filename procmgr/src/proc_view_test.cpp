// The trees "proc" and "cpu" of node 0 of a cluster of two, mounted. Node 1's session is a PID
// namespace of its own with a procfs of its own. SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/proc_view.h"

#include <dirent.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cpu_numbers.h"
#include "krg/runtime/loopback_transport.h"
#include "krgfs_fixture.h"
#include "pid_texts.h"

namespace krg {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kNodes = 2;
// Pids are shared out as in a large cluster, so that node 1's are below any machine's pid_max.
constexpr unsigned kNodesOfThePidSpace = 4096;
constexpr pid_t kNobodys = 99;  // so far behind the first program's is a pid that nobody has

std::string slurp(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

size_t count_of(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

uint64_t number_after(const std::string& text, const std::string& key) {
  size_t at = text.find(key);
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + key.size(), nullptr, 10);
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::unique_ptr<DIR, int (*)(DIR*)> open(opendir(directory.c_str()), closedir);
  while (const dirent* entry = open ? readdir(open.get()) : nullptr) names.push_back(entry->d_name);
  return names;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A child with a pid of our choice that waits for signals. 0 when the pid is taken.
pid_t make_child(pid_t pid) {
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  arguments.set_tid = reinterpret_cast<uint64_t>(&pid);
  arguments.set_tid_size = 1;
  auto child = static_cast<pid_t>(syscall(SYS_clone3, &arguments, sizeof arguments));
  if (child < 0) return 0;
  if (child > 0) {
    setpgid(child, child);  // before anybody looks
    return child;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (;;) pause();
}

// The session of another node: a PID namespace with an init, which has mounted its procfs, and four
// programs.
class OtherSession {
 public:
  static constexpr int kPrograms = 4;

  // `first`: the pid of the first program; the others follow.
  OtherSession(const std::string& procfs, pid_t first) {
    clone_args arguments{};
    arguments.flags = CLONE_NEWPID;
    arguments.exit_signal = SIGCHLD;
    init_ = static_cast<pid_t>(syscall(SYS_clone3, &arguments, sizeof arguments));
    if (init_ == 0) run(procfs, first);
  }
  ~OtherSession() {
    kill(init_, SIGKILL);
    waitpid(init_, nullptr, 0);
  }
  OtherSession(const OtherSession&) = delete;
  OtherSession& operator=(const OtherSession&) = delete;

 private:
  [[noreturn]] static void run(const std::string& procfs, pid_t first) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (mount("proc", procfs.c_str(), "proc", 0, nullptr) != 0) _exit(1);
    for (pid_t pid = first; pid < first + kPrograms; ++pid) {
      clone_args arguments{};
      arguments.exit_signal = SIGCHLD;
      arguments.set_tid = reinterpret_cast<uint64_t>(&pid);
      arguments.set_tid_size = 1;
      if (syscall(SYS_clone3, &arguments, sizeof arguments) == 0) {
        setenv("COLOUR", "blue", 1);
        execlp("sleep", "other (node) S", "1000", nullptr);
        _exit(1);
      }
    }
    for (;;) pause();
  }
  pid_t init_ = 0;
};

class ProcViewTest : public KrgfsFixture {
 protected:
  struct Node {
    Node(EventLoop& loop, WorkerPool& workers, Transport& transport, const std::string& root)
        : messenger(transport),
          context{loop,
                  workers,
                  messenger,
                  transport.self(),
                  kNodes,
                  PidRange(transport.self(), kNodesOfThePidSpace),
                  SessionPaths{"", root, ""}},
          table(context),
          capabilities(loop),
          resources(context) {}
    Messenger messenger;
    NodeContext context;
    ProcessTable table;
    CapabilityTable capabilities;
    NodeResources resources;
    std::unique_ptr<ProcView> view;
  };

  void SetUp() override {
    KrgfsFixture::SetUp();
    if (IsSkipped()) return;
    std::string name = testing::TempDir() + "viewXXXXXX";
    directory_ = mkdtemp(name.data());
    fs::create_directories(directory_ + "/0");
    fs::create_symlink("/proc", directory_ + "/0/proc");
    fs::create_directories(directory_ + "/1/proc");
    other_pid_ = free_pids_of_node_1();
    other_.emplace(directory_ + "/1/proc", other_pid_);
    for (int program = 0; program < OtherSession::kPrograms; ++program)
      ASSERT_TRUE(wait_for(std::to_string(other_pid_ + program) + "/stat", "(sleep) S "));
    workers_.emplace(*loop_, 2);
    fabric_.emplace(*loop_, LoopbackFabric::Options{.nodes = kNodes});
    for (uint16_t i = 0; i < kNodes; ++i) {
      nodes_[i] = std::make_unique<Node>(*loop_, *workers_, fabric_->node(NodeId{i}),
                                         directory_ + "/" + std::to_string(i));
      SessionFs& fs = i == 0 ? *fs_ : other_fs_.emplace(*loop_);
      auto view = ProcView::create(nodes_[i]->context, fs, nodes_[i]->table,
                                   nodes_[i]->capabilities, nodes_[i]->resources);
      ASSERT_TRUE(view) << view.error().message();
      nodes_[i]->view = std::move(*view);
    }
    serve();
  }
  void TearDown() override {
    KrgfsFixture::TearDown();
    for (auto& node : nodes_) node.reset();
    other_fs_.reset();
    fabric_.reset();
    workers_.reset();
    other_.reset();
    if (directory_.empty()) return;
    umount2((directory_ + "/1/proc").c_str(), MNT_DETACH);
    fs::remove_all(directory_);
  }
  // The first of some pids of node 1 that this machine does not use, so that a shadow can have one.
  static pid_t free_pids_of_node_1() {
    PidRange range(NodeId{1}, kNodesOfThePidSpace);
    const auto is_in_use = [](pid_t pid) { return fs::exists("/proc/" + std::to_string(pid)); };
    pid_t first = range.first();
    for (pid_t pid = first; pid < first + OtherSession::kPrograms && pid < range.end(); ++pid)
      if (is_in_use(pid) || is_in_use(pid + kNobodys)) first = pid + 1;
    return first;
  }
  // Until a file of node 1's procfs says `what`.
  bool wait_for(const std::string& path, const std::string& what) const {
    const std::string file = directory_ + "/1/proc/" + path;
    for (int i = 0; i < 2000 && slurp(file).find(what) == std::string::npos; ++i) usleep(5000);
    return slurp(file).find(what) != std::string::npos;
  }
  static std::string proc(const std::string& path) { return "/mnt/proc/" + path; }
  std::string other(const std::string& file, int program = 0) {
    return proc(std::to_string(other_pid_ + program) + "/" + file);
  }

  pid_t other_pid_ = 0;  // the first program of node 1
  std::string directory_;
  std::optional<OtherSession> other_;
  std::optional<WorkerPool> workers_;
  std::optional<LoopbackFabric> fabric_;
  std::optional<SessionFs> other_fs_;
  std::unique_ptr<Node> nodes_[kNodes];
};

TEST_F(ProcViewTest, ListsTheProcessesOfAllNodes) {
  as_client([&] {
    auto names = names_in("/mnt/proc");
    EXPECT_TRUE(has(names, std::to_string(getpid())));
    for (int i = 0; i < OtherSession::kPrograms; ++i)
      EXPECT_TRUE(has(names, std::to_string(other_pid_ + i)));
    EXPECT_EQ(std::count(names.begin(), names.end(), "1"), 1);
    for (const char* name : {"self", "thread-self", "stat", "cpuinfo", "sys", "mounts", "nodes"})
      EXPECT_TRUE(has(names, name)) << name;
  });
}

TEST_F(ProcViewTest, ShowsAProcessOfAnotherNode) {
  as_client([&] {
    EXPECT_EQ(slurp(other("comm")), "sleep\n");
    EXPECT_EQ(slurp(other("cmdline")), std::string("other (node) S\0"
                                                   "1000\0",
                                                   20));
    EXPECT_EQ(slurp(other("stat")).find(std::to_string(other_pid_) + " (sleep) S "), 0u);
    EXPECT_EQ(number_after(slurp(other("status")), "Pid:\t"), static_cast<uint64_t>(other_pid_));
    EXPECT_NE(slurp(other("environ")).find("COLOUR=blue"), std::string::npos);
    EXPECT_NE(slurp(other("maps")).find("[stack]"), std::string::npos);
    EXPECT_TRUE(has(names_in(other("task")), std::to_string(other_pid_)));
    EXPECT_EQ(slurp(other("task/" + std::to_string(other_pid_) + "/comm")), "sleep\n");
    EXPECT_TRUE(has(names_in(other("fd")), "0"));
    EXPECT_NE(fs::read_symlink(other("exe")).string().find("sleep"), std::string::npos);
    EXPECT_TRUE(fs::is_directory(proc(std::to_string(other_pid_))));
    EXPECT_FALSE(fs::exists(other("nonsense")));
    EXPECT_FALSE(fs::exists(proc(std::to_string(other_pid_ + kNobodys))));
  });
}

TEST_F(ProcViewTest, RefusesMemoryOfAnotherNode) {
  as_client([&] {
    EXPECT_LT(open(other("mem").c_str(), O_RDONLY), 0);
    EXPECT_EQ(errno, EOPNOTSUPP);
  });
}

TEST_F(ProcViewTest, AskersSeeWhatTheirUserMaySee) {
  as_client([&] {
    syscall(SYS_setresuid, -1, 65534, -1);  // this thread only
    EXPECT_EQ(slurp(other("comm")), "sleep\n");
    EXPECT_LT(open(other("environ").c_str(), O_RDONLY), 0);
    EXPECT_EQ(errno, EACCES);
    EXPECT_TRUE(names_in(other("fd")).empty());
    syscall(SYS_setresuid, -1, 0, -1);
    EXPECT_FALSE(slurp(other("environ")).empty());
  });
}

TEST_F(ProcViewTest, FilesOfAnotherNodeCanBeWritten) {
  as_client([&] {
    { std::ofstream(other("oom_score_adj")) << "321"; }
    EXPECT_EQ(slurp(other("oom_score_adj")), "321\n");
    int fd = open(other("comm").c_str(), O_WRONLY | O_TRUNC);
    EXPECT_EQ(write(fd, "renamed", 7), -1) << "only a process itself may change its name";
    EXPECT_EQ(errno, EINVAL);
    close(fd);
  });
}

TEST_F(ProcViewTest, ASecondLookIsFresh) {
  auto first_child_of = [](pid_t pid) {
    std::string number = std::to_string(pid);
    return static_cast<pid_t>(
        number_after(slurp("/proc/" + number + "/task/" + number + "/children"), ""));
  };
  const pid_t program = first_child_of(first_child_of(getpid()));
  auto change = [&](int signal, const char* state) {
    kill(program, signal);
    EXPECT_TRUE(wait_for(std::to_string(other_pid_) + "/stat", state));
  };
  as_client([&] {
    names_in("/mnt/proc");
    for (int i = 0; i < OtherSession::kPrograms; ++i)
      EXPECT_NE(slurp(other("stat", i)).find(") S "), std::string::npos);
    change(SIGSTOP, ") T ");
    EXPECT_NE(slurp(other("stat")).find(") T "), std::string::npos);
    change(SIGCONT, ") S ");
    int fd = open(other("stat").c_str(), O_RDONLY);
    change(SIGSTOP, ") T ");
    usleep(30'000);  // what was read at open(2) is too old by now
    for (int look = 0; look < 2; ++look) {
      char text[64] = {};
      EXPECT_GT(pread(fd, text, sizeof text - 1, 0), 0);
      EXPECT_NE(std::string(text).find(look == 0 ? ") T " : ") S "), std::string::npos) << text;
      change(SIGCONT, ") S ");
    }
    close(fd);
  });
}

TEST_F(ProcViewTest, LocalProcessesAreLinks) {
  as_client([&] {
    EXPECT_EQ(fs::read_symlink(proc("self")), std::to_string(getpid()));
    EXPECT_EQ(fs::read_symlink(proc(std::to_string(getpid()))),
              directory_ + "/0/proc/" + std::to_string(getpid()));
    EXPECT_EQ(slurp(proc("self/comm")), slurp("/proc/self/comm"));
    EXPECT_EQ(fs::read_symlink(proc("thread-self")),
              std::to_string(getpid()) + "/task/" + std::to_string(gettid()));
    EXPECT_EQ(fs::read_symlink(proc("mounts")), "self/mounts");
    EXPECT_EQ(slurp(proc("sys/kernel/ostype")), "Linux\n");
  });
}

TEST_F(ProcViewTest, ABodyHasItsShadowsRelatives) {
  pid_t shadow = make_child(other_pid_);
  ASSERT_EQ(shadow, other_pid_);
  nodes_[0]->table.add_shadow(shadow, {NodeId{1}, JobId{}});
  nodes_[1]->table.add_body(other_pid_, {NodeId{0}, JobId{}, 0, 0});
  as_client([&] {
    EXPECT_TRUE(fs::is_directory(fs::symlink_status(proc(std::to_string(other_pid_)))));
    EXPECT_EQ(slurp(other("comm")), "sleep\n");
    auto stat = parse_pid_stat(slurp(other("stat"))),
         kernel = parse_pid_stat(slurp("/proc/" + std::to_string(other_pid_) + "/stat"));
    ASSERT_TRUE(stat && kernel);
    EXPECT_EQ(stat->parent, getpid());
    EXPECT_EQ(stat->group, other_pid_);
    EXPECT_EQ(stat->session, getsid(0));
    EXPECT_EQ(stat->start_ticks, kernel->start_ticks);
    EXPECT_EQ(number_after(slurp(other("status")), "PPid:\t"), static_cast<uint64_t>(getpid()));
    names_in("/mnt/proc");  // now as ps does it
    EXPECT_EQ(parse_pid_stat(slurp(other("stat")))->parent, getpid());
  });
  kill(shadow, SIGKILL);
  waitpid(shadow, nullptr, 0);
}

TEST_F(ProcViewTest, ALocalBodyIsADirectoryWithLinks) {
  pid_t body = make_child(other_pid_);
  ASSERT_EQ(body, other_pid_);
  nodes_[0]->table.add_body(body, {NodeId{1}, JobId{}, 77, 66});
  nodes_[1]->table.add_shadow(body, {NodeId{0}, JobId{}});
  as_client([&] {
    auto stat = parse_pid_stat(slurp(other("stat")));
    ASSERT_TRUE(stat);
    EXPECT_EQ(stat->parent, 1) << "the shadow's";
    EXPECT_EQ(number_after(slurp(other("status")), "PPid:\t"), 1u);
    EXPECT_EQ(fs::read_symlink(other("maps")),
              directory_ + "/0/proc/" + std::to_string(other_pid_) + "/maps");
    EXPECT_EQ(slurp(other("comm")), slurp("/proc/self/comm"));
    EXPECT_EQ(fs::read_symlink(other("exe")), fs::read_symlink("/proc/self/exe"));
    std::string thread = "task/" + std::to_string(other_pid_);
    EXPECT_EQ(parse_pid_stat(slurp(other(thread + "/stat")))->parent, 1);
    EXPECT_TRUE(has(names_in(other("")), "maps"));
  });
  kill(body, SIGKILL);
  waitpid(body, nullptr, 0);
}

TEST_F(ProcViewTest, TheMachineIsTheSumOfItsNodes) {
  as_client([&] {
    EXPECT_EQ(count_of(slurp(proc("cpuinfo")), "processor\t:"),
              2 * nodes_[0]->resources.own_processors().size());
    uint64_t own_kib = number_after(slurp("/proc/meminfo"), "MemTotal:");
    EXPECT_EQ(number_after(slurp(proc("meminfo")), "MemTotal:"), 2 * own_kib);
    EXPECT_EQ(number_after(slurp(proc("nodes/node1/meminfo")), "MemTotal:"), own_kib);
    EXPECT_EQ(slurp(proc("nodes/nrnodes")), "2\n");
    EXPECT_EQ(slurp(proc("nodes/node1/nodeid")), "1\n");
    EXPECT_EQ(number_after(slurp(proc("stat")), "btime "),
              number_after(slurp("/proc/stat"), "btime "));
    EXPECT_EQ(count_of(slurp(proc("loadavg")), " "), 4u);
    EXPECT_EQ(slurp(proc("nodes/cluster/uptime")).find('.') != std::string::npos, true);
    EXPECT_FALSE(fs::exists(proc("nodes/node2")));
  });
}

TEST_F(ProcViewTest, ACapabilityShowsTheNodeInstead) {
  CapabilitySet local{1u << static_cast<unsigned>(Capability::kSeeLocalProcStat)};
  ASSERT_TRUE(nodes_[0]->capabilities.adopt(getpid(), {local, local, {}, {}}));
  as_client([&] {
    size_t own = nodes_[0]->resources.own_processors().size();
    EXPECT_EQ(count_of(slurp(proc("cpuinfo")), "processor\t:"), own);
    EXPECT_EQ(parse_cpu_list(slurp("/mnt/cpu/online")).size(), own);
    EXPECT_FALSE(fs::exists("/mnt/cpu/cpu" + std::to_string(2 * own - 1)));
    EXPECT_TRUE(has(names_in("/mnt/proc"), std::to_string(other_pid_)))
        << "processes stay the cluster's";
  });
  ASSERT_TRUE(nodes_[0]->capabilities.adopt(getpid(), {}));
}

TEST_F(ProcViewTest, ProcessorsOfAllNodesAreInSysfs) {
  const auto& own = nodes_[0]->resources.own_processors();
  as_client([&] {
    CpuNumbers all = parse_cpu_list(slurp("/mnt/cpu/online"));
    EXPECT_EQ(all.size(), 2 * own.size());
    EXPECT_EQ(slurp("/mnt/cpu/possible"), slurp("/mnt/cpu/online"));
    EXPECT_TRUE(has(names_in("/mnt/cpu"), "cpu" + std::to_string(all.back())));
    std::string last = "/mnt/cpu/cpu" + std::to_string(all.back()) + "/";
    std::string last_own = "/sys/devices/system/cpu/cpu" + std::to_string(own.back()) + "/";
    EXPECT_EQ(slurp(last + "topology/core_id"), slurp(last_own + "topology/core_id"));
    EXPECT_EQ(parse_cpu_mask(slurp(last + "topology/thread_siblings")).back(), all.back());
    if (std::filesystem::exists("/sys/devices/system/node/node0")) {
      EXPECT_EQ(parse_cpu_list(slurp(last + "topology/numa_cpus_list")).back(), all.back());
    }
    EXPECT_NE(slurp(last + "topology/physical_package_id"),
              slurp("/mnt/cpu/cpu0/topology/physical_package_id"));
    EXPECT_TRUE(has(names_in(last), "topology"));
    EXPECT_FALSE(fs::exists("/mnt/cpu/cpu" + std::to_string(all.back() + 1)));
    EXPECT_EQ(names_in("/mnt/cpu/vulnerabilities").size(),
              names_in("/sys/devices/system/cpu/vulnerabilities").size());
  });
}

TEST_F(ProcViewTest, ANodeThatFailedIsLeftOut) {
  fabric_->kill(NodeId{1}, LoopbackFabric::Death::kNoticed);
  while (!nodes_[0]->messenger.is_failed(NodeId{1})) loop_->run_once(std::chrono::milliseconds(10));
  as_client([&] {
    EXPECT_FALSE(has(names_in("/mnt/proc"), std::to_string(other_pid_)));
    EXPECT_EQ(slurp(proc("nodes/nrnodes")), "1\n");
    EXPECT_EQ(count_of(slurp(proc("cpuinfo")), "processor\t:"),
              nodes_[0]->resources.own_processors().size());
    EXPECT_FALSE(fs::exists(proc(std::to_string(other_pid_))));
  });
}

}  // namespace
}  // namespace krg
