// KrgfsFixture: a krgfs mounted in a mount namespace of the test's own, and client code run in a
// thread while the loop serves it. For unit tests; needs root and /dev/fuse, else the test skips.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "krg/procmgr/session_fs.h"
#include "krg/runtime/event_loop.h"

namespace krg {

class KrgfsFixture : public testing::Test {
 protected:
  static constexpr const char* kMountPoint = "/mnt";

  // A mount namespace of our own, once per test program; empty when it could be had.
  static std::string enter_private_namespace() {
    static const std::string lack = [] {
      if (unshare(CLONE_NEWNS) != 0) return std::string("lacks root: no mount namespace");
      if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        return std::string("cannot make mounts private");
      return std::string(access("/dev/fuse", R_OK | W_OK) == 0 ? ""
                                                               : "lacks fuse_device: no /dev/fuse");
    }();
    return lack;
  }

  void SetUp() override {
    if (std::string lack = enter_private_namespace(); !lack.empty()) GTEST_SKIP() << lack;
    auto loop = EventLoop::create();
    ASSERT_TRUE(loop);
    loop_.emplace(std::move(*loop));
    fs_.emplace(*loop_);
  }
  // Mounts and serves; the trees must have been added.
  void serve() {
    auto made = mount_krgfs(-1, kMountPoint);
    ASSERT_TRUE(made) << made.error().message();
    ASSERT_TRUE(fs_->serve(std::move(*made)));
  }
  void TearDown() override {
    if (fs_) umount2(kMountPoint, MNT_DETACH);
    fs_.reset();
    loop_.reset();
  }

  // Runs `client` in a thread of its own while this one serves; at most `limit`.
  void as_client(const std::function<void()>& client,
                 std::chrono::seconds limit = std::chrono::seconds(20)) {
    std::atomic<bool> done = false;
    std::thread thread([&] {
      client();
      done = true;
      loop_->post([] {});
    });
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (!done && std::chrono::steady_clock::now() < deadline)
      loop_->run_once(std::chrono::milliseconds(200));
    if (!done) {  // aborting the connection frees whoever waits in it
      ADD_FAILURE() << "the client hangs";
      umount2(kMountPoint, MNT_FORCE);
    }
    thread.join();
    while (loop_->run_once(std::chrono::microseconds(0)) > 0) continue;
  }

  std::optional<EventLoop> loop_;
  std::optional<SessionFs> fs_;
};

}  // namespace krg
