// SPDX-License-Identifier: GPL-2.0-or-later
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <utility>

#include "testing/descriptors_fixture.h"

namespace krg::testing {
namespace {

using SocketsTest = DescriptorsTest;

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

TEST_F(SocketsTest, PacketsKeepTheirBounds) {
  auto [ours, theirs] = unix_pair(SOCK_SEQPACKET);
  const pid_t body = place(kHome, kFar, {{5, ours.get()}}, [] {
    char packet[5000];
    for (ssize_t expected : {100, 1, 5000}) {
      const ssize_t got = recv(5, packet, sizeof packet, 0);
      if (got != expected || send(5, packet, static_cast<size_t>(got), 0) != got) return 1;
    }
    return kOk;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  ours.reset();
  const std::string bytes(5000, 'p');
  for (size_t size : {100, 1, 5000}) ASSERT_GT(send(theirs.get(), bytes.data(), size, 0), 0);
  EXPECT_EQ(wait_for(body), 0);
  settle();
  char packet[6000];
  for (ssize_t expected : {100, 1, 5000})
    EXPECT_EQ(recv(theirs.get(), packet, sizeof packet, MSG_DONTWAIT), expected);
  EXPECT_EQ(recv(theirs.get(), packet, sizeof packet, MSG_DONTWAIT), 0);  // closed
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

TEST_F(SocketsTest, WhatIsNotConnectedStays) {
  UniqueFd listening(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr address{AF_UNIX, {}};
  ASSERT_EQ(bind(listening.get(), &address, sizeof(sa_family_t)), 0);
  ASSERT_EQ(listen(listening.get(), 1), 0);
  UniqueFd alone(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  UniqueFd datagrams(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const std::pair<int, const char*> cases[] = {{listening.get(), "a socket, listening"},
                                               {alone.get(), "a socket, not connected"},
                                               {datagrams.get(), "a socket, neither"}};
  for (auto& [fd, why] : cases) {
    EXPECT_EQ(place(kHome, kFar, {{6, fd}}, [] { return kOk; }), -1);
    EXPECT_EQ(last_error_.errno_or(0), ENOTSUP);
    EXPECT_NE(last_error_.context.find(why), std::string::npos) << last_error_.context;
  }
}

}  // namespace
}  // namespace krg::testing
