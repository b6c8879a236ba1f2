// Real programs (testing/image_tracee.cpp) are frozen, their images taken, they are killed, and
// made again by the images with the same pids. Contents of pages are copied by the test.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/image_installer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <map>
#include <optional>
#include <thread>

#include "image/content_ranges.h"
#include "image/image_capture.h"
#include "process_status.h"
#include "testing/loopback_nodes.h"
#include "userfault_source.h"

namespace krg {
namespace {

using testing::LoopbackNodes;

// Pages of a process that has gone.
struct Contents {
  std::vector<std::pair<RemoteAddr, std::string>> pieces;
  size_t bytes() const {
    size_t sum = 0;
    for (const auto& [at, piece] : pieces) sum += piece.size();
    return sum;
  }
};

class ImageTest : public ::testing::Test {
 protected:
  explicit ImageTest(bool stops_forks = false) {
    nodes[0].memory_per_node = stops_forks ? 1u << 30 : 0;
    spawner = std::make_unique<BodySpawner>(nodes[0], broker);
    installer = std::make_unique<ImageInstaller>(nodes[0], *spawner);
    reaper = std::move(*ChildReaper::create(nodes.loop()));
    nodes[0].children = reaper.get();
  }
  ~ImageTest() override {
    if (pid == 0) return;
    kill(pid, SIGKILL);
    nodes.run_until([&] { return ended.has_value(); });
  }

