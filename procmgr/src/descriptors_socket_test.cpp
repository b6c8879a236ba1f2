// SPDX-License-Identifier: GPL-2.0-or-later
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "passed_fds.h"
#include "testing/descriptors_fixture.h"

namespace krg::testing {
namespace {

class SocketsTest : public DescriptorsTest {
 protected:
  // A socket whose packets of these sizes a body elsewhere, which has ended, has sent back.
  UniqueFd keep_bounds(int type, const std::vector<ssize_t>& sizes);
};

std::pair<UniqueFd, UniqueFd> unix_pair(int type) {
  int ends[2];
  check(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0, "a socket pair can be made");
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

std::pair<UniqueFd, UniqueFd> tcp_pair() {
  UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* any = reinterpret_cast<sockaddr*>(&address);
  UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  check(bind(listener.get(), any, size) == 0 && listen(listener.get(), 1) == 0 &&
            getsockname(listener.get(), any, &size) == 0 && connect(client.get(), any, size) == 0,
        "a TCP connection can be made");
  return {std::move(client), UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC))};
}

int echo(int fd) {
  std::string all = read_all(fd);  // until the peer's shutdown
  return write_all(fd, all) && shutdown(fd, SHUT_WR) == 0 ? kOk : 1;
}

int speak_and_listen(int fd) {
  std::string sent(4u << 20, 0);
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 31 >> 7);
  if (!write_all(fd, sent) || shutdown(fd, SHUT_WR) != 0) return 1;
  return read_all(fd) == sent ? kOk : 2;
}

// 4 MB to the body, the end, and all of it back.
TEST_F(SocketsTest, StreamsGoBothWaysWithHalfClose) {
  for (bool tcp : {false, true}) {
    SCOPED_TRACE(tcp);
    auto [ours, theirs] = tcp ? tcp_pair() : unix_pair(SOCK_STREAM);
    const pid_t body =
        place(kHome, kFar, {{0, ours.get()}, {1, ours.get()}}, [] { return echo(0); });
    ASSERT_GT(body, 0) << last_error_.message();
    const pid_t peer = start({{3, theirs.get()}}, [] { return speak_and_listen(3); });
    ours.reset();
    theirs.reset();
    EXPECT_EQ(wait_for(peer), 0);
    EXPECT_EQ(wait_for(body), 0);
  }
}

UniqueFd SocketsTest::keep_bounds(int type, const std::vector<ssize_t>& sizes) {
  auto [ours, theirs] = unix_pair(type);
  const pid_t body = place(kHome, kFar, {{5, ours.get()}}, [&sizes] {
    char packet[5000];
    for (ssize_t expected : sizes) {
      const ssize_t got = recv(5, packet, sizeof packet, 0);
      if (got != expected || send(5, packet, static_cast<size_t>(got), 0) != got) return 1;
    }
    return kOk;
  });
  EXPECT_GT(body, 0) << last_error_.message();
  ours.reset();
  const std::string bytes(5000, 'p');
  for (ssize_t size : sizes)
    EXPECT_EQ(send(theirs.get(), bytes.data(), static_cast<size_t>(size), 0), size);
  EXPECT_EQ(wait_for(body), 0);
  settle();
  char packet[6000];
  for (ssize_t expected : sizes)
    EXPECT_EQ(recv(theirs.get(), packet, sizeof packet, MSG_DONTWAIT), expected);
  return std::move(theirs);
}

// Datagrams (unix(7)) are in order, too, may be empty, and have no end.
TEST_F(SocketsTest, DatagramsKeepTheirBounds) {
  const UniqueFd theirs = keep_bounds(SOCK_DGRAM, {100, 0, 1, 5000});
  char packet;
  EXPECT_EQ(recv(theirs.get(), &packet, 1, MSG_DONTWAIT), -1);
  ASSERT_TRUE(pump_until(
      [&] { return send(theirs.get(), "x", 1, MSG_DONTWAIT) < 0 && errno == ECONNREFUSED; }));
}

TEST_F(SocketsTest, PacketsKeepTheirBounds) {
  const UniqueFd theirs = keep_bounds(SOCK_SEQPACKET, {100, 1, 5000});
  char packet;
  EXPECT_EQ(recv(theirs.get(), &packet, 1, MSG_DONTWAIT), 0);  // closed
}

