// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/descriptors.h"

#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include <array>
#include <random>

#include "testing/descriptors_fixture.h"

namespace krg::testing {
namespace {

using namespace std::chrono_literals;

TEST_F(DescriptorsTest, AWriterElsewhereReachesAReaderAtHome) {
  Pipe pipe;
  const pid_t body = place(kHome, kFar, {{1, pipe.writer.get()}},
                           [] { return write_all(1, "hello from far\n") ? kOk : 1; });
  ASSERT_GT(body, 0) << last_error_.message();
  pipe.writer.reset();
  EXPECT_EQ(drain(std::move(pipe.reader)), "hello from far\n");  // and end of file
  EXPECT_TRUE(exited_well(wait_for(body)));
}

TEST_F(DescriptorsTest, AReaderElsewhereSeesDataAndEndOfFile) {
  Pipe in, out;
  const pid_t body = place(kHome, kFar, {{0, in.reader.get()}, {1, out.writer.get()}},
                           [] { return run_program({"cat"}); });
  ASSERT_GT(body, 0) << last_error_.message();
  in.reader.reset();
  out.writer.reset();
  ASSERT_TRUE(write_all(in.writer.get(), "first "));
  settle();
  ASSERT_TRUE(write_all(in.writer.get(), "second"));
  in.writer.reset();
  EXPECT_EQ(drain(std::move(out.reader)), "first second");
  EXPECT_TRUE(exited_well(wait_for(body)));
}

TEST_F(DescriptorsTest, ABrokenPipeKillsTheWriterElsewhere) {
  Pipe pipe;
  const pid_t yes =
      place(kHome, kFar, {{1, pipe.writer.get()}}, [] { return run_program({"yes"}); });
  ASSERT_GT(yes, 0) << last_error_.message();
  Pipe out;
  const pid_t head = start({{0, pipe.reader.get()}, {1, out.writer.get()}}, [] {
    return run_program({"head", "-n", "5000"});
  });
  pipe = {};
  out.writer.reset();
  EXPECT_EQ(drain(std::move(out.reader)).size(), 10000u);
  EXPECT_TRUE(exited_well(wait_for(head)));
  const int status = wait_for(yes);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE) << status;
}

TEST_F(DescriptorsTest, AWriterThatIgnoresSigpipeGetsEpipe) {
  Pipe pipe;
  const pid_t body = place(kHome, kFar, {{1, pipe.writer.get()}}, [] {
    signal(SIGPIPE, SIG_IGN);
    return write(1, "x", 1) == -1 && errno == EPIPE ? kOk : 1;
  });
  pipe = {};
  EXPECT_TRUE(exited_well(wait_for(body)));
}

// 100 MB through three stages on three nodes with odd sizes of reads and writes.
TEST_F(DescriptorsTest, APipelineOverThreeNodesKeepsEveryByte) {
  constexpr size_t kBytes = 100u << 20;
  constexpr unsigned kSeed = 20240607;
  auto copy_in_odd_sizes = [](unsigned seed) {
    std::minstd_rand random(seed);
    std::vector<char> buffer(300000);
    for (;;) {
      const ssize_t got = read(0, buffer.data(), 1 + random() % buffer.size());
      if (got < 0) return 1;
      if (got == 0) return kOk;
      if (!write_all(1, {buffer.data(), static_cast<size_t>(got)})) return 2;
    }
  };
  auto word_at = [](size_t i) { return i * 0x9E3779B97F4A7C15u; };
  Pipe a, b, c;
  const pid_t source = start({{1, a.writer.get()}}, [&] {
    std::vector<uint64_t> words(1 << 15);
    for (size_t done = 0; done < kBytes / 8; done += words.size()) {
      for (size_t i = 0; i < words.size(); ++i) words[i] = word_at(done + i);
      if (!write_all(1, {reinterpret_cast<char*>(words.data()), words.size() * 8})) return 1;
    }
    return kOk;
  });
  const pid_t second = place(kHome, kFar, {{0, a.reader.get()}, {1, b.writer.get()}},
                             [&] { return copy_in_odd_sizes(kSeed); });
  const pid_t third = place(kHome, kFarther, {{0, b.reader.get()}, {1, c.writer.get()}},
                            [&] { return copy_in_odd_sizes(kSeed + 1); });
  ASSERT_TRUE(second > 0 && third > 0) << last_error_.message();
  const pid_t sink = start({{0, c.reader.get()}}, [&] {
    const std::string got = read_all(0);
    if (got.size() != kBytes) return 1;
    auto* words = reinterpret_cast<const uint64_t*>(got.data());
    for (size_t i = 0; i < kBytes / 8; ++i)
      if (words[i] != word_at(i)) return 2;
    return kOk;
  });
  a = {};
  b = {};
  c = {};
  for (pid_t stage : {source, second, third, sink}) EXPECT_TRUE(exited_well(wait_for(stage)));
}

// Tokens of a job server: nobody may take one that it did not ask for.
TEST_F(DescriptorsTest, TokensInASharedPipeAreNeverLost) {
  constexpr int kTokens = 3, kClients = 5, kRounds = 40;
  Pipe tokens;
  ASSERT_TRUE(write_all(tokens.writer.get(), std::string(kTokens, '+')));
  auto client = [] {
    for (int i = 0; i < kRounds; ++i) {
      char token;
      if (read(3, &token, 1) != 1 || token != '+') return 1;
      if (i % 8 == 0) usleep(1000);
      if (write(4, &token, 1) != 1) return 2;
    }
    return kOk;
  };
  const std::vector<GivenFd> fds = {{3, tokens.reader.get()}, {4, tokens.writer.get()}};
  std::vector<pid_t> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(i == 0   ? start(fds, client)
                      : i == 1 ? place(kHome, kFarther, fds, client)
                               : place(kHome, kFar, fds, client));
  }
  // One that has the pipe and polls it, but never reads.
  const pid_t idle = place(kHome, kFar, fds, [] {
    pollfd one{3, POLLIN, 0};
    for (int i = 0; i < 20; ++i) ::poll(&one, 1, 2);
    return kOk;
  });
  for (pid_t pid : clients) EXPECT_TRUE(exited_well(wait_for(pid)));
  EXPECT_TRUE(exited_well(wait_for(idle)));
  tokens.writer.reset();
  settle();
  EXPECT_EQ(drain(std::move(tokens.reader)), std::string(kTokens, '+'));
}

