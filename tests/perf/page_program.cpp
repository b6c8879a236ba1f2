// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_program.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>

#include "krg/runtime/unix_socket.h"
#include "timing.h"

namespace krg::perf {
namespace {

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

template <class T>
std::string_view bytes_of(const T& object) {
  return {reinterpret_cast<const char*>(&object), sizeof object};
}

uint64_t sum_of(const volatile uint64_t* page) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kPageBytes / sizeof *page; ++i) sum += page[i];
  return sum;
}

Touched touch_pages(uint64_t* memory, const Touch& touch) {
  std::vector<uint64_t> order(touch.count);
  std::iota(order.begin(), order.end(), touch.first);
  if (touch.shuffled) std::shuffle(order.begin(), order.end(), std::mt19937_64(touch.shuffled));
  Samples samples;
  const auto start = Clock::now();
  for (uint64_t page : order) {
    if (touch.pause_us > 0) usleep(touch.pause_us);
    volatile uint64_t* at = memory + page * (kPageBytes / sizeof *memory);
    const auto before = Clock::now();
    if (touch.kind == Touch::Kind::kWrite) {
      *at = page + 1;
    } else if (touch.kind == Touch::Kind::kRead) {
      static_cast<void>(*at);
    } else {
      sum_of(at);
    }
    samples.add(microseconds_since(before));
  }
  return {samples.median_us(), microseconds_since(start)};
}

// The process: maps what it is sent, opens its userfaultfd, then does what it is told.
[[noreturn]] void serve(int socket) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto set = receive_packet(socket);
  if (!set || set->fds.size() != 1) _exit(1);
  uint64_t pages;
  std::memcpy(&pages, set->bytes.data(), sizeof pages);
  void* memory =
      mmap(nullptr, pages * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, set->fds[0].get(), 0);
  if (memory == MAP_FAILED) fail("mmap");
  const bool user_mode_only = geteuid() != 0;
  UniqueFd fd(
      static_cast<int>(syscall(SYS_userfaultfd, PageSet::userfaultfd_flags(user_mode_only))));
  if (!fd) fail("userfaultfd");
  const int opened = fd.get();
  if (!send_packet(socket, bytes_of(memory), {&opened, 1})) _exit(1);
  fd.reset();
  for (;;) {
    auto packet = receive_packet(socket);
    Touch touch;
    if (!packet || packet->bytes.size() != sizeof touch) _exit(0);
    std::memcpy(&touch, packet->bytes.data(), sizeof touch);
    const Touched touched = touch_pages(static_cast<uint64_t*>(memory), touch);
    if (!send_packet(socket, bytes_of(touched))) _exit(0);
  }
}

}  // namespace

PageProgram::PageProgram() {
  auto pair = seqpacket_pair();
  if (!pair) fail("socketpair");
  pid_ = fork();
  if (pid_ < 0) fail("fork");
  if (pid_ == 0) {
    pair->first.reset();
    serve(pair->second.get());
  }
  socket_ = std::move(pair->first);
}

PageProgram::~PageProgram() {
  watch_.reset();
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void PageProgram::attach(EventLoop& loop, PageSet& set) {
  const uint64_t pages = set.pages();
  const int memory = set.memory();
  if (!send_packet(socket_.get(), bytes_of(pages), {&memory, 1})) fail("the program");
  auto mapped = receive_packet(socket_.get());
  if (!mapped || mapped->fds.size() != 1) fail("the program");
  RemoteAddr address;
  std::memcpy(&address.value, mapped->bytes.data(), sizeof address.value);
  Status attached = set.attach(std::move(mapped->fds[0]), pid_, address, PageIndex{0}, set.pages());
  if (!attached) {
    std::fprintf(stderr, "attach: %s\n", attached.error().message().c_str());
    std::exit(1);
  }
  auto watch = loop.watch(socket_.get(), EPOLLIN, [this](uint32_t) {
    auto answer = receive_packet(socket_.get());
    Touched touched;
    if (!answer || answer->bytes.size() != sizeof touched) fail("the program has ended");
    std::memcpy(&touched, answer->bytes.data(), sizeof touched);
    std::exchange(done_, {})(touched);
  });
  if (!watch) fail("watch");
  watch_ = std::move(*watch);
}

void PageProgram::run(const Touch& touch, std::function<void(Touched)> done) {
  done_ = std::move(done);
  if (!send_packet(socket_.get(), bytes_of(touch))) fail("the program");
}

}  // namespace krg::perf
