// PagePrograms: nodes in this process over a loopback fabric, each with the same page set, and
// child processes that map a node's share of it as programs would. For tests.
//
// A child runs a function of the test and ends with its answer as exit status. Children die with
// the test; what one waits for is bounded by the test's own timeout.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csetjmp>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "krg/runtime/loopback_transport.h"
#include "krg/runtime/messenger.h"
#include "krg/runtime/unix_socket.h"
#include "krg/shmem/page_set.h"
#include "userfaultfd.h"

namespace krg {

inline constexpr SetId kPages{21}, kOtherPages{22};

// What children and the test share natively, beside the page set.
struct Control {
  std::atomic<uint64_t> words[64];
  void await(size_t word, uint64_t value) {
    while (words[word].load() < value) sched_yield();
  }
};

// A child's view of the page set.
class Program {
 public:
  Program(int memory, int other_memory, size_t pages, int socket, bool user_mode_only)
      : memory_(memory),
        other_memory_(other_memory),
        pages_(pages),
        socket_(socket),
        user_mode_only_(user_mode_only) {}

  // Maps pages of the set and has them served. Null when something fails.
  uint64_t* map(size_t first = 0, size_t count = 0, int protection = PROT_READ | PROT_WRITE) {
    return map_from(kThis, first, count == 0 ? pages_ - first : count, protection);
  }
  uint64_t* map_other() { return map_from(kOther, 0, pages_, PROT_READ | PROT_WRITE); }
  // Served by the userfaultfd of an earlier mapping.
  uint64_t* map_beside(size_t first, size_t count) {
    return map_from(kBeside, first, count, PROT_READ | PROT_WRITE);
  }
  int memory() const { return memory_; }
  enum Which : uint64_t { kThis, kOther, kBeside };

 private:
  uint64_t* map_from(Which which, size_t first, size_t count, int protection) {
    void* at =
        mmap(nullptr, count * kPageBytes, protection, MAP_SHARED,
             which == kOther ? other_memory_ : memory_, static_cast<off_t>(first * kPageBytes));
    if (at == MAP_FAILED) return nullptr;
    const int fd =
        static_cast<int>(syscall(SYS_userfaultfd, PageSet::userfaultfd_flags(user_mode_only_)));
    if (fd < 0) return nullptr;
    const uint64_t request[4] = {reinterpret_cast<uint64_t>(at), first, count, which};
    const std::string_view bytes(reinterpret_cast<const char*>(request), sizeof request);
    if (!send_packet(socket_, bytes, {&fd, 1})) return nullptr;
    close(fd);
    char answer = 1;
    return ::read(socket_, &answer, 1) == 1 && answer == 0 ? static_cast<uint64_t*>(at) : nullptr;
  }

  int memory_, other_memory_;
  size_t pages_;
  int socket_;
  bool user_mode_only_;
};

// In a child: whether reading and writing the word gives SIGBUS.
inline std::jmp_buf sigbus_return;
inline bool gives_sigbus(volatile uint64_t* word) {
  signal(SIGBUS, [](int) { std::longjmp(sigbus_return, 1); });
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, SIGBUS);
  sigprocmask(SIG_UNBLOCK, &only, nullptr);
  if (setjmp(sigbus_return) != 0) return true;
  *word = *word + 1;
  return false;
}

class PagePrograms : public ::testing::Test {
 protected:
  using Main = std::function<int(Program&)>;
  struct Child {
    pid_t pid = 0;
    unsigned node = 0;
    UniqueFd socket;
    EventLoop::Watch requests;
    int status = -1;  // of waitpid, once it has ended
    bool ended = false;
  };

  void SetUp() override {
    if (!(Userfaultfd::kernel_features() & (1 << 13)))
      GTEST_SKIP() << "lacks userfaultfd: page sets need Linux 6.4";
    user_mode_only_ = !can_open(PageSet::userfaultfd_flags(false));
    void* shared =
        mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(shared, MAP_FAILED);
    control_ = new (shared) Control{};
  }

