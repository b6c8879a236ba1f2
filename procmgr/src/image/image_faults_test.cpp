// Pages that come when they are touched; processes that are killed at any moment.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>

#include "image/testing/image_fixture.h"
#include "userfault_source.h"

namespace krg {
namespace {

using testing::Contents;
using testing::ImageTest;

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
  auto source = UserfaultSource::find();
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

struct Obstacle {
  const char* name;
  const char* reason;
};
class ObstacleTest : public ImageTest, public ::testing::WithParamInterface<Obstacle> {};
INSTANTIATE_TEST_SUITE_P(
    Obstacles, ObstacleTest,
    ::testing::Values(Obstacle{"shared", "anonymous shared memory"},
                      Obstacle{"shared_file", "krgrun --share-files"},
                      Obstacle{"deleted_file", "deleted file"}, Obstacle{"memfd", "shares with"},
                      Obstacle{"aio", "shares with"}, Obstacle{"chroot", "root directory"},
                      Obstacle{"ipc_namespace", "ipc namespace"}, Obstacle{"folders", "folders"},
                      Obstacle{"cpu_timer", "clock"}, Obstacle{"main_thread", "main thread"},
                      Obstacle{"io_uring", "io_uring"}, Obstacle{"userfaultfd", "userfaultfd"},
                      Obstacle{"securebits", "securebits"}, Obstacle{"deadline", "deadline"}),
    [](const auto& info) { return std::string(info.param.name); });

// The reason is told, and the process goes on.
TEST_P(ObstacleTest, IsTold) {
  const std::string name = GetParam().name;
  const bool is_roots =
      name == "chroot" || name == "ipc_namespace" || name == "securebits" || name == "deadline";
  if (geteuid() != 0 && is_roots) return;
  io_uring_params params{};
  const UniqueFd ring(static_cast<int>(syscall(SYS_io_uring_setup, 1, &params)));
  if (name == "io_uring" && !ring) return;  // often forbidden (kernel.io_uring_disabled)
  start(KRG_IMAGE_TRACEE, {"obstacle", name});
  std::optional<Error> why;
  FrozenProcess::freeze(nodes.loop(), *reaper, pid, [&](auto frozen) {
    if (!frozen) {
      why = frozen.error();
      return;
    }
    auto image = capture_image(**frozen, -1);
    why = image ? text_error("none") : image.error();
  });
  ASSERT_TRUE(nodes.run_until([&] { return why.has_value(); }));
  EXPECT_EQ(why->errno_or(0), ENOTSUP) << why->message();
  EXPECT_NE(why->message().find(GetParam().reason), std::string::npos) << why->message();
  send_byte();
  expect_success();
}

TEST_F(ImageTest, ATracedProcessIsRefused) {
  start(KRG_IMAGE_TRACEE, {"obstacle", "none"});
  const pid_t tracer = fork();
  if (tracer == 0) {
    if (ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0) _exit(1);
    kill(getpid(), SIGSTOP);
    _exit(0);
  }
  ASSERT_TRUE(nodes.run_until([&] { return read_tracer(pid).value_or(0) == tracer; }));
  std::optional<int> error;
  FrozenProcess::freeze(nodes.loop(), *reaper, pid,
                        [&](auto frozen) { error = frozen ? 0 : frozen.error().errno_or(-1); });
  ASSERT_TRUE(nodes.run_until([&] { return error.has_value(); }));
  EXPECT_EQ(error, EPERM);
  kill(tracer, SIGKILL);
  send_byte();
  expect_success();
}

// Kills a process some time after, from another thread.
class Killer {
 public:
  Killer(pid_t pid, int microseconds)
      : thread_([=] {
          usleep(static_cast<useconds_t>(microseconds));
          kill(pid, SIGKILL);
        }) {}
  ~Killer() { thread_.join(); }

 private:
  std::thread thread_;
};

class KilledTest : public ImageTest {
 protected:
  static long open_descriptors() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  }
  // Children, tracees, orphans: as init of the PID namespace all come to us.
  static std::vector<std::string> others() {
    std::vector<std::string> pids;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const std::string name = entry.path().filename();
      if (std::isdigit(name.front()) && name != std::to_string(getpid())) pids.push_back(name);
    }
    return pids;
  }
  void expect_nothing_left() {
    EXPECT_TRUE(nodes.run_until([&] { return others().empty() && broker.listener_count() == 0; }));
  }
  void close_pipes() {
    for (int fd : {input[0], input[1], output[0], output[1]}) close(fd);
    heard.clear();
  }
};

TEST_F(KilledTest, AnOriginalAtAnyMoment) {
  long descriptors = 0;
  for (int round = 0; round < 40; ++round) {
    start(KRG_IMAGE_TRACEE, {"threads", "5"});
    {
      Killer killer(pid, round * 50);
      std::optional<bool> answered;
      FrozenProcess::freeze(nodes.loop(), *reaper, pid, [&](auto frozen) {
        answered = true;
        if (!frozen) return;
        auto image = capture_image(**frozen, -1);
        auto source = (*frozen)->clone_page_source();
        if (source) kill(*source, SIGKILL);
      });
      EXPECT_TRUE(nodes.run_until([&] { return answered.has_value(); }));
    }
    EXPECT_EQ(end_of(), 128 + SIGKILL);
    expect_nothing_left();
    close_pipes();
    if (round == 0) descriptors = open_descriptors();
  }
  EXPECT_EQ(open_descriptors(), descriptors);
}

TEST_F(KilledTest, ANewOneAtAnyMoment) {
  start(KRG_IMAGE_TRACEE, {"threads", "5"});
  auto process = freeze();
  auto image = capture_image(*process, -1);
  ASSERT_TRUE(image);
  kill_original();
  process.reset();
  long descriptors = 0;
  for (int round = 0; round < 40; ++round) {
    std::optional<Killer> killer;
    ImageInstaller::Request request;
    request.image = *image;
    request.on_created = [&] {
      watch();
      killer.emplace(pid, round * 100);
    };
    std::optional<Result<std::unique_ptr<InstalledProcess>>> outcome;
    installer->install(std::move(request), [&](auto result) { outcome = std::move(result); });
    EXPECT_TRUE(nodes.run_until([&] { return outcome.has_value(); }));
    if (outcome && *outcome) {
      static_cast<void>((**outcome)->thaw());  // without its pages it dies soon
      (**outcome).reset();
    }
    EXPECT_GE(end_of(), 128);
    killer.reset();
    expect_nothing_left();
    if (round == 0) descriptors = open_descriptors();
  }
  EXPECT_EQ(open_descriptors(), descriptors);
}

}  // namespace
}  // namespace krg
