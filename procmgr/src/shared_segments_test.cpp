// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_segments.h"

#include <gtest/gtest.h>
#include <sys/ipc.h>
#include <sys/shm.h>

namespace krg {
namespace {

constexpr int32_t kKey = 4711;
constexpr FileId kFile = 7;
const SharedCaller kRoot{0, 0, {}};
const SharedCaller kAlice{1000, 100, {}};
const SharedCaller kBob{1001, 101, {}};

template <class T>
int error_of(const Result<T>& result) {
  return result ? 0 : result.error().errno_or(-1);
}

class SharedSegmentsTest : public testing::Test {
 protected:
  SegmentState add(int mode = 0600, int32_t key = kKey, FileId file = kFile) {
    return *segments_.add(kAlice, key, 5000, mode, 42, file, 1000);
  }
  SharedSegments segments_;
};

TEST_F(SharedSegmentsTest, AKeyFindsItsSegment) {
  EXPECT_EQ(error_of(segments_.find(kAlice, kKey, 10, 0)), ENOENT);
  EXPECT_EQ(error_of(segments_.find(kAlice, kKey, 0, IPC_CREAT)), EINVAL);
  const SegmentState made = add();
  EXPECT_EQ(segments_.find(kAlice, kKey, 5000, IPC_CREAT | 0600)->id, made.id);
  EXPECT_EQ(segments_.find(kAlice, kKey, 0, 0)->file, kFile);
  EXPECT_EQ(error_of(segments_.find(kAlice, kKey, 5001, 0)), EINVAL);
  EXPECT_EQ(error_of(segments_.find(kAlice, kKey, 1, IPC_CREAT | IPC_EXCL)), EEXIST);
  EXPECT_EQ(error_of(segments_.find(kBob, kKey, 1, 0600)), EACCES);
  EXPECT_EQ(error_of(segments_.find(kAlice, IPC_PRIVATE, 1, 0)), ENOENT);
}

TEST_F(SharedSegmentsTest, AttachingIsGrantedByTheMode) {
  const SegmentState made = add(0640);
  const SharedCaller friend_of_alice{1002, 102, {100}};
  EXPECT_EQ(error_of(segments_.attach(kBob, made.id, SHM_RDONLY, 1, 0)), EACCES);
  EXPECT_EQ(error_of(segments_.attach(friend_of_alice, made.id, 0, 1, 0)), EACCES);
  EXPECT_EQ(error_of(segments_.attach(friend_of_alice, made.id, SHM_RDONLY, 1, 0)), 0);
  EXPECT_EQ(error_of(segments_.attach(kRoot, made.id, 0, 9, 2000)), 0);
  const auto state = segments_.state(kAlice, made.id, false, false);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->attached_s, 2000);
  EXPECT_EQ(state->last_pid, 9);
  EXPECT_EQ(state->creator_pid, 42);
}

TEST_F(SharedSegmentsTest, ARemovedSegmentHasNoKeyButStays) {
  const SegmentState made = add();
  EXPECT_EQ(error_of(segments_.remove(kBob, made.id)), EPERM);
  EXPECT_EQ(error_of(segments_.remove(kAlice, made.id)), 0);
  EXPECT_EQ(error_of(segments_.find(kAlice, kKey, 1, 0)), ENOENT);
  EXPECT_TRUE(segments_.state(kAlice, made.id, false, false)->mode & SHM_DEST);
  segments_.drop(kFile);
  EXPECT_EQ(error_of(segments_.state(kAlice, made.id, false, false)), EINVAL);
}

TEST_F(SharedSegmentsTest, AnIdIsNotUsedAgainAtOnce) {
  const SegmentState first = add();
  segments_.drop(kFile);
  const SegmentState second = add();
  EXPECT_NE(first.id, second.id);
  EXPECT_EQ(error_of(segments_.attach(kAlice, first.id, 0, 1, 0)), EIDRM);
  EXPECT_EQ(segments_.state(kAlice, 0, true, false)->id, second.id);
}

TEST_F(SharedSegmentsTest, OwnersChangeOwnersAndModes) {
  const SegmentState made = add();
  EXPECT_EQ(error_of(segments_.set(kBob, made.id, 0666, 1001, 101, 3000)), EPERM);
  EXPECT_EQ(error_of(segments_.set(kAlice, made.id, 0666, 1001, 101, 3000)), 0);
  const auto state = segments_.state(kBob, made.id, false, false);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->uid, 1001U);
  EXPECT_EQ(state->mode, 0666U);
  EXPECT_EQ(state->creator_uid, 1000U);
}

TEST_F(SharedSegmentsTest, OneThatWasSavedHasItsIdAndKeyAgain) {
  const SegmentState saved = add(0640);
  SharedSegments fresh;
  EXPECT_TRUE(fresh.restore(saved));
  EXPECT_EQ(fresh.find(kAlice, kKey, 5000, 0)->id, saved.id);
  EXPECT_EQ(error_of(fresh.attach(kBob, saved.id, 0, 1, 0)), EACCES);
  SegmentState other = saved;
  other.id = saved.id + 1;
  EXPECT_FALSE(fresh.restore(other)) << "the same key";
  other.key = kKey + 1;
  EXPECT_TRUE(fresh.restore(other));
  EXPECT_FALSE(fresh.restore(other)) << "the same identifier";
}

TEST_F(SharedSegmentsTest, TotalsCountPages) {
  add();
  add(0600, kKey + 1, kFile + 1);
  EXPECT_EQ(segments_.totals().segments, 2);
  EXPECT_EQ(segments_.totals().highest_index, 1);
  EXPECT_EQ(segments_.totals().pages, 4U);
  EXPECT_EQ(segments_.all().size(), 2U);
}

}  // namespace
}  // namespace krg