  void make(unsigned nodes, size_t pages, const PageSetOptions& options = {}, uint64_t seed = 1) {
    loop_ = std::make_unique<EventLoop>(std::move(*EventLoop::create()));
    fabric_ = std::make_unique<LoopbackFabric>(
        *loop_, LoopbackFabric::Options{.nodes = nodes, .seed = seed});
    for (unsigned n = 0; n < nodes; ++n) {
      messengers_.push_back(
          std::make_unique<Messenger>(fabric_->node(NodeId{static_cast<uint16_t>(n)})));
      kddms_.push_back(std::make_unique<Kddm>(*messengers_.back()));
      auto opened = PageSet::create(*loop_, *kddms_.back(), kPages, pages, options);
      ASSERT_TRUE(opened) << opened.error().message();
      sets_.push_back(std::move(*opened));
    }
  }

  // A second set on each node, as long as the first.
  void make_other(const PageSetOptions& options) {
    for (size_t node = 0; node < kddms_.size(); ++node) {
      auto opened =
          PageSet::create(*loop_, *kddms_[node], kOtherPages, sets_[node]->pages(), options);
      ASSERT_TRUE(opened) << opened.error().message();
      other_sets_.push_back(std::move(*opened));
    }
  }

  void TearDown() override {
    for (auto& child : children_) {
      if (child->ended) continue;
      kill(child->pid, SIGKILL);
      waitpid(child->pid, nullptr, 0);
    }
    children_.clear();
    sets_.clear();
    other_sets_.clear();
    kddms_.clear();
    messengers_.clear();
    fabric_.reset();
    loop_.reset();
    if (control_) munmap(control_, sizeof(Control));
  }

  // Starts a program on a node.
  Child& start(unsigned node, const Main& program) {
    auto sockets = seqpacket_pair();
    EXPECT_TRUE(sockets);
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(99);
      alarm(120);
      const int other = other_sets_.empty() ? -1 : other_sets_[node]->memory();
      Program self(sets_[node]->memory(), other, sets_[node]->pages(), sockets->second.get(),
                   user_mode_only_);
      _exit(program(self));
    }
    EXPECT_GT(pid, 0);
    sockets->second.reset();
    auto& child = *children_.emplace_back(std::make_unique<Child>());
    child.pid = pid;
    child.node = node;
    child.socket = std::move(sockets->first);
    auto watch =
        loop_->watch(child.socket.get(), EPOLLIN, [this, &child](uint32_t) { serve(child); });
    EXPECT_TRUE(watch);
    child.requests = std::move(*watch);
    return child;
  }

  template <class Done>
  void run_until(Done done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(100);
    while (!done()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "nothing more happens";
      loop_->run_once(std::chrono::milliseconds(2));
      reap();
    }
  }
  void run_to_end() {
    run_until([&] {
      for (const auto& child : children_)
        if (!child->ended) return false;
      return true;
    });
  }
  // All programs end with status 0.
  void expect_success() {
    run_to_end();
    for (const auto& child : children_)
      EXPECT_EQ(child->status, 0) << "program " << child->pid << " on node " << child->node;
  }
  bool can_open(int flags) {
    UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, flags)));
    return static_cast<bool>(fd);
  }

  Control* control_ = nullptr;
  bool user_mode_only_ = false;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<LoopbackFabric> fabric_;
  std::vector<std::unique_ptr<Messenger>> messengers_;
  std::vector<std::unique_ptr<Kddm>> kddms_;
  std::vector<std::unique_ptr<PageSet>> sets_, other_sets_;
  std::vector<std::unique_ptr<Child>> children_;

 private:
  void serve(Child& child) {
    uint64_t request[4];
    auto packet = receive_packet(child.socket.get());
    if (!packet || packet->end_of_stream) return child.requests.reset();
    ASSERT_EQ(packet->bytes.size(), sizeof request);
    ASSERT_EQ(packet->fds.size(), 1u);
    std::memcpy(request, packet->bytes.data(), sizeof request);
    PageSet& set = *(request[3] == Program::kOther ? other_sets_ : sets_)[child.node];
    const RemoteAddr at{request[0]};
    const PageIndex first{request[1]};
    Status attached = request[3] == Program::kBeside
                          ? set.attach_beside(child.pid, at, first, request[2])
                          : set.attach(std::move(packet->fds[0]), child.pid, at, first, request[2]);
    EXPECT_TRUE(attached) << attached.error().message();
    const char answer = attached ? 0 : 1;
    EXPECT_EQ(::write(child.socket.get(), &answer, 1), 1);
  }

  void reap() {
    for (auto& child : children_) {
      if (child->ended || waitpid(child->pid, &child->status, WNOHANG) != child->pid) continue;
      child->ended = true;
      child->requests.reset();
    }
  }
};

}  // namespace krg
