// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/control_server.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <thread>

#include "krg/runtime/control_client.h"

using namespace krg;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

// A server in the test's thread; the tool's calls run in a second one while the loop turns.
class ControlServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = "/tmp/krg-control-test." + std::to_string(getpid());
    ASSERT_TRUE(server_.listen(path_, 0600));
  }
  void TearDown() override { unlink(path_.c_str()); }

  template <class F>
  void while_serving(F tool) {
    std::jthread thread([&] {
      tool();
      loop_.stop();
    });
    loop_.run();
  }

  EventLoop loop_ = std::move(*EventLoop::create());
  ControlServer server_{loop_, getuid()};
  std::string path_;
};

TEST_F(ControlServerTest, AnswersNowLaterAndWithErrors) {
  server_.add_command("echo", [](ControlServer::Request request, ControlServer::Reply reply) {
    reply.ok({{"said", request.arguments["say"]}});
  });
  std::optional<ControlServer::Reply> kept;
  EventLoop::Timer later;
  server_.add_command("later", [&](ControlServer::Request, ControlServer::Reply reply) {
    kept.emplace(std::move(reply));
    later = loop_.after(10ms, [&] { kept->fail(errno_error("not today", EBUSY)); });
  });
  server_.add_command("forget", [](ControlServer::Request, ControlServer::Reply) {});
  while_serving([&] {
    auto client = ControlClient::connect(path_);
    ASSERT_TRUE(client);
    auto echoed = client->call("echo", {{"say", "hi"}});
    ASSERT_TRUE(echoed);
    EXPECT_EQ(echoed->result["said"], "hi");
    auto refused = client->call("later");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().errno_or(0), EBUSY);
    EXPECT_EQ(refused.error().context, "not today");
    EXPECT_EQ(client->call("forget").error().errno_or(0), ECANCELED);
    EXPECT_EQ(client->call("no such thing").error().errno_or(0), ENOSYS);
  });
}

TEST_F(ControlServerTest, CarriesDescriptorsBothWays) {
  server_.add_command("swap", [](ControlServer::Request request, ControlServer::Reply reply) {
    int fds[] = {request.fds.at(0).get(), request.fds.at(0).get()};
    reply.ok(json::object(), fds);
  });
  while_serving([&] {
    auto client = ControlClient::connect(path_);
    int null = 0;
    auto answer = client->call("swap", json::object(), {&null, 1});
    ASSERT_TRUE(answer);
    ASSERT_EQ(answer->fds.size(), 2u);
    struct stat mine {
    }, theirs{};
    ASSERT_EQ(fstat(0, &mine), 0);
    ASSERT_EQ(fstat(answer->fds[1].get(), &theirs), 0);
    EXPECT_EQ(mine.st_ino, theirs.st_ino);
  });
}

TEST_F(ControlServerTest, TellsOfDisconnectsAndSendsNotices) {
  int ended = 0;
  server_.on_disconnect([&](ControlServer::ConnectionId) {
    ++ended;
    loop_.stop();
  });
  server_.add_command("wake", [&](ControlServer::Request request, ControlServer::Reply reply) {
    server_.notify(request.connection, "woken", {{"by", "test"}});
    reply.ok();
  });
  std::string by;
  std::jthread tool([&] {
    auto client = ControlClient::connect(path_);
    client->on_notice([&](const std::string&, const json& packet) { by = packet["by"]; });
    EXPECT_TRUE(client->call("wake"));
  });
  loop_.run();
  tool.join();
  EXPECT_EQ(ended, 1);
  EXPECT_EQ(by, "test");
}

TEST_F(ControlServerTest, RefusesOtherUsersAndGarbage) {
  if (getuid() != 0) GTEST_SKIP() << "lacks root: needed to take another user's identity";
  ControlServer guarded(loop_, 12345);
  std::string path = path_ + ".guarded";
  ASSERT_TRUE(guarded.listen(path, 0666));
  while_serving([&] {
    pid_t child = fork();
    if (child == 0) {
      if (setresuid(54321, 54321, 54321) != 0) _exit(2);
      auto client = ControlClient::connect(path);
      _exit(client && client->call("anything").error().errno_or(0) != ENOSYS ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    auto garbage = connect_seqpacket(path);
    ASSERT_TRUE(garbage);
    ASSERT_TRUE(send_packet(garbage->get(), "[1,2"));
    EXPECT_TRUE(receive_packet(garbage->get())->end_of_stream);
  });
  unlink(path.c_str());
}

}  // namespace