// As programs have the system's log.
TEST_F(SocketsTest, DatagramsGoToANamedSocketUntilItIsClosed) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  path("log").copy(address.sun_path, sizeof address.sun_path - 1);
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  UniqueFd log(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  UniqueFd client(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(log.get(), name, sizeof address), 0);
  ASSERT_EQ(connect(client.get(), name, sizeof address), 0);
  const pid_t body = place(kHome, kFar, {{5, client.get()}}, [] {
    for (char number = 0; number < 100; ++number)
      if (send(5, &number, 1, 0) != 1) return 1;
    while (send(5, "", 0, 0) == 0) usleep(1000);
    return errno == ECONNREFUSED ? kOk : 2;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  client.reset();
  for (char number = 0, got; number < 100; ++number) {
    ASSERT_TRUE(pump_until([&] { return recv(log.get(), &got, 1, MSG_DONTWAIT) == 1; }));
    ASSERT_EQ(got, number);
  }
  log.reset();
  EXPECT_EQ(wait_for(body), 0);
}

TEST_F(SocketsTest, WhatABodyDoesNotReadStaysForOthers) {
  auto [ours, theirs] = unix_pair(SOCK_STREAM);
  ASSERT_TRUE(write_all(theirs.get(), "for the shell\n"));
  const pid_t body = place(kHome, kFar, {{0, ours.get()}, {1, ours.get()}}, [] {
    usleep(50000);
    return write_all(1, "out") ? kOk : 1;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  EXPECT_EQ(wait_for(body), 0);
  char text[64];  // written before the end is reported
  EXPECT_EQ(recv(theirs.get(), text, sizeof text, MSG_DONTWAIT), 3);
  settle();
  EXPECT_EQ(recv(ours.get(), text, sizeof text, MSG_DONTWAIT), 14);
}

// Which has read a part of what has come.
TEST_F(SocketsTest, WhatABodyReadsIsNotThereForOthers) {
  auto [ours, theirs] = unix_pair(SOCK_STREAM);
  ASSERT_TRUE(write_all(theirs.get(), "a line\nanother line\nfor the shell\n"));
  for (int each = 0; each < 2; ++each) {
    const pid_t body = place(kHome, kFar, {{0, ours.get()}}, [] {
      for (char got = 0; got != '\n';)
        if (read(0, &got, 1) != 1) return 1;
      return kOk;
    });
    ASSERT_GT(body, 0) << last_error_.message();
    EXPECT_EQ(wait_for(body), 0);
  }
  settle();
  char text[64];
  const ssize_t got = recv(ours.get(), text, sizeof text, MSG_DONTWAIT);
  EXPECT_EQ(std::string(text, static_cast<size_t>(std::max<ssize_t>(got, 0))), "for the shell\n");
}

// Which goes on, without the socket.
TEST_F(SocketsTest, WhatABodyHasReadBeforeItClosesIsNotThereForOthers) {
  auto [ours, theirs] = unix_pair(SOCK_STREAM);
  Pipe last;
  ASSERT_TRUE(write_all(theirs.get(), "read, not read"));
  const pid_t body = place(kHome, kFar, {{0, ours.get()}, {1, last.reader.get()}}, [] {
    char text[4];
    if (read(0, text, sizeof text) != sizeof text) return 1;
    close(0);
    return read(1, text, 1) == 0 ? kOk : 2;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  char text[64];
  EXPECT_TRUE(pump_until(
      [&] { return recv(ours.get(), text, sizeof text, MSG_PEEK | MSG_DONTWAIT) == 10; }));
  EXPECT_EQ(std::string(text, 10), ", not read");
  last.writer.reset();
  EXPECT_EQ(wait_for(body), 0);
}

TEST_F(SocketsTest, AClosedPeerBreaksTheBodysSocket) {
  auto [ours, theirs] = unix_pair(SOCK_STREAM);
  const pid_t body = place(kHome, kFar, {{1, ours.get()}}, [] { return run_program({"yes"}); });
  ASSERT_GT(body, 0) << last_error_.message();
  ours.reset();
  char text[4096];
  ASSERT_TRUE(pump_until([&] { return recv(theirs.get(), text, sizeof text, MSG_DONTWAIT) > 0; }));
  theirs.reset();
  // As natively: a writer that waits for room while unread bytes are thrown away gets ECONNRESET
  // (yes then says so and exits with 1), any other SIGPIPE.
  const int status = wait_for(body);
  EXPECT_TRUE((WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE) ||
              (WIFEXITED(status) && WEXITSTATUS(status) == 1))
      << status;
}

// A descriptor passed with `data`.
bool pass(int socket, std::string_view data, int fd) {
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  return send_piece(socket, data, {&copy, 1}) == static_cast<ssize_t>(data.size());
}
// What comes next of `size` bytes at the most, and the descriptor that came with it, as a process
// reads it.
std::pair<std::string, UniqueFd> take(int socket, size_t size) {
  std::string data(size, 0);
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
  iovec part{data.data(), size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  data.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  int fd = -1;
  if (const cmsghdr* passed = CMSG_FIRSTHDR(&message)) memcpy(&fd, CMSG_DATA(passed), sizeof fd);
  return {data, UniqueFd(fd)};
}

// They stay with the bytes that they were sent with, though all of it waits in one queue.
TEST_F(SocketsTest, DescriptorsPassBothWays) {
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    SCOPED_TRACE(type);
    auto [ours, theirs] = unix_pair(type);
    Pipe out;
    ASSERT_TRUE(write_all(theirs.get(), "before"));
    ASSERT_TRUE(pass(theirs.get(), "with one", out.writer.get()));
    ASSERT_TRUE(write_all(theirs.get(), "behind"));
    const pid_t body = place(kHome, kFar, {{5, ours.get()}}, [] {
      auto [before, none] = take(5, 6);
      if (before != "before" || none) return 1;
      auto [first, passed] = take(5, 4);
      auto [rest, no_more] = take(5, 4);
      if (first != "with" || !passed || no_more) return 2;
      if (!write_all(passed.get(), "hello")) return 3;
      int ends[2];
      if (pipe(ends) != 0 || !write_all(5, "back ") || !pass(5, "it comes", ends[0])) return 4;
      close(ends[0]);
      return write_all(ends[1], "good bye") ? kOk : 5;
    });
    ASSERT_GT(body, 0) << last_error_.message();
    ours.reset();
    out.writer.reset();
    EXPECT_EQ(wait_for(body), 0);
    settle();
    char text[64];
    EXPECT_EQ(read(out.reader.get(), text, sizeof text), 5);
    auto [before, none] = take(theirs.get(), 5);
    EXPECT_EQ(before, "back ");
    EXPECT_FALSE(none);
    auto [with, passed] = take(theirs.get(), 64);
    EXPECT_EQ(with, "it comes");
    ASSERT_TRUE(passed);
  }
}

// A process that moves from node to node with a socket, whose end is `end` here meanwhile.
class MovingSocketTest : public SocketsTest {
 protected:
  void give(UniqueFd end) {
    end_ = std::move(end);
    at_ = kHome;
  }
  // `how`: done, or given up by the target before or after it has the descriptors.
  enum class How { kDone, kRefused, kFailed };
  void move_to(NodeId to, How how = How::kDone) {
    const pid_t held = hold({{5, end_.get()}}, [] { return kOk; });
    auto exported = export_from(at_, held, WhichFds::kAll);
    ASSERT_TRUE(exported) << exported.error().message();
    if (how == How::kRefused) {
      node(at_).descriptors.cancel_export(*exported);
    } else {
      auto imported = import_at(to, held, *exported);
      ASSERT_TRUE(imported) << imported.error().message();
      settle();
      if (how == How::kDone) {
        for (ImportedFd& fd : *imported)
          if (fd.number == 5) end_ = std::move(fd.fd);
        at_ = to;
      } else {
        imported->clear();
        node(at_).descriptors.resume_sockets(*exported);
      }
    }
    end(held);
    settle();
  }
  size_t relays() {
    size_t all = 0;
    for (uint16_t id = 0; id < nodes_.size(); ++id)
      all += node(NodeId{id}).descriptors.streams_open();
    return all;
  }
  size_t kept() {
    size_t all = 0;
    for (uint16_t id = 0; id < nodes_.size(); ++id)
      all += node(NodeId{id}).descriptors.descriptions_kept();
    return all;
  }
  // Reads `bytes` that must be those from `at` on of what counts up.
  void expect_counted(int fd, size_t& at, size_t bytes) {
    std::string text(bytes, 0);
    size_t got = 0;
    ASSERT_TRUE(pump_until([&] {
      const ssize_t more = recv(fd, text.data() + got, bytes - got, MSG_DONTWAIT);
      if (more > 0) got += static_cast<size_t>(more);
      return got == bytes;
    })) << got
        << " of " << bytes;
    for (const char byte : text) ASSERT_EQ(byte, static_cast<char>(at++ * 7));
  }
  void send_counted(int fd, size_t& at, size_t bytes) {
    std::string text(bytes, 0);
    for (char& byte : text) byte = static_cast<char>(at++ * 7);
    size_t sent = 0;
    ASSERT_TRUE(pump_until([&] {
      const ssize_t more = send(fd, text.data() + sent, bytes - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (more > 0) sent += static_cast<size_t>(more);
      return sent == bytes;
    })) << sent
        << " of " << bytes;
  }

  UniqueFd end_;
  NodeId at_;
};

// However often it moves: one relay, and what is under way in both directions stays in order.
TEST_F(MovingSocketTest, HasOneRelayHoweverOftenItMoves) {
  for (bool tcp : {false, true}) {
    SCOPED_TRACE(tcp);
    auto [ours, theirs] = tcp ? tcp_pair() : unix_pair(SOCK_STREAM);
    give(std::move(ours));
    size_t sent[2] = {}, got[2] = {};
    const NodeId nodes[] = {kFar, kFarther, kFar, kFarther, kHome, kFarther, kFar, kHome};
    for (int round = 0; round < 16; ++round) {
      SCOPED_TRACE(round);
      const size_t bytes = round % 3 == 0 ? 50000 : round % 3 == 1 ? 0 : 700;
      send_counted(theirs.get(), sent[0], bytes + 10);
      if (round % 2) settle();
      if (round % 4 < 2) expect_counted(end_.get(), got[0], sent[0] - got[0] - bytes / 2);
      send_counted(end_.get(), sent[1], bytes / 2 + 10);
      if (round % 5 == 0) move_to(kFarther, How::kRefused);
      if (round % 7 == 0) move_to(kFarther, How::kFailed);
      move_to(nodes[static_cast<size_t>(round) % std::size(nodes)]);
      // Of one that was given up a moment later.
      EXPECT_TRUE(pump_until([&] { return relays() <= 1 && kept() <= 1; }));
      if (round % 4 == 3) expect_counted(theirs.get(), got[1], sent[1] - got[1]);
    }
    expect_counted(theirs.get(), got[1], sent[1] - got[1]);
    expect_counted(end_.get(), got[0], sent[0] - got[0]);
    move_to(kFar);
    send_counted(end_.get(), sent[1], 100);
    move_to(kFarther);
    end_.reset();
    expect_counted(theirs.get(), got[1], 100);
    settle();
    char byte;
    EXPECT_EQ(recv(theirs.get(), &byte, 1, MSG_DONTWAIT), 0);
    EXPECT_EQ(relays() + kept(), 0u);
  }
}

TEST_F(MovingSocketTest, KeepsItsHalfClosedEnds) {
  auto [ours, theirs] = unix_pair(SOCK_STREAM);
  give(std::move(ours));
  move_to(kFar);
  size_t sent = 0, got = 0, back = 0, answered = 0;
  send_counted(theirs.get(), sent, 3000);
  ASSERT_EQ(shutdown(theirs.get(), SHUT_WR), 0);
  settle();
  move_to(kFarther);
  expect_counted(end_.get(), got, 3000);
  char byte;
  EXPECT_EQ(recv(end_.get(), &byte, 1, MSG_DONTWAIT), 0);
  send_counted(end_.get(), back, 2000);
  move_to(kFar);
  EXPECT_EQ(recv(end_.get(), &byte, 1, MSG_DONTWAIT), 0);
  expect_counted(theirs.get(), answered, 2000);
  end_.reset();
  settle();
}

// Packets, and descriptors that are on their way with some of them, or with some bytes.
class MovingPiecesTest : public MovingSocketTest, public ::testing::WithParamInterface<int> {};

TEST_P(MovingPiecesTest, HaveOneRelayHoweverOftenTheyMove) {
  auto [ours, theirs] = unix_pair(GetParam());
  give(std::move(ours));
  unsigned sent[2] = {}, got[2] = {};
  // A number, and each third time a file that has it, too.
  auto send_next = [&](int fd, unsigned& number) {
    const std::string text = fmt::format("{:5}", number);
    if (number++ % 3 != 0) {
      ASSERT_TRUE(write_all(fd, text));
      return;
    }
    ASSERT_TRUE(pass(fd, text, file(text, text, O_RDONLY).get()));
  };
  auto expect_next = [&](int fd, unsigned& number) {
    SCOPED_TRACE(number);
    const std::string text = fmt::format("{:5}", number);
    char byte;
    ASSERT_TRUE(pump_until([&] { return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1; }));
    auto [data, passed] = take(fd, text.size());
    ASSERT_EQ(data, text);
    ASSERT_EQ(static_cast<bool>(passed), number % 3 == 0);
    ++number;
    if (passed) {
      EXPECT_EQ(read_all(passed.get()), text);
    }
  };
  const NodeId nodes[] = {kFar, kFarther, kFar, kFarther, kHome, kFarther, kFar, kHome};
  for (int round = 0; round < 24; ++round) {
    SCOPED_TRACE(round);
    for (int i = round % 3; i >= 0; --i) send_next(theirs.get(), sent[0]);
    if (round % 2) settle();
    if (round % 4 < 2) expect_next(end_.get(), got[0]);
    for (int i = round % 4; i > 0; --i) send_next(end_.get(), sent[1]);
    if (round % 5 == 0) move_to(kFarther, How::kRefused);
    if (round % 7 == 0) move_to(kFarther, How::kFailed);
    move_to(nodes[static_cast<size_t>(round) % std::size(nodes)]);
    if (round % 4 == 3) {
      while (got[1] < sent[1] && !HasFatalFailure()) expect_next(theirs.get(), got[1]);
      while (got[0] < sent[0] && !HasFatalFailure()) expect_next(end_.get(), got[0]);
      EXPECT_TRUE(pump_until([&] { return relays() <= 1 && kept() <= 1; })) << relays() << kept();
    }
    if (HasFailure()) return;
  }
  end_.reset();
  ASSERT_TRUE(pump_until([&] { return relays() + kept() == 0; }));
}
INSTANTIATE_TEST_SUITE_P(OfAllTypes, MovingPiecesTest,
                         ::testing::Values(SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM));

// It waits as long as its process said.
TEST_F(MovingSocketTest, KeepsItsTimeLimit) {
  auto [ours, theirs] = unix_pair(SOCK_STREAM);
  const timeval limit{.tv_sec = 7, .tv_usec = 0};
  ASSERT_EQ(setsockopt(ours.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  give(std::move(ours));
  for (const NodeId to : {kFar, kFarther}) {
    move_to(to);
    timeval its{};
    socklen_t size = sizeof its;
    ASSERT_EQ(getsockopt(end_.get(), SOL_SOCKET, SO_RCVTIMEO, &its, &size), 0);
    EXPECT_EQ(its.tv_sec, limit.tv_sec);
  }
  end_.reset();
  settle();
}

// Neither bound nor connected yet: it is made anew.
TEST_F(MovingSocketTest, IsNothingYet) {
  struct Case {
    int domain, type;
  };
  for (const auto& [domain, type] : {Case{AF_INET, SOCK_STREAM},
                                     {AF_INET6, SOCK_DGRAM},
                                     {AF_UNIX, SOCK_DGRAM},
                                     {AF_UNIX, SOCK_SEQPACKET}}) {
    SCOPED_TRACE(fmt::format("{} {}", domain, type));
    UniqueFd made(socket(domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    setsockopt(made.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    give(std::move(made));
    move_to(kFar);
    EXPECT_EQ(relays() + kept(), 0u);
    for (const auto& [name, expected] :
         {std::pair(SO_DOMAIN, domain), std::pair(SO_TYPE, type), std::pair(SO_KEEPALIVE, 1)}) {
      int value = 0;
      socklen_t size = sizeof value;
      ASSERT_EQ(getsockopt(end_.get(), SOL_SOCKET, name, &value, &size), 0);
      EXPECT_EQ(value, expected);
    }
    EXPECT_TRUE(fcntl(end_.get(), F_GETFL) & O_NONBLOCK);
    end_.reset();
  }
}

TEST_F(SocketsTest, WhatIsNotConnectedStays) {
  UniqueFd alone(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  UniqueFd datagrams(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  for (const int fd : {alone.get(), datagrams.get()})
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  const std::pair<int, const char*> cases[] = {{alone.get(), "a socket, not connected"},
                                               {datagrams.get(), "a socket, neither unix nor"}};
  for (auto& [fd, why] : cases) {
    EXPECT_EQ(place(kHome, kFar, {{6, fd}}, [] { return kOk; }), -1);
    EXPECT_EQ(last_error_.errno_or(0), ENOTSUP);
    EXPECT_NE(last_error_.context.find(why), std::string::npos) << last_error_.context;
  }
}

}  // namespace
}  // namespace krg::testing
