// SPDX-License-Identifier: GPL-2.0-or-later
#include "testing/descriptor_cluster.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <iterator>

namespace krg::testing {
namespace {

using Clock = std::chrono::steady_clock;

// A mount namespace of our own, once per test program; why not, where it cannot be had.
std::string enter_private_namespace() {
  static const std::string lack = [] {
    if (unshare(CLONE_NEWNS) != 0) return std::string("lacks root: no mount namespace");
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", "/mnt", "tmpfs", 0, nullptr) != 0)
      return std::string("lacks root: cannot mount in a private namespace");
    return std::string(access("/dev/fuse", R_OK | W_OK) == 0 ? ""
                                                             : "lacks fuse_device: no /dev/fuse");
  }();
  return lack;
}

// In a new child: the given descriptors under their numbers, /dev/null for the others of 0-2.
void arrange(const std::vector<GivenFd>& fds) {
  constexpr int kHigh = 500;  // out of the way of the numbers that are wanted
  std::vector<int> copies;
  for (const GivenFd& given : fds) copies.push_back(fcntl(given.fd, F_DUPFD_CLOEXEC, kHigh));
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int number = 0; number < 3; ++number) dup2(null, number);
  for (size_t i = 0; i < fds.size(); ++i) dup2(copies[i], fds[i].number);
}

// Closes what an exec would close.
void close_the_rest(const std::vector<GivenFd>& fds) {
  int next = 3;
  std::vector<int> kept;
  for (const GivenFd& given : fds) kept.push_back(given.number);
  std::sort(kept.begin(), kept.end());
  for (int number : kept) {
    if (number > next)
      syscall(SYS_close_range, static_cast<unsigned>(next), static_cast<unsigned>(number - 1), 0u);
    next = std::max(next, number + 1);
  }
  syscall(SYS_close_range, static_cast<unsigned>(next), ~0u, 0u);
}

}  // namespace

Pipe::Pipe() {
  int ends[2];
  check(pipe2(ends, O_CLOEXEC) == 0, "a pipe can be made");
  reader = UniqueFd(ends[0]);
  writer = UniqueFd(ends[1]);
}

int run_program(const std::vector<std::string>& argv) {
  std::vector<char*> args;
  for (const std::string& arg : argv) args.push_back(const_cast<char*>(arg.c_str()));
  args.push_back(nullptr);
  execvp(args[0], args.data());
  return 127;
}

DescriptorCluster::Node::Node(EventLoop& loop, LoopbackFabric& fabric, NodeId self, unsigned count)
    : messenger(fabric.node(self)),
      workers(loop, 2),
      context{.loop = loop,
              .workers = workers,
              .messenger = messenger,
              .self = self,
              .node_count = count,
              .pids = PidRange(self, count),
              .paths = {}},
      fs(loop),
      broker(loop),
      descriptors(context, fs, broker) {}

std::string DescriptorCluster::mount_point(NodeId id) {
  return fmt::format("/mnt/n{}", id.value);
}

