// ImageTest: real programs (image_tracee.cpp) are frozen, their images taken, they are killed, and
// made again by the images with the same pids. Contents of pages are copied by the test.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "image/content_ranges.h"
#include "image/image_capture.h"
#include "image/image_installer.h"
#include "process_status.h"
#include "testing/loopback_nodes.h"

namespace krg::testing {

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
      auto read = process.read(range.start, {piece.data(), piece.size()});
      EXPECT_TRUE(read) << read.error().message();
      contents.pieces.emplace_back(range.start, std::move(piece));
    }
    return contents;
  }
  Result<std::unique_ptr<InstalledProcess>> install(ProcessImage image,
                                                    const UserfaultSource* late_pages = nullptr) {
    ImageInstaller::Request request;
    request.late_pages = late_pages;
    request.image = std::move(image);
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
  // From the running process to a new one that is as it. `meanwhile`: while it stands, before its
  // image is taken; `change`: what its image says here.
  void move(const std::function<void()>& meanwhile = {},
            const std::function<void(ProcessImage&)>& change = {}) {
    auto process = freeze();
    ASSERT_TRUE(process);
    if (meanwhile) meanwhile();
    auto image = capture_image(*process, -1);
    ASSERT_TRUE(image) << image.error().message();
    const Contents contents = copy(*process);
    kill_original();
    process.reset();
    auto travelled = ProcessImage::parse(image->serialize());
    ASSERT_TRUE(travelled);
    if (change) change(*travelled);
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

}  // namespace krg::testing
