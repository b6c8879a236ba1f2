// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "testing/descriptors_fixture.h"

namespace krg::testing {
namespace {

using namespace std::chrono_literals;

// A pseudo-terminal at home: `screen` is what the person sees and types into.
class TerminalsTest : public DescriptorsTest {
 protected:
  void SetUp() override {
    DescriptorsTest::SetUp();
    if (IsSkipped()) return;
    screen_ = UniqueFd(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    ASSERT_TRUE(screen_ && unlockpt(screen_.get()) == 0);
    tty_ = UniqueFd(open(ptsname(screen_.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_TRUE(tty_);
    const winsize size{33, 101, 0, 0};
    ASSERT_EQ(ioctl(screen_.get(), TIOCSWINSZ, &size), 0);
  }
  // All three standard descriptors are the terminal.
  pid_t place_on_terminal(const std::function<int()>& program) {
    const int tty = tty_.get();
    return place(kHome, kFar, {{0, tty}, {1, tty}, {2, tty}}, program);
  }
  // What has come to the screen, until it holds `text`.
  bool screen_shows(const std::string& text) {
    return pump_until(
        [&] {
          char piece[4096];
          for (ssize_t got; (got = read(screen_.get(), piece, sizeof piece)) > 0;)
            shown_.append(piece, static_cast<size_t>(got));
          return shown_.find(text) != std::string::npos;
        },
        5s);
  }
  void type(std::string_view keys) { EXPECT_TRUE(write_all(screen_.get(), keys)); }

  UniqueFd screen_, tty_;
  std::string shown_;
};

TEST_F(TerminalsTest, LooksLikeTheTerminalAtHome) {
  termios modes{};
  ASSERT_EQ(tcgetattr(tty_.get(), &modes), 0);
  const pid_t body = place_on_terminal([modes] {
    termios here{};
    winsize size{};
    if (!isatty(0) || !isatty(1) || !isatty(2) || ttyname(0) == nullptr) return 1;
    if (tcgetattr(0, &here) != 0 || (here.c_lflag & ~EXTPROC) != modes.c_lflag ||
        here.c_iflag != modes.c_iflag || here.c_oflag != modes.c_oflag ||
        here.c_cc[VINTR] != modes.c_cc[VINTR])
      return 2;
    if (ioctl(1, TIOCGWINSZ, &size) != 0 || size.ws_row != 33 || size.ws_col != 101) return 3;
    return kOk;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  EXPECT_EQ(wait_for(body), 0);
}

TEST_F(TerminalsTest, OutputArrivesOnceBeforeTheEndIsReported) {
  const pid_t body = place_on_terminal([] {
    std::string lines;
    for (int i = 0; i < 3000; ++i) lines += "line " + std::to_string(i) + "\n";
    return write_all(1, lines) && write_all(2, "cr\r\nend") ? kOk : 1;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  std::string expected;
  for (int i = 0; i < 3000; ++i) expected += "line " + std::to_string(i) + "\r\n";
  EXPECT_TRUE(screen_shows("end"));
  EXPECT_EQ(wait_for(body), 0);
  EXPECT_TRUE(shown_ == expected + "cr\r\r\nend") << shown_.size();
}

TEST_F(TerminalsTest, TypedLinesAndEndOfFileReachAReader) {
  const pid_t body = place_on_terminal([] {
    char line[64];
    for (int i = 0; i < 2; ++i) {
      const ssize_t got = read(0, line, sizeof line);
      if (got <= 0 || !write_all(1, "<" + std::string(line, static_cast<size_t>(got) - 1) + ">"))
        return 1;
    }
    return read(0, line, sizeof line) == 0 ? kOk : 2;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  type("helo\177lo\n");  // edited at home
  EXPECT_TRUE(screen_shows("<hello>")) << shown_;
  type("second\n");
  EXPECT_TRUE(screen_shows("<second>")) << shown_;
  type("\004");
  EXPECT_EQ(wait_for(body), 0);
}

TEST_F(TerminalsTest, TypeAheadIsLeftForTheShellWhenNobodyReads) {
  const pid_t body = place_on_terminal([] {
    usleep(150000);
    return write_all(1, "done") ? kOk : 1;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  type("for the shell\n");
  EXPECT_TRUE(screen_shows("done"));
  EXPECT_EQ(wait_for(body), 0);
  fcntl(tty_.get(), F_SETFL, O_NONBLOCK);
  char line[64];
  EXPECT_EQ(read(tty_.get(), line, sizeof line), 14);
}

TEST_F(TerminalsTest, ModesAndWindowSizeFollowBothWays) {
  const pid_t body = place_on_terminal([] {
    struct sigaction quiet {};
    quiet.sa_handler = [](int) {};
    quiet.sa_flags = SA_RESTART;  // the new size may come while it reads
    sigaction(SIGWINCH, &quiet, nullptr);
    termios raw{};
    if (tcgetattr(0, &raw) != 0) return 1;
    const termios before = raw;
    cfmakeraw(&raw);
    if (tcsetattr(0, TCSANOW, &raw) != 0 || !write_all(1, "raw\n")) return 2;
    char key;
    if (read(0, &key, 1) != 1 || key != 3) return 3;  // Ctrl-C as a byte
    winsize size{};
    for (int i = 0; i < 500 && size.ws_row != 50; ++i) {
      usleep(10000);
      ioctl(0, TIOCGWINSZ, &size);
    }
    if (size.ws_row != 50) return 4;
    return tcsetattr(0, TCSANOW, &before) == 0 && write_all(1, "cooked\n") ? kOk : 5;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  EXPECT_TRUE(screen_shows("raw\n")) << shown_;  // no CR
  EXPECT_EQ(shown_.find('\r'), std::string::npos);
  termios modes{};
  ASSERT_EQ(tcgetattr(tty_.get(), &modes), 0);
  EXPECT_FALSE(modes.c_lflag & (ICANON | ECHO | ISIG));
  type("\003");
  const winsize size{50, 120, 0, 0};
  ASSERT_EQ(ioctl(screen_.get(), TIOCSWINSZ, &size), 0);
  EXPECT_TRUE(screen_shows("cooked\r\n")) << shown_;
  EXPECT_EQ(wait_for(body), 0);
  settle();
  ASSERT_EQ(tcgetattr(tty_.get(), &modes), 0);
  EXPECT_TRUE(modes.c_lflag & ICANON);
}

}  // namespace
}  // namespace krg::testing