  void start(const std::string& program, std::vector<std::string> arguments) {
    ASSERT_EQ(pipe2(input, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(output, O_CLOEXEC), 0);
    fcntl(output[0], F_SETFL, O_NONBLOCK);
    arguments.insert(arguments.begin(), program);
    pid = fork();
    if (pid == 0) {
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      dup2(input[0], 0);
      dup2(output[1], 1);
      close_range(3, ~0U, 0);
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      execv(program.c_str(), argv.data());
      _exit(127);
    }
    watch();
    ASSERT_TRUE(hears("ready"));
  }
  void watch() {
    ended.reset();
    reaper->watch(pid, [this](const ChildEvent& event) {
      if (event.is_end()) ended = event.code == CLD_EXITED ? event.status : 128 + event.status;
    });
  }
  bool hears(const std::string& line) {
    const bool came = nodes.run_until([&] {
      char piece[512];
      const ssize_t got = read(output[0], piece, sizeof piece);
      if (got > 0) heard.append(piece, static_cast<size_t>(got));
      return heard.find(line + "\n") != std::string::npos || ended.has_value();
    });
    EXPECT_TRUE(came) << "heard: " << heard;
    return heard.find(line + "\n") != std::string::npos;
  }
  void send_byte() { EXPECT_EQ(write(input[1], "x", 1), 1); }
  bool is_asleep() {
    return nodes.run_until([&] { return read_process_status(pid)->state == 'S'; });
  }
  // 128 + signal; -1: it does not end.
  int end_of() {
    return nodes.run_until([&] { return ended.has_value(); }) ? *ended : -1;
  }

  std::shared_ptr<FrozenProcess> freeze() {
    std::shared_ptr<FrozenProcess> process;
    bool answered = false;
    FrozenProcess::freeze(nodes.loop(), *reaper, pid, [&](auto frozen) {
      EXPECT_TRUE(frozen) << frozen.error().message();
      if (frozen) process = std::move(*frozen);
      answered = true;
    });
    EXPECT_TRUE(nodes.run_until([&] { return answered; }));
    return process;
  }
  static bool is_of_file(const ProcessImage& image, RemoteAddr at) {
    for (const ImageMapping& m : image.mappings)
      if (m.start <= at && at < m.end()) return m.kind == ImageMapping::Kind::kFile;
    return false;
  }
  static Contents copy(const FrozenProcess& process) {
    Contents contents;
    auto ranges = content_ranges(process.pid());
    EXPECT_TRUE(ranges);
    for (const PageRange& range : *ranges) {
      std::string piece(range.bytes, '\0');
      UniqueFd memory(
          open(("/proc/" + std::to_string(process.pid()) + "/mem").c_str(), O_RDONLY | O_CLOEXEC));
      EXPECT_EQ(
          pread(memory.get(), piece.data(), piece.size(), static_cast<off_t>(range.start.value)),
          static_cast<ssize_t>(piece.size()));
      contents.pieces.emplace_back(range.start, std::move(piece));
    }
    return contents;
  }
  Result<std::unique_ptr<InstalledProcess>> install(ProcessImage image,
                                                    const UserfaultSource* late_pages = nullptr) {
    ImageInstaller::Request request;
    request.late_pages = late_pages;
    request.image = std::move(image);
    request.origin_keeps_signals = false;
    request.fds.push_back({0, UniqueFd(fcntl(input[0], F_DUPFD_CLOEXEC, 0))});
    request.fds.push_back({1, UniqueFd(fcntl(output[1], F_DUPFD_CLOEXEC, 0))});
    request.fds.push_back({2, UniqueFd(fcntl(2, F_DUPFD_CLOEXEC, 0))});
    request.on_created = [this, tid = request.image.threads.front().tid] {
      pid = tid;
      watch();
    };
    std::optional<Result<std::unique_ptr<InstalledProcess>>> outcome;
    installer->install(std::move(request), [&](auto result) { outcome = std::move(result); });
    EXPECT_TRUE(nodes.run_until([&] { return outcome.has_value(); }));
    return outcome ? std::move(*outcome) : errno_error("no answer", ETIMEDOUT);
  }
  void kill_original() {
    kill(pid, SIGKILL);
    EXPECT_EQ(end_of(), 128 + SIGKILL);
  }
  // From the running process to a new one that is as it.
  void move() {
    auto process = freeze();
    ASSERT_TRUE(process);
    auto image = capture_image(*process, -1);
    ASSERT_TRUE(image) << image.error().message();
    const Contents contents = copy(*process);
    kill_original();
    process.reset();
    auto travelled = ProcessImage::parse(image->serialize());
    ASSERT_TRUE(travelled);
    auto installed = install(std::move(*travelled));
    ASSERT_TRUE(installed) << installed.error().message();
    for (const auto& [at, piece] : contents.pieces) {
      auto put = (*installed)->write_pages(at, piece);
      ASSERT_TRUE(put) << put.error().message() << " " << std::hex << at.value;
    }
    auto thawed = (*installed)->thaw();
    ASSERT_TRUE(thawed) << thawed.error().message();
  }
  void expect_success() {
    EXPECT_TRUE(hears("done")) << heard;
    EXPECT_EQ(end_of(), 0) << heard;
  }

  LoopbackNodes nodes{1};
  std::unique_ptr<ChildReaper> reaper;
  SyscallBroker broker{nodes.loop()};
  std::unique_ptr<BodySpawner> spawner;
  std::unique_ptr<ImageInstaller> installer;
  int input[2] = {-1, -1}, output[2] = {-1, -1};
  pid_t pid = 0;
  std::string heard;
  std::optional<int> ended;
};

// As dynamic and as static programs.
class ProgramTest : public ImageTest, public ::testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Programs, ProgramTest,
                         ::testing::Values(KRG_IMAGE_TRACEE, KRG_IMAGE_TRACEE_STATIC),
                         [](const auto& info) {
                           return std::string(info.index == 0 ? "dynamic" : "static");
                         });

TEST_P(ProgramTest, MemoryAndIdentity) {
  start(GetParam(), {"memory"});
  move();
  send_byte();
  expect_success();
}

TEST_P(ProgramTest, Registers) {
  start(GetParam(), {"registers"});
  move();
  kill(pid, SIGUSR1);
  expect_success();
}

TEST_P(ProgramTest, Signals) {
  start(GetParam(), {"signals"});
  move();
  send_byte();
  expect_success();
}

TEST_P(ProgramTest, Threads) {
  start(GetParam(), {"threads", "20"});
  move();
  send_byte();
  expect_success();
}

TEST_F(ImageTest, HundredsOfThreads) {
  start(KRG_IMAGE_TRACEE, {"threads", "300"});
  move();
  send_byte();
  expect_success();
}

TEST_F(ImageTest, ASleepGoesOnWithItsRest) {
  start(KRG_IMAGE_TRACEE, {"sleep"});
  ASSERT_TRUE(is_asleep());
  move();
  move();
  expect_success();
}

TEST_F(ImageTest, AWaitGoesOn) {
  start(KRG_IMAGE_TRACEE, {"poll"});
  ASSERT_TRUE(is_asleep());
  move();
  ASSERT_TRUE(is_asleep());
  move();
  send_byte();
  expect_success();
}

TEST_F(ImageTest, Timers) {
  start(KRG_IMAGE_TRACEE, {"timers"});
  move();
  send_byte();
  expect_success();
}

TEST_F(ImageTest, OneThatIsStoppedStaysSo) {
  start(KRG_IMAGE_TRACEE, {"poll"});
  kill(pid, SIGSTOP);
  ASSERT_TRUE(nodes.run_until([&] { return read_process_status(pid)->state == 'T'; }));
  move();
  ASSERT_TRUE(nodes.run_until([&] { return read_process_status(pid)->state == 'T'; }));
  send_byte();
  kill(pid, SIGCONT);
  expect_success();
}

// Serves all pages of `contents` that nobody has written, each when it is touched.
class PageServer {
 public:
  PageServer(UniqueFd userfaultfd, const Contents& contents)
      : userfaultfd_(std::move(userfaultfd)), contents_(contents) {
    uffdio_api api{};
    api.api = UFFD_API;
    EXPECT_EQ(ioctl(userfaultfd_.get(), UFFDIO_API, &api), 0);
    for (const auto& [at, piece] : contents.pieces) {
      uffdio_register range{};
      range.range = {at.value, piece.size()};
      range.mode = UFFDIO_REGISTER_MODE_MISSING;
      EXPECT_EQ(ioctl(userfaultfd_.get(), UFFDIO_REGISTER, &range), 0) << strerror(errno);
    }
    stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
    thread_ = std::thread([this] { serve(); });
  }
  ~PageServer() {
    eventfd_write(stop_.get(), 1);
    thread_.join();
  }
  int served() const { return served_; }