TEST_F(DescriptorsTest, PollSelectEpollAndNonblockingIoWorkElsewhere) {
  Pipe in, out;
  fcntl(in.reader.get(), F_SETFL, O_NONBLOCK);
  fcntl(out.writer.get(), F_SETFL, O_NONBLOCK);
  const pid_t body = place(kHome, kFar, {{0, in.reader.get()}, {1, out.writer.get()}}, [] {
    char text[4096] = {};
    pollfd in_fd{0, POLLIN, 0};
    if (!(fcntl(0, F_GETFL) & O_NONBLOCK)) return 1;
    if (read(0, text, 10) != -1 || errno != EAGAIN) return 2;
    if (::poll(&in_fd, 1, 0) != 0) return 3;
    if (write(1, "1", 1) != 1) return 4;  // asks for a byte
    if (::poll(&in_fd, 1, 10000) != 1 || in_fd.revents != POLLIN) return 5;
    if (read(0, text, 10) != 1) return 6;
    if (write(1, "2", 1) != 1) return 7;
    fd_set set;
    FD_ZERO(&set);
    FD_SET(0, &set);
    timeval limit{10, 0};
    if (select(1, &set, nullptr, nullptr, &limit) != 1 || read(0, text, 10) != 1) return 8;
    UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, 0, &event) != 0) return 9;
    if (write(1, "3", 1) != 1) return 10;
    if (epoll_wait(epoll.get(), &event, 1, 10000) != 1 || read(0, text, 10) != 1) return 11;
    size_t filled = 0;  // until the pipe is full
    for (ssize_t put; (put = write(1, text, sizeof text)) > 0;) filled += static_cast<size_t>(put);
    if (errno != EAGAIN || filled < 32768) return 12;
    pollfd out_fd{1, POLLOUT, 0};
    if (::poll(&out_fd, 1, 0) != 0) return 13;
    if (fcntl(1, F_SETFL, 0) != 0 || !write_all(1, {text, sizeof text})) return 14;  // waits
    if (::poll(&in_fd, 1, 10000) != 1 || !(in_fd.revents & POLLHUP)) return 15;
    return read(0, text, 10) == 0 ? kOk : 16;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  in.reader.reset();
  out.writer.reset();
  fcntl(out.reader.get(), F_SETFL, O_NONBLOCK);
  char text[65536];
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(pump_until([&] { return read(out.reader.get(), text, 1) == 1; }));
    settle();  // it waits by now
    ASSERT_TRUE(write_all(in.writer.get(), "x"));
  }
  settle();  // it has filled the pipe and waits by now
  auto writer = std::move(in.writer);
  auto later = loop_->after(50ms, [&] { writer.reset(); });
  drain(std::move(out.reader));
  EXPECT_EQ(wait_for(body), 0);
}

