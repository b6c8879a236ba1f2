// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/image_installer.h"

#include <sys/syscall.h>

#include "image/testing/image_fixture.h"

namespace krg {
namespace {

using testing::Contents;
using testing::ImageTest;

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

// One that asks the kernel, or the processor's counter, by its own vdso would be killed.
TEST_P(ProgramTest, AnotherKernelsVdso) {
  start(GetParam(), {"clocks"});
  for (int i = 0; i < 3; ++i)
    move({}, [](ProcessImage& image) {
      ASSERT_FALSE(image.vdso.empty());
      for (const std::string code : {"\x0f\x05", "\x0f\x31", "\x0f\x01\xf9"})
        for (size_t at = 0; (at = image.vdso.find(code, at)) != std::string::npos;
             at += code.size())
          image.vdso.replace(at, code.size(), code.size(), '\xcc');
    });
  send_byte();
  expect_success();
}

// A program that knows nothing of tests, and starts others.
TEST_F(ImageTest, AShell) {
  start("/bin/sh", {"-c",
                    "echo ready; i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done;"
                    "[ $(echo $i) = 50000 ] && echo done"});
  for (int i = 0; i < 3; ++i) move();
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

TEST_F(ImageTest, OneThatIsContinuedWhileItStandsGoesOn) {
  start(KRG_IMAGE_TRACEE, {"poll"});
  kill(pid, SIGSTOP);
  ASSERT_TRUE(nodes.run_until([&] { return read_process_status(pid)->state == 'T'; }));
  move([&] { kill(pid, SIGCONT); });
  ASSERT_TRUE(is_asleep());
  send_byte();
  expect_success();
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