 private:
  void serve() {
    pollfd wanted[] = {{userfaultfd_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    while (poll(wanted, 2, -1) > 0 && !wanted[1].revents) {
      uffd_msg message;
      if (read(userfaultfd_.get(), &message, sizeof message) != sizeof message) continue;
      if (message.event != UFFD_EVENT_PAGEFAULT) continue;
      const uint64_t page = message.arg.pagefault.address & ~0xfffULL;
      for (const auto& [at, piece] : contents_.pieces) {
        if (page < at.value || page >= at.value + piece.size()) continue;
        uffdio_copy copy{};
        copy.dst = page;
        copy.src = reinterpret_cast<uint64_t>(piece.data() + (page - at.value));
        copy.len = 4096;
        if (ioctl(userfaultfd_.get(), UFFDIO_COPY, &copy) == 0) ++served_;
      }
    }
  }

  UniqueFd userfaultfd_, stop_;
  const Contents& contents_;
  std::atomic<int> served_ = 0;
  std::thread thread_;
};

TEST_F(ImageTest, PagesCanComeLater) {
  auto source = UserfaultSource::find(UserfaultSource::Forks::kNone);
  if (!source && geteuid() != 0) return;  // an ordinary user's pages all come before
  if (!source) GTEST_SKIP() << "lacks userfaultfd_kernel_faults: " << source.error().message();
  start(KRG_IMAGE_TRACEE, {"threads", "10"});
  auto process = freeze();
  auto image = capture_image(*process, -1);
  ASSERT_TRUE(image);
  Contents contents = copy(*process);
  const auto early = pages_before_thaw(*image);
  kill_original();
  process.reset();
  auto installed = install(*image, &*source);
  ASSERT_TRUE(installed) << installed.error().message();
  Contents late;
  for (auto& [at, piece] : contents.pieces) {
    const bool has_file = is_of_file(*image, at);
    for (size_t page = 0; page < piece.size(); page += 4096) {
      const std::string text = piece.substr(page, 4096);
      if (has_file || std::binary_search(early.begin(), early.end(), at + page))
        ASSERT_TRUE((*installed)->write_pages(at + page, text));
      else
        late.pieces.emplace_back(at + page, text);
    }
  }
  PageServer server((*installed)->take_userfaultfd(), late);
  ASSERT_TRUE((*installed)->thaw());
  send_byte();
  expect_success();
  EXPECT_GT(server.served(), 10);
}

// A body under the filter, whose forks are stopped.
class ForkImageTest : public ImageTest {
 protected:
  ForkImageTest() : ImageTest(true) {}
};

TEST_F(ForkImageTest, AChildBeginsAsAnImage) {
  start(KRG_IMAGE_TRACEE, {"fork"});
  move();  // under the filter
  std::shared_ptr<FrozenProcess> child;
  for (int number : {SYS_fork, SYS_clone, SYS_clone3})
    broker.set_handler(number, [&](SyscallBroker::Call call) {
      if (child) return call.go_on();
      auto taken = fork_and_freeze_child(*reaper, call, [&](auto forked) {
        ASSERT_TRUE(forked) << forked.error().message();
        child = *forked;
      });
      ASSERT_TRUE(taken);
    });
  send_byte();
  ASSERT_TRUE(nodes.run_until([&] { return child != nullptr; }));
  auto image = capture_image(*child, -1);
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ(image->threads.front().registers.rax, 0u);
  const Contents contents = copy(*child);
  child->kill();
  expect_success();  // of the parent, whose child has gone
  auto installed = install(*image);
  ASSERT_TRUE(installed) << installed.error().message();
  for (const auto& [at, piece] : contents.pieces) ASSERT_TRUE((*installed)->write_pages(at, piece));
  ASSERT_TRUE((*installed)->thaw());
  EXPECT_TRUE(hears("child"));
  EXPECT_EQ(end_of(), 0);
}

TEST_F(ImageTest, ManyMoves) {
  start(KRG_IMAGE_TRACEE, {"threads", "4"});
  for (int i = 0; i < 10; ++i) move();
  send_byte();
  expect_success();
}

TEST_F(ImageTest, TheOriginalGoesOnWhenTheImageIsNotUsed) {
  start(KRG_IMAGE_TRACEE, {"memory"});
  for (int i = 0; i < 3; ++i) {
    auto process = freeze();
    ASSERT_TRUE(process);
    EXPECT_TRUE(capture_image(*process, -1));
  }
  send_byte();
  expect_success();
}

TEST_F(ImageTest, AnInstalledOneThatIsNotThawedIsKilled) {
  start(KRG_IMAGE_TRACEE, {"memory"});
  auto process = freeze();
  auto image = capture_image(*process, -1);
  ASSERT_TRUE(image);
  EXPECT_EQ(install(*image).error().errno_or(0), EEXIST) << "its pid is taken";
  kill_original();
  process.reset();
  {
    auto installed = install(*image);
    ASSERT_TRUE(installed) << installed.error().message();
    EXPECT_FALSE(ended);
  }
  EXPECT_EQ(end_of(), 128 + SIGKILL);
  // One that is killed meanwhile is told.
  auto installed = install(*image);
  ASSERT_TRUE(installed);
  bool told = false;
  (*installed)->on_end([&] { told = true; });
  kill(pid, SIGKILL);
  EXPECT_EQ(end_of(), 128 + SIGKILL);
  EXPECT_TRUE(told);
  EXPECT_EQ((*installed)->thaw().error().errno_or(0), ESRCH);
}

TEST_F(ImageTest, AnotherFileIsRefused) {
  start(KRG_IMAGE_TRACEE, {"memory"});
  auto process = freeze();
  auto image = capture_image(*process, -1);
  ASSERT_TRUE(image);
  process.reset();
  image->files.back().modified_ns += 1;
  EXPECT_EQ(install(*image).error().errno_or(0), ESTALE);
  image->files.back().path = "/nowhere";
  EXPECT_EQ(install(*image).error().errno_or(0), ENOENT);
  send_byte();
  expect_success();
}

}  // namespace
}  // namespace krg