TEST_F(DescriptorsTest, ASignalInterruptsABlockedReadAndWrite) {
  Pipe idle, full;
  const pid_t body = place(kHome, kFar, {{0, idle.reader.get()}, {1, full.writer.get()}}, [] {
    struct sigaction quiet {};
    quiet.sa_handler = [](int) {};
    sigaction(SIGALRM, &quiet, nullptr);
    char c;
    ualarm(30000, 0);
    if (read(0, &c, 1) != -1 || errno != EINTR) return 1;
    const std::string large(1 << 20, 'x');
    ualarm(30000, 0);
    const ssize_t part = write(1, large.data(), large.size());  // the pipe holds less
    return part > 0 && part < static_cast<ssize_t>(large.size()) ? kOk : 2;
  });
  EXPECT_EQ(wait_for(body), 0);
}

TEST_F(DescriptorsTest, AKilledReaderTakesNothingWithIt) {
  Pipe pipe;
  const pid_t body = place(kHome, kFar, {{0, pipe.reader.get()}}, [] {
    char c;
    return read(0, &c, 1) == 1 ? kOk : 1;
  });
  settle();
  kill(body, SIGKILL);
  wait_for(body);
  settle();
  ASSERT_TRUE(write_all(pipe.writer.get(), "kept"));
  settle();
  pipe.writer.reset();
  EXPECT_EQ(drain(std::move(pipe.reader)), "kept");
}

TEST_F(DescriptorsTest, WritesUpToPipeBufStayWhole) {
  constexpr int kWriters = 4, kRecords = 60;
  constexpr size_t kRecord = 4096;
  Pipe pipe;
  std::vector<pid_t> writers;
  for (int w = 0; w < kWriters; ++w) {
    auto program = [w] {
      const std::string record(kRecord, static_cast<char>('a' + w));
      for (int i = 0; i < kRecords; ++i)
        if (write(1, record.data(), kRecord) != static_cast<ssize_t>(kRecord)) return 1;
      return kOk;
    };
    writers.push_back(w == 0 ? start({{1, pipe.writer.get()}}, program)
                             : place(kHome, NodeId{static_cast<uint16_t>(1 + w % 2)},
                                     {{1, pipe.writer.get()}}, program));
  }
  pipe.writer.reset();
  const std::string all = drain(std::move(pipe.reader));
  ASSERT_EQ(all.size(), kWriters * kRecords * kRecord);
  for (size_t at = 0; at < all.size(); at += kRecord)
    ASSERT_EQ(all.find_first_not_of(all[at], at),
              at + kRecord < all.size() && all[at + kRecord] == all[at]
                  ? all.find_first_not_of(all[at], at + kRecord)
                  : (at + kRecord == all.size() ? std::string::npos : at + kRecord));
  for (pid_t writer : writers) EXPECT_TRUE(exited_well(wait_for(writer)));
}

