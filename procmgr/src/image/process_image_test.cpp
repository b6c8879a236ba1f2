// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/process_image.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstring>

namespace krg {
namespace {

ProcessImage example() {
  ProcessImage image;
  image.spec.path = "/bin/true";
  image.spec.cwd = "/";
  image.spec.argv.add("true");
  image.stop_signal = SIGTSTP;
  image.layout.brk = 0x1234;
  image.auxv = std::string(48, 'a');
  image.files = {{"/bin/true", 100, 7}, {"/lib/c", 200, 8}};
  image.mappings.push_back({.start = {0x1000},
                            .bytes = 0x2000,
                            .kind = ImageMapping::Kind::kFile,
                            .protection = 5,
                            .advice = ImageMapping::kDontFork,
                            .file = 1,
                            .offset = 0x3000,
                            .name = {}});
  image.mappings.push_back(
      {.start = {0x9000}, .bytes = 0x1000, .kind = ImageMapping::Kind::kKernel, .name = "[vdso]"});
  image.signal_actions.push_back({SIGUSR1, 0x10, 0x20, 0x30, 0x40});
  ImageSignal signal;
  const int number = SIGHUP;
  memcpy(signal.info.data(), &number, sizeof number);
  image.pending.push_back(signal);
  image.timers.push_back({.id = 3, .signal = SIGALRM, .left_ns = 5});
  for (pid_t tid : {10, 11}) {
    ImageThread& thread = image.threads.emplace_back();
    thread.tid = tid;
    thread.registers.rip = 0x400000;
    thread.extended_state = std::string(832, 'x');
    thread.name = "worker";
    thread.processors = {1, 3};
    thread.speculation = {0, 5};
    thread.pending.push_back(signal);
    thread.sleep_left_ns = 77;
  }
  return image;
}

TEST(ProcessImage, TravelsAsBytes) {
  const ProcessImage image = example();
  auto parsed = ProcessImage::parse(image.serialize());
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(parsed->serialize(), image.serialize());
  EXPECT_EQ(parsed->spec.path, "/bin/true");
  EXPECT_EQ(parsed->stop_signal, SIGTSTP);
  EXPECT_EQ(parsed->files, image.files);
  EXPECT_EQ(parsed->mappings, image.mappings);
  EXPECT_EQ(parsed->signal_actions, image.signal_actions);
  EXPECT_EQ(parsed->timers, image.timers);
  EXPECT_EQ(parsed->pending.at(0).number(), SIGHUP);
  ASSERT_EQ(parsed->threads.size(), 2u);
  EXPECT_EQ(parsed->threads[1].tid, 11);
  EXPECT_EQ(parsed->threads[1].registers.rip, 0x400000u);
  EXPECT_EQ(parsed->threads[1].extended_state.size(), 832u);
  EXPECT_EQ(parsed->threads[1].processors, image.threads[1].processors);
  EXPECT_EQ(parsed->threads[1].speculation, image.threads[1].speculation);
  EXPECT_EQ(parsed->threads[1].pending, image.threads[1].pending);
}

TEST(ProcessImage, WhatIsMalformedIsRefused) {
  const std::string bytes = example().serialize();
  for (size_t length = 0; length < bytes.size(); length += 7)
    EXPECT_FALSE(ProcessImage::parse(std::string_view(bytes).substr(0, length))) << length;
  EXPECT_FALSE(ProcessImage::parse(bytes + "x"));
  ProcessImage image = example();
  image.mappings[0].file = 2;
  EXPECT_FALSE(ProcessImage::parse(image.serialize())) << "a file that is not there";
  image = example();
  image.threads.clear();
  EXPECT_FALSE(ProcessImage::parse(image.serialize()));
}

}  // namespace
}  // namespace krg