void DescriptorCluster::SetUp() {
  if (std::string lack = enter_private_namespace(); !lack.empty()) GTEST_SKIP() << lack;
  if (handover_ == nullptr)
    handover_ = static_cast<Handover*>(
        mmap(nullptr, sizeof(Handover), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  check(handover_ != MAP_FAILED, "a page can be shared");
  make_cluster({.nodes = 3});
}

void DescriptorCluster::make_cluster(LoopbackFabric::Options options) {
  TearDown();
  loop_.emplace(*EventLoop::create());
  fabric_ = std::make_unique<LoopbackFabric>(*loop_, options);
  for (uint16_t i = 0; i < options.nodes; ++i) {
    nodes_.push_back(std::make_unique<Node>(*loop_, *fabric_, NodeId{i}, options.nodes));
    mkdir(mount_point(NodeId{i}).c_str(), 0755);
    auto mounted = mount_krgfs(-1, mount_point(NodeId{i}));
    ASSERT_TRUE(mounted) << mounted.error().message();
    ASSERT_TRUE(nodes_[i]->fs.serve(std::move(*mounted)));
  }
}

void DescriptorCluster::TearDown() {
  for (const Running& process : running_) {
    ADD_FAILURE() << "process " << process.pid << " was left running";
    kill(process.pid, SIGKILL);
  }
  for (size_t i = 0; i < nodes_.size(); ++i)
    umount2(mount_point(NodeId{static_cast<uint16_t>(i)}).c_str(), MNT_FORCE | MNT_DETACH);
  nodes_.clear();
  for (const Running& process : running_) waitpid(process.pid, nullptr, 0);
  running_.clear();
  fabric_.reset();
  loop_.reset();
}

bool DescriptorCluster::pump_until(const std::function<bool()>& holds,
                                   std::chrono::milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  while (!holds()) {
    if (Clock::now() > deadline) return false;
    loop_->run_once(std::chrono::milliseconds(1));
  }
  return true;
}

void DescriptorCluster::settle() {
  for (int quiet = 0; quiet < 5;)
    quiet = loop_->run_once(std::chrono::milliseconds(1)) ? 0 : quiet + 1;
}

pid_t DescriptorCluster::start(const std::vector<GivenFd>& fds,
                               const std::function<int()>& program) {
  const pid_t pid = fork();
  check(pid >= 0, "a test can fork");
  if (pid == 0) {
    signal(SIGPIPE, SIG_DFL);
    arrange(fds);
    close_the_rest(fds);
    _exit(program());
  }
  running_.push_back({pid, kHome, false});
  return pid;
}

pid_t DescriptorCluster::hold(const std::vector<GivenFd>& fds,
                              const std::function<int()>& program) {
  const pid_t pid = fork();
  check(pid >= 0, "a test can fork");
  if (pid == 0) {
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);  // a body leads a kernel group
    arrange(fds);
    close_the_rest(fds);
    raise(SIGSTOP);
    take_over(*handover_);
    _exit(program());
  }
  int status;
  check(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "the holder stops");
  return pid;
}

void DescriptorCluster::take_over(Handover& handover) {
  const int giver = static_cast<int>(syscall(SYS_pidfd_open, handover.giver, 0));
  std::vector<GivenFd> taken;
  for (int i = 0; i < handover.count; ++i) {
    const GivenFd& given = handover.fds[i];
    taken.push_back({given.number, static_cast<int>(syscall(SYS_pidfd_getfd, giver, given.fd, 0))});
  }
  arrange(taken);
  close_the_rest(taken);
  __atomic_store_n(&handover.count, 0, __ATOMIC_RELEASE);
}

void DescriptorCluster::end(pid_t held) {
  kill(held, SIGKILL);
  waitpid(held, nullptr, 0);
}

Result<std::vector<ExportedFd>> DescriptorCluster::export_from(NodeId id, pid_t held,
                                                               WhichFds which) {
  std::optional<Result<std::vector<ExportedFd>>> exported;
  node(id).descriptors.export_fds(held, which,
                                  [&](auto result) { exported.emplace(std::move(result)); });
  if (!pump_until([&] { return exported.has_value(); })) return text_error("export hangs");
  return std::move(*exported);
}

Result<std::vector<ImportedFd>> DescriptorCluster::import_at(NodeId id, pid_t body,
                                                             std::vector<ExportedFd> fds) {
  std::optional<Result<std::vector<ImportedFd>>> imported;
  node(id).descriptors.import_fds(body, std::move(fds),
                                  [&](auto result) { imported.emplace(std::move(result)); });
  if (!pump_until([&] { return imported.has_value(); })) return text_error("import hangs");
  return std::move(*imported);
}

void DescriptorCluster::start_body(NodeId at, pid_t held, std::vector<ImportedFd> fds) {
  check(fds.size() <= std::size(handover_->fds), "a test's body has few descriptors");
  handover_->giver = getpid();
  handover_->count = 0;
  for (const ImportedFd& fd : fds) handover_->fds[handover_->count++] = {fd.number, fd.fd.get()};
  running_.push_back({held, at, true});
  kill(held, SIGCONT);
  // Until it says that it has them.
  while (__atomic_load_n(&handover_->count, __ATOMIC_ACQUIRE) != 0) usleep(50);
}

pid_t DescriptorCluster::place(NodeId from, NodeId to, const std::vector<GivenFd>& fds,
                               const std::function<int()>& program) {
  const pid_t held = hold(fds, program);
  auto exported = export_from(from, held);
  if (!exported) {
    last_error_ = exported.error();
    end(held);
    return -1;
  }
  auto imported = import_at(to, held, *exported);
  if (!imported) {
    last_error_ = imported.error();
    node(from).descriptors.cancel_export(*exported);
    end(held);
    return -1;
  }
  start_body(to, held, std::move(*imported));
  return held;
}

int DescriptorCluster::wait_for(pid_t pid) {
  auto found = std::find_if(running_.begin(), running_.end(),
                            [&](const Running& process) { return process.pid == pid; });
  check(found != running_.end(), "the process was started by this test");
  int status = -1;
  if (!pump_until([&] { return waitpid(pid, &status, WNOHANG) == pid; })) return -1;
  const Running process = *found;
  running_.erase(found);
  if (process.is_body) {
    bool back = false;
    node(process.node).descriptors.body_ended(process.pid, [&] { back = true; });
    pump_until([&] { return back; });
  }
  return status;
}

}  // namespace krg::testing