TEST_F(DescriptorsTest, SpliceMovesDataBothWays) {
  Pipe in, out;
  const pid_t body = place(kHome, kFar, {{0, in.reader.get()}, {1, out.writer.get()}}, [] {
    Pipe between;
    ssize_t moved, total = 0;
    while ((moved = splice(0, nullptr, between.writer.get(), nullptr, 65536, 0)) > 0) {
      total += moved;
      while (moved > 0) {
        const ssize_t put =
            splice(between.reader.get(), nullptr, 1, nullptr, static_cast<size_t>(moved), 0);
        if (put <= 0) return 1;
        moved -= put;
      }
    }
    return moved == 0 && total == 300000 ? kOk : 2;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  in.reader.reset();
  out.writer.reset();
  std::string data(300000, 0);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7);
  const pid_t source = start({{1, in.writer.get()}}, [&] { return write_all(1, data) ? kOk : 1; });
  in.writer.reset();
  EXPECT_TRUE(drain(std::move(out.reader)) == data);
  EXPECT_EQ(wait_for(body), 0);
  EXPECT_EQ(wait_for(source), 0);
}

// A body's own children: on a third node they speak with the home, at home they have the pipe
// itself.
TEST_F(DescriptorsTest, AStreamThatGoesOnKeepsItsHome) {
  Pipe pipe;
  const pid_t first = hold({{1, pipe.writer.get()}}, [] { return kOk; });
  auto exported = export_from(kHome, first);
  ASSERT_TRUE(exported);
  auto at_far = import_at(kFar, first, *exported);
  ASSERT_TRUE(at_far) << at_far.error().message();
  end(first);
  const int far_fd = at_far->at(1).fd.get();
  ASSERT_EQ(at_far->at(1).number, 1);
  const pid_t third = place(kFar, kFarther, {{1, far_fd}},
                            [] { return write_all(1, "from the third node\n") ? kOk : 1; });
  ASSERT_GT(third, 0) << last_error_.message();
  const pid_t back = place(kFar, kHome, {{1, far_fd}}, [] {
    struct stat shown {};
    return fstat(1, &shown) == 0 && S_ISFIFO(shown.st_mode) && write_all(1, "back home\n") ? kOk
                                                                                           : 1;
  });
  ASSERT_GT(back, 0) << last_error_.message();
  at_far->clear();  // the middle one is gone before they write
  pipe.writer.reset();
  EXPECT_EQ(wait_for(third), 0);
  EXPECT_EQ(wait_for(back), 0);
  const std::string all = drain(std::move(pipe.reader));
  EXPECT_NE(all.find("from the third node\n"), std::string::npos);
  EXPECT_NE(all.find("back home\n"), std::string::npos);
}

TEST_F(DescriptorsTest, DevFdOpensTheStreamAnew) {
  Pipe in, out;
  const pid_t body = place(kHome, kFar, {{0, in.reader.get()}, {1, out.writer.get()}}, [] {
    return run_program({"sh", "-c", "cat /dev/stdin > /proc/self/fd/1"});
  });
  ASSERT_GT(body, 0) << last_error_.message();
  in.reader.reset();
  out.writer.reset();
  ASSERT_TRUE(write_all(in.writer.get(), "through /dev/stdin"));
  in.writer.reset();
  EXPECT_EQ(drain(std::move(out.reader)), "through /dev/stdin");
  EXPECT_EQ(wait_for(body), 0);
}

// For a time: the files of others are closed to this thread, as they are to an ordinary user's
// krgd.
class WithoutFileOverride {
 public:
  WithoutFileOverride() {
    EXPECT_EQ(syscall(SYS_capget, &header_, before_), 0);
    auto less = std::to_array(before_);
    less[0].effective &= ~(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
    EXPECT_EQ(syscall(SYS_capset, &header_, less.data()), 0);
  }
  ~WithoutFileOverride() { EXPECT_EQ(syscall(SYS_capset, &header_, before_), 0); }

 private:
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct before_[2] = {};
};

// Larger than a pipe, so that both sides must wait; and the caller's descriptions stay as they
// were.
TEST_F(DescriptorsTest, AnotherUsersPipeIsUsedWithoutOpeningItAnew) {
  constexpr uid_t kSomebody = 65534;
  constexpr size_t kBytes = 300'000;
  Pipe in, out;
  for (int end : {in.reader.get(), out.writer.get()}) ASSERT_EQ(fchown(end, kSomebody, 0), 0);
  pid_t body;
  {
    WithoutFileOverride ordinary;
    const std::string path = "/proc/self/fd/" + std::to_string(in.reader.get());
    ASSERT_LT(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC), 0);
    body = place(kHome, kFar, {{0, in.reader.get()}, {1, out.writer.get()}},
                 [] { return run_program({"cat"}); });
  }
  if (body < 0 && last_error_.errno_or(0) == EACCES)
    GTEST_SKIP() << "lacks RWF_NOWAIT on pipes (Linux 6.4)";
  ASSERT_GT(body, 0) << last_error_.message();
  EXPECT_EQ(fcntl(in.reader.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(fcntl(out.writer.get(), F_GETFL) & O_NONBLOCK, 0);
  in.reader.reset();
  out.writer.reset();
  const std::string text(kBytes, 'x');
  const pid_t source = start({{1, in.writer.get()}}, [&] { return write_all(1, text) ? kOk : 1; });
  in.writer.reset();
  settle();  // the source is stuck until somebody takes what cat wrote
  EXPECT_EQ(drain(std::move(out.reader)).size(), kBytes);
  EXPECT_TRUE(exited_well(wait_for(source)));
  EXPECT_TRUE(exited_well(wait_for(body)));
}

TEST_F(DescriptorsTest, ANodesDeathReleasesWhatItHeldAndFailsWhatItHad) {
  Pipe pipe, other;
  const pid_t reader = place(kHome, kFar, {{0, pipe.reader.get()}}, [] {
    char c;
    return read(0, &c, 1) == -1 ? kOk : 1;
  });
  const pid_t writer = place(kFarther, kHome, {{1, other.writer.get()}}, [] {
    signal(SIGPIPE, SIG_IGN);
    while (write(1, "x", 1) == 1) usleep(20000);
    return errno == EIO ? kOk : 1;
  });
  ASSERT_TRUE(reader > 0 && writer > 0) << last_error_.message();
  settle();
  EXPECT_EQ(node(kHome).descriptors.descriptions_kept(), 1u);
  fabric_->kill(kFarther, LoopbackFabric::Death::kNoticed);
  EXPECT_EQ(wait_for(writer), 0);
  fabric_->kill(kFar, LoopbackFabric::Death::kNoticed);
  settle();
  EXPECT_EQ(node(kHome).descriptors.descriptions_kept(), 0u);
  umount2(mount_point(kFar).c_str(), MNT_FORCE);  // as the end of its krgd does
  EXPECT_EQ(wait_for(reader), 0);
  nodes_[1].reset();
  nodes_[2].reset();
  nodes_.resize(1);
}

// Messages of different pairs overtake each other: the pipeline and the counts must not care.
TEST_F(DescriptorsTest, ShuffledMessagesLoseNothing) {
  for (uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE(seed);
    make_cluster({.nodes = 3, .seed = seed});
    Pipe a, b;
    const pid_t first = place(kHome, kFar, {{1, a.writer.get()}}, [] {
      for (int i = 0; i < 500; ++i)
        if (!write_all(1, std::to_string(i) + "\n")) return 1;
      return kOk;
    });
    const pid_t second = place(kHome, kFarther, {{0, a.reader.get()}, {1, b.writer.get()}},
                               [] { return run_program({"cat"}); });
    ASSERT_TRUE(first > 0 && second > 0) << last_error_.message();
    a = {};
    b.writer.reset();
    std::string expected;
    for (int i = 0; i < 500; ++i) expected += std::to_string(i) + "\n";
    EXPECT_EQ(drain(std::move(b.reader)), expected);
    EXPECT_EQ(wait_for(first), 0);
    EXPECT_EQ(wait_for(second), 0);
    settle();
    expect_nothing_held();
  }
}

TEST_F(DescriptorsTest, ExportingThreeDescriptorsIsFast) {
  Pipe in, out;
  UniqueFd log = file("log", "", O_WRONLY);
  const pid_t held =
      hold({{0, in.reader.get()}, {1, out.writer.get()}, {2, log.get()}}, [] { return kOk; });
  auto best = std::chrono::nanoseconds::max();
  for (int i = 0; i < 50; ++i) {
    const auto start = std::chrono::steady_clock::now();
    auto exported = export_from(kHome, held);
    best = std::min<std::chrono::nanoseconds>(best, std::chrono::steady_clock::now() - start);
    ASSERT_TRUE(exported);
    node(kHome).descriptors.cancel_export(*exported);
  }
  end(held);
  RecordProperty("export_us", static_cast<int>(best.count() / 1000));
  EXPECT_LT(best, 1ms);
}

}  // namespace
}  // namespace krg::testing
