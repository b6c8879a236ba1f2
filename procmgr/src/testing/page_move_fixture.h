// PageMoveFixture: two nodes in this process, a stopped child that has memory, and another one into
// which it moves. For tests.
//
// The memory is a range of addresses that is free in the test: the source fills it and stops; the
// target maps it anew, hands its userfaultfd over and runs when it may. A target tells and waits by
// meet(). Children die with the test. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "image/content_ranges.h"
#include "image/page_list.h"
#include "krg/procmgr/page_moves.h"
#include "krg/runtime/unix_socket.h"
#include "krg/shmem/page_set.h"
#include "loopback_nodes.h"

namespace krg::testing {

class PageMoveFixture : public ::testing::Test {
 protected:
  static constexpr size_t kPage = kMovedPageBytes;
  static constexpr NodeId kSource{0}, kTarget{1};
  enum class Userfault { kYes, kNo };

  explicit PageMoveFixture(bool aside = false)
      : at_source_(nodes_[0], source_calls_, aside), at_target_(nodes_[1], target_calls_, aside) {}
  void SetUp() override { reserve(1024); }
  void TearDown() override {
    for (pid_t child : children_) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
    munmap(memory_, pages_ * kPage);
  }

  // Where the memory is in all of them.
  void reserve(size_t pages) {
    if (memory_) munmap(memory_, pages_ * kPage);
    pages_ = pages;
    memory_ = static_cast<char*>(mmap(nullptr, pages * kPage, PROT_NONE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    ASSERT_NE(memory_, MAP_FAILED);
  }
  static void map_anew(char* at, size_t bytes) {
    if (mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
        at)
      _exit(90);
  }

  char* page(size_t number) { return memory_ + number * kPage; }
  // What a page has at its beginning and its end.
  static uint64_t word_of(size_t page) { return page * 0x9e3779b97f4a7c15u | 1; }
  static uint64_t& first_word(char* page) { return *reinterpret_cast<uint64_t*>(page); }
  static uint64_t& last_word(char* page) { return *reinterpret_cast<uint64_t*>(page + kPage - 8); }
  void fill(size_t first, size_t count) {
    for (size_t i = first; i < first + count; ++i)
      first_word(page(i)) = last_word(page(i)) = word_of(i);
  }
  // In a child: whether pages have what fill() put there; `at`: where they are now.
  bool has(size_t first, size_t count, char* at = nullptr) {
    if (!at) at = page(first);
    for (size_t i = 0; i < count; ++i)
      if (first_word(at + i * kPage) != word_of(first + i) ||
          last_word(at + i * kPage) != word_of(first + i))
        return false;
    return true;
  }
  bool is_zero(size_t first, size_t count) {
    for (size_t i = first; i < first + count; ++i)
      if (first_word(page(i)) != 0 || last_word(page(i)) != 0) return false;
    return true;
  }

  // The source: runs `prepare` and stops for ever.
  void start_source(const std::function<void()>& prepare) {
    source_ = start([&] {
      map_anew(memory_, pages_ * kPage);
      prepare();
      raise(SIGSTOP);
      return 0;
    });
    int status = 0;
    ASSERT_EQ(waitpid(source_, &status, WUNTRACED), source_);
    ASSERT_TRUE(WIFSTOPPED(status));
    auto all = content_ranges(source_);
    ASSERT_TRUE(all) << all.error().message();
    const auto start = reinterpret_cast<uint64_t>(memory_);
    for (const PageRange& range : *all)
      if (range.start.value >= start && range.end().value <= start + pages_ * kPage)
        ranges_.push_back(range);
  }
  // The target: maps the memory (and `map` may change that), then waits for run_target().
  void start_target(const std::function<int()>& program, const std::function<void()>& map = {}) {
    auto sockets = seqpacket_pair();
    ASSERT_TRUE(sockets);
    socket_ = std::move(sockets->first);
    target_ = start([&] {
      child_socket_ = sockets->second.get();
      map_anew(memory_, pages_ * kPage);
      if (map) map();
      const int fd = static_cast<int>(syscall(SYS_userfaultfd, PageSet::userfaultfd_flags(false)));
      if (fd < 0 || !send_packet(child_socket_, "u", {&fd, 1})) return 91;
      close(fd);
      char begin;
      if (read(child_socket_, &begin, 1) != 1) return 92;
      return program();
    });
    sockets->second.reset();
    auto packet = receive_packet(socket_.get());
    ASSERT_TRUE(packet && packet->fds.size() == 1);
    userfaultfd_ = std::move(packet->fds[0]);
  }
  // Its last word and its exit status go to the test.
  void meet() {
    char byte = 'm';
    if (write(child_socket_, &byte, 1) != 1 || read(child_socket_, &byte, 1) != 1) _exit(93);
  }

  // Gives the test a descriptor, which receives it by take_fd().
  void hand_over(int fd) {
    char byte;
    if (!send_packet(child_socket_, "f", {&fd, 1}) || read(child_socket_, &byte, 1) != 1) _exit(94);
  }
  UniqueFd take_fd() {
    auto packet = receive_packet(socket_.get());
    EXPECT_TRUE(packet && packet->fds.size() == 1);
    return packet && !packet->fds.empty() ? std::move(packet->fds[0]) : UniqueFd();
  }

  void begin_move(Userfault userfault = Userfault::kYes) {
    auto served = at_source_.serve(kTarget, source_, ranges_,
                                   [this](Status done) { served_ = std::move(done); });
    ASSERT_TRUE(served) << served.error().message();
    move_ = *served;
    receive(userfault);
  }
  // The target asks for pages whose task comes later.
  void expect_move() {
    move_ = at_source_.number_move();
    at_source_.expect(move_, kTarget);
    receive(Userfault::kYes);
  }
  Status serve_expected() {
    return at_source_.serve(move_, kTarget, source_, ranges_,
                            [this](Status done) { served_ = std::move(done); });
  }
  void receive(Userfault userfault) {
    if (userfault == Userfault::kNo) userfaultfd_.reset();
    at_target_.receive({.source = kSource,
                        .move = move_,
                        .pid = target_,
                        .userfaultfd = std::move(userfaultfd_),
                        .ranges = ranges_,
                        .may_run = [this](Status may) { may_run_ = std::move(may); },
                        .all_here = [this](Status all) { all_here_ = std::move(all); }});
  }
  void run_target() { ASSERT_EQ(write(socket_.get(), "b", 1), 1); }
  void let_target_run() {
    ASSERT_TRUE(run_until([this] { return may_run_.has_value(); }));
    ASSERT_TRUE(*may_run_) << may_run_->error().message();
    run_target();
  }
  // Until the target has come to its next meet(); it waits there.
  void await_meeting() {
    ASSERT_TRUE(run_until([this] {
      char byte;
      return recv(socket_.get(), &byte, 1, MSG_DONTWAIT) == 1;
    }));
  }
  void go_on() { run_target(); }
  // False after a minute.
  bool run_until(const std::function<bool()>& is_done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!is_done()) {
      if (std::chrono::steady_clock::now() > end) return false;
      nodes_.loop().run_once(std::chrono::milliseconds(5));
    }
    return true;
  }
  void run_a_while() {
    for (int i = 0; i < 20; ++i) nodes_.loop().run_once(std::chrono::milliseconds(1));
  }
  // As a shell tells it: 128 + signal when it was killed.
  int exit_code(pid_t child) {
    int status = -1;
    EXPECT_TRUE(run_until([&] { return waitpid(child, &status, WNOHANG) == child; }));
    std::erase(children_, child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  void expect_all_here() {
    EXPECT_TRUE(run_until([this] { return all_here_ && served_; }));
    ASSERT_TRUE(all_here_ && served_);
    EXPECT_TRUE(*all_here_) << all_here_->error().message();
    EXPECT_TRUE(*served_) << served_->error().message();
  }
  // T hears nothing of S for a while; what its process does to its memory is followed.
  void hold_pages() { nodes_.fabric().set_receiving(kTarget, false); }
  void release_pages() { nodes_.fabric().set_receiving(kTarget, true); }
  // A target that meets once and ends with 0: no page comes before that meeting, all do in it.
  void expect_success() {
    hold_pages();
    begin_move();
    let_target_run();
    await_meeting();
    release_pages();
    expect_all_here();
    go_on();
    EXPECT_EQ(exit_code(target_), 0);
  }

  pid_t start(const std::function<int()>& run) {
    const pid_t parent = getpid(), child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(99);
      alarm(120);
      _exit(run());
    }
    EXPECT_GT(child, 0);
    children_.push_back(child);
    return child;
  }

  LoopbackNodes nodes_{2};
  SyscallBroker source_calls_{nodes_[0]}, target_calls_{nodes_[1]};
  PageMoves at_source_, at_target_;
  char* memory_ = nullptr;
  size_t pages_ = 0;
  pid_t source_ = 0, target_ = 0;
  std::vector<PageRange> ranges_;
  uint64_t move_ = 0;
  std::optional<Status> served_, may_run_, all_here_;
  UniqueFd socket_, userfaultfd_;

 private:
  std::vector<pid_t> children_;
  int child_socket_ = -1;  // in the target
};

// Pages that come while the process runs, where the kernel and krgd's rights allow it.
class LaterPagesFixture : public PageMoveFixture {
 protected:
  using PageMoveFixture::PageMoveFixture;
  void SetUp() override {
    if (Status able = PageMoves::can_bring_later(); !able)
      GTEST_SKIP() << "lacks userfaultfd: " << able.error().message();
    PageMoveFixture::SetUp();
  }
  void TearDown() override {
    if (memory_) PageMoveFixture::TearDown();
  }

  // The target checks whether it has all that fill() put there.
  void start_both() {
    start_source([&] { fill(0, pages_); });
    start_target([&] {
      meet();
      return has(0, pages_) ? 0 : 1;
    });
  }
};

}  // namespace krg::testing
