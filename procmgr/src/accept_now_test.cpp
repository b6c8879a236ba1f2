// SPDX-License-Identifier: GPL-2.0-or-later
#include "accept_now.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "krg/runtime/check.h"

namespace krg {
namespace {

class AcceptNowTest : public testing::Test {
 protected:
  AcceptNowTest() {
    const sockaddr_un any{AF_UNIX, {}};
    check(
        bind(listener.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any.sun_family) == 0 &&
            listen(listener.get(), 1000) == 0,
        "a socket listens");
  }
  UniqueFd connect() const {
    sockaddr_un address{};
    socklen_t bytes = sizeof address;
    getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &bytes);
    UniqueFd made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(made.get(), reinterpret_cast<const sockaddr*>(&address), bytes), 0);
    return made;
  }

  UniqueFd listener{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
};

TEST_F(AcceptNowTest, TakesWhatWaitsAndNeverWaits) {
  for (const int flags : {0, O_NONBLOCK}) {
    fcntl(listener.get(), F_SETFL, flags);
    EXPECT_FALSE(accept_now(listener.get()));
    EXPECT_EQ(errno, EAGAIN);
    const UniqueFd client = connect();
    EXPECT_TRUE(accept_now(listener.get()));
    EXPECT_FALSE(accept_now(listener.get()));
    EXPECT_EQ(fcntl(listener.get(), F_GETFL) & O_NONBLOCK, flags);
  }
}

// Each of many connections is had by one of two, one of whom waits for them by a blocking
// accept(2).
TEST_F(AcceptNowTest, OthersMayBeFaster) {
  constexpr int kConnections = 300;
  std::atomic<int> others = 0;
  std::thread other([&] {
    while (UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC))) ++others;
  });
  int ours = 0;
  std::vector<UniqueFd> clients;
  for (int i = 0; i < kConnections; ++i) {
    clients.push_back(connect());
    ours += accept_now(listener.get()) ? 1 : 0;
  }
  while (ours + others < kConnections) std::this_thread::yield();
  EXPECT_EQ(ours + others, kConnections);
  shutdown(listener.get(), SHUT_RDWR);
  other.join();
}

TEST_F(AcceptNowTest, TellsErrors) {
  shutdown(listener.get(), SHUT_RDWR);
  EXPECT_FALSE(accept_now(listener.get()));
  EXPECT_EQ(errno, EINVAL);
}

}  // namespace
}  // namespace krg
