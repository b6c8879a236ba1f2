// Copies of pages with several writers come while there is no memory for them.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <cstring>

#include "multiple_writers.h"
#include "page_changes.h"

namespace krg {
namespace {

constexpr size_t kPage = 4096;
constexpr NodeId kHome{0}, kSelf{1};
constexpr PageIndex kIndex{3};

class MultipleWritersRoomTest : public ::testing::Test {
 protected:
  // As MultipleWriters sends them.
  enum Kind : uint8_t { kBecome = 2, kFetch = 3, kCopy = 4, kChanges = 5, kStop = 6, kLeft = 7 };

  MultipleWritersRoomTest() {
    writers_.allow({.self = kSelf, .home = kHome, .send = [this](NodeId, std::string message) {
                      sent_.push_back(static_cast<Kind>(message[1]));
                    }});
  }
  void arrive(Kind kind, std::string_view payload) {
    std::string message(24, '\0');
    message[0] = 1;
    message[1] = static_cast<char>(kind);
    std::memcpy(&message[8], &kIndex.value, sizeof kIndex.value);
    writers_.take_message(kHome, message.append(payload));
  }
  void run_until(const std::function<bool()>& reached) {
    for (int i = 0; i < 2000 && !reached(); ++i) loop_.run_once(std::chrono::milliseconds(5));
    EXPECT_TRUE(reached());
  }
  // A copy of `old` comes, then the change of one byte, while there is no memory.
  void begin_without_room() {
    has_room_ = false;
    arrive(kBecome, old_);
    std::string now = old_, twin = old_, changes(sizeof kIndex.value, '\0');
    now[100] = 'y';
    std::memcpy(changes.data(), &kIndex.value, sizeof kIndex.value);
    ASSERT_TRUE(take_changes(std::as_bytes(std::span(now)), std::as_writable_bytes(std::span(twin)),
                             changes));
    arrive(kChanges, changes);
    run_until([this] { return refused_ > 5; });
  }
  char byte(size_t at) { return static_cast<char>(frames_.page(kIndex)[at]); }

  const std::string old_ = std::string(kPage, 'x');
  EventLoop loop_ = std::move(*EventLoop::create());
  PageFrames frames_ = std::move(*PageFrames::create(8));
  std::shared_ptr<PageHolder> holder_;
  ProgramSpaces spaces_{loop_, frames_, make_userfaultfd_group(), false,
                        ProgramSpaces::Handlers{[] {}, [](PageIndex, size_t) {}, {}, [] {}}};
  bool has_room_ = true;
  int refused_ = 0;
  std::vector<Kind> sent_;
  MultipleWriters writers_{{loop_, frames_, holder_, spaces_, [](const ProgramFault&) {},
                            [](PageIndex) { return std::vector<ProgramFault>(); },
                            [](const ProgramFault&) {},
                            [this](PageIndex) {
                              refused_ += !has_room_;
                              return has_room_;
                            }}};
};

TEST_F(MultipleWritersRoomTest, ACopyWaitsForMemoryAndTakesChangesMeanwhile) {
  begin_without_room();
  EXPECT_FALSE(frames_.are_allocated(kIndex, 1));
  EXPECT_EQ(byte(100), 0);  // nothing is there
  has_room_ = true;
  run_until([this] { return byte(0) == 'x'; });
  EXPECT_EQ(byte(100), 'y');
  EXPECT_EQ(byte(kPage - 1), 'x');
  EXPECT_TRUE(sent_.empty());  // it is not asked for again
}

TEST_F(MultipleWritersRoomTest, APageThatHasOneWriterAgainIsNotWaitedFor) {
  begin_without_room();
  arrive(kStop, {});
  EXPECT_EQ(sent_, std::vector{kLeft});
  const int refused = refused_;
  has_room_ = true;
  for (int i = 0; i < 10; ++i) loop_.run_once(std::chrono::milliseconds(2));
  EXPECT_EQ(refused_, refused);
  EXPECT_EQ(byte(0), 0);
}

}  // namespace
}  // namespace krg
