// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/saved_ipc.h"

#include <gtest/gtest.h>

#include "krg/procmgr/process_family.h"

namespace krg {
namespace {

SavedIpc some_of_all() {
  SavedIpc ipc;
  ipc.semaphores.push_back({.object = {.id = 32769, .key = -5, .uid = 7, .mode = 0640},
                            .values = {1, 0, 32767},
                            .undos = {{304, {-1, 0, 5}}, {305, {0, 2, 0}}}});
  ipc.message_queues.push_back(
      {.object = {.id = 0}, .most_bytes = 16384, .messages = {{3, "text"}, {1, ""}}});
  ipc.segments.push_back(
      {.object = {.id = 6}, .bytes = 9, .is_removed = 1, .contents = "contents"});
  ipc.posix_queues.push_back({.object = {.mode = 0600},
                              .name = "name",
                              .most_messages = 10,
                              .message_bytes = 8192,
                              .messages = {{31, "first"}}});
  return ipc;
}

TEST(SavedIpc, ComesBackAsItWas) {
  const std::string bytes = some_of_all().serialize();
  auto ipc = SavedIpc::parse(bytes);
  ASSERT_TRUE(ipc) << ipc.error().message();
  EXPECT_EQ(ipc->serialize(), bytes);
  EXPECT_EQ(ipc->semaphores.at(0).undos.at(1).pid, 305);
  EXPECT_EQ(ipc->semaphores.at(0).undos.at(0).adjustments, (std::vector<int32_t>{-1, 0, 5}));
  EXPECT_EQ(ipc->message_queues.at(0).messages.at(0).text, "text");
  EXPECT_EQ(ipc->segments.at(0).contents, "contents");
  EXPECT_EQ(ipc->posix_queues.at(0).name, "name");
}

TEST(SavedIpc, NothingIsNothing) {
  auto ipc = SavedIpc::parse({});
  ASSERT_TRUE(ipc);
  EXPECT_TRUE(ipc->is_empty());
}

TEST(SavedIpc, RefusesWhatIsCutOffOrDoesNotFit) {
  const std::string bytes = some_of_all().serialize();
  for (size_t length = 1; length < bytes.size(); ++length)
    EXPECT_FALSE(SavedIpc::parse(std::string_view(bytes).substr(0, length))) << length;
  EXPECT_FALSE(SavedIpc::parse(bytes + "x"));
  SavedIpc other = some_of_all();
  other.semaphores[0].undos[0].adjustments.pop_back();
  EXPECT_FALSE(SavedIpc::parse(other.serialize()));
}

TEST(SavedIpc, NamesOfSegmentsAreNoOtherMemorys) {
  EXPECT_EQ(segment_of_memory(segment_memory_name(0)), 0);
  EXPECT_EQ(segment_of_memory(segment_memory_name(98310)), 98310);
  EXPECT_EQ(segment_of_memory(shared_memory_name(1, 98310)), -1);
  EXPECT_EQ(segment_of_memory("/SYSV00000000 (deleted)"), -1);
  EXPECT_EQ(segment_of_memory(std::string(kSharedMemoryPrefix) + "/dev/shm/sysv:3"), -1);
}

}  // namespace
}  // namespace krg
