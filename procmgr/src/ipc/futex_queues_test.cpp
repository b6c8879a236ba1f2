// Who is woken, who stays. SPDX-License-Identifier: GPL-2.0-or-later
#include "ipc/futex_queues.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

constexpr uint32_t kAny = ~0u, kAll = ~0u;

SharedPlace place(uint64_t set, size_t offset) {
  return {SetId{set}, PageIndex{7}, offset};
}
IpcTicket ticket(uint64_t number) {
  return {NodeId{static_cast<uint16_t>(number / 100)}, number};
}
std::vector<uint64_t> numbers(const FutexQueues::Wakes& woken) {
  std::vector<uint64_t> all;
  for (const auto& one : woken) all.push_back(one.ticket.number);
  return all;
}
using Numbers = std::vector<uint64_t>;

TEST(FutexQueues, WakesTheFirstOfTheirWord) {
  FutexQueues queues;
  queues.wait(place(1, 0), ticket(10), kAny);
  queues.wait(place(1, 4), ticket(11), kAny);
  queues.wait(place(1, 0), ticket(12), kAny);
  queues.wait(place(1, 0), ticket(13), kAny);
  EXPECT_EQ(numbers(queues.wake(place(1, 0), 2, kAny)), (Numbers{10, 12}));
  EXPECT_EQ(numbers(queues.wake(place(1, 0), kAll, kAny)), (Numbers{13}));
  EXPECT_TRUE(queues.wake(place(1, 0), kAll, kAny).empty());
  EXPECT_EQ(queues.size(), 1u);
}

TEST(FutexQueues, BitsChoose) {
  FutexQueues queues;
  queues.wait(place(1, 0), ticket(10), 1);
  queues.wait(place(1, 0), ticket(11), 6);
  EXPECT_TRUE(queues.wake(place(1, 0), kAll, 8).empty());
  EXPECT_EQ(numbers(queues.wake(place(1, 0), kAll, 4)), (Numbers{11}));
}

TEST(FutexQueues, WhoHasBeenWokenCannotLeave) {
  FutexQueues queues;
  queues.wait(place(1, 0), ticket(10), kAny);
  queues.wait(place(1, 0), ticket(11), kAny);
  EXPECT_TRUE(queues.leave(ticket(10)));
  EXPECT_EQ(numbers(queues.wake(place(1, 0), 1, kAny)), (Numbers{11}));
  EXPECT_FALSE(queues.leave(ticket(11)));
  EXPECT_FALSE(queues.leave(ticket(10)));
}

TEST(FutexQueues, RequeuedWaitersWaitElsewhere) {
  FutexQueues queues;
  for (uint64_t number : {10, 11, 12}) queues.wait(place(1, 0), ticket(number), kAny);
  queues.wait(place(2, 8), ticket(20), kAny);
  EXPECT_EQ(queues.requeue(place(1, 0), place(2, 8), 2), 2u);
  EXPECT_EQ(queues.requeue(place(1, 0), place(1, 0), 1), 0u);
  EXPECT_TRUE(queues.leave(ticket(10)));
  const auto woken = queues.wake(place(2, 8), kAll, kAny);
  EXPECT_EQ(numbers(woken), (Numbers{20, 11}));
  EXPECT_EQ(woken[1].place, place(2, 8));
  EXPECT_EQ(numbers(queues.wake(place(1, 0), kAll, kAny)), (Numbers{12}));
  EXPECT_EQ(queues.requeue(place(1, 0), place(2, 8), 5), 0u);
  EXPECT_EQ(queues.size(), 0u);
}

TEST(FutexQueues, AFailedNodesWaitersAreGone) {
  FutexQueues queues;
  queues.wait(place(1, 0), ticket(110), kAny);
  queues.wait(place(1, 0), ticket(210), kAny);
  queues.node_failed(NodeId{1});
  EXPECT_EQ(numbers(queues.wake(place(1, 0), kAll, kAny)), (Numbers{210}));
}

}  // namespace
}  // namespace krg
