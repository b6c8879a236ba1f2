// The messages of spread processes. `set` names the process: it is its page set's number.
// H: the node where it was started, its home; R: one with a replica of it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/user.h>

#include <chrono>
#include <cstdint>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/team_call.h"
#include "krg/shmem/page_set.h"
#include "spread/cpu_time.h"
#include "spread/fault_signs.h"

namespace krg {

// Of a spread process's memory, on each of its nodes. Threads hand words to each other: who waits
// for a page gets it soon. Who writes several pages of arrays that others write, too, needs them
// together: some ten page moves.
inline PageSetOptions spread_pages(const NodeContext& node, NodeId home) {
  return {.group = node.page_sets,
          .home = home,
          .hold_time = std::chrono::microseconds(50),
          .long_hold_time = std::chrono::microseconds(1000),
          .writes_ahead = false};
}

// H to all, a request: open the page set.
struct OpenSpreadSet {
  static constexpr uint16_t kId = message_ids::kSpread;
  uint8_t version = 1;
  uint8_t counts = 0;            // 1: its faults
  uint8_t multiple_writers = 0;  // 1: pages may have several
  uint8_t patience = 0;          // Patience::Kind, while members of its teams wait
  uint8_t unused[4] = {};
  uint64_t set = 0;
  uint64_t pages = 0;
};
// H to all, a request: end the replica, if there is one, and forget the set. The reply:
// FaultCounts, where they were wanted.
struct EndSpread {
  static constexpr uint16_t kId = message_ids::kSpread + 1;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};
// H to R, a request; payload: SpreadImage.
struct StartReplica {
  static constexpr uint16_t kId = message_ids::kSpread + 2;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};
// H to R, a request: what R's replica shows is not so any more (or, kMap, will be needed at once).
// Answered when it shows the same as H.
struct ChangeMemory {
  static constexpr uint16_t kId = message_ids::kSpread + 3;
  enum class Kind : uint8_t { kMap, kUnmap, kProtect };
  uint8_t version = 1;
  Kind kind = Kind::kMap;
  uint8_t unused[2] = {};
  uint32_t protection = 0;  // kMap, kProtect
  uint64_t set = 0;
  uint64_t start = 0, bytes = 0;
  uint64_t first_page = 0;  // kMap
  uint64_t set_pages = 0;   // the size of the set by then
};
// H to R, a request: the thread runs at R from now on; payload: ThreadState.
struct SendThread {
  static constexpr uint16_t kId = message_ids::kSpread + 4;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t tid = 0;
  uint64_t set = 0;
  int32_t pid = 0;
  uint8_t unused_too[4] = {};
};
// H to R: send it back.
struct RecallThread {
  static constexpr uint16_t kId = message_ids::kSpread + 5;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t tid = 0;
  uint64_t set = 0;
};
// R to H: it runs at H from now on; payload: ThreadState.
struct ReturnThread {
  static constexpr uint16_t kId = message_ids::kSpread + 6;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t tid = 0;
  uint64_t set = 0;
  CpuTime used{};  // at R, since it came
};
// R to H, a request: the thread makes a system call; payload: its registers (user_regs_struct).
// The reply: an int64_t, the result. ECANCELED: the thread does not go on at R.
struct CallAtHome {
  static constexpr uint16_t kId = message_ids::kSpread + 7;
  uint8_t version = 1;
  uint8_t goes_on = 0;  // 1: although it has been recalled, the signal is to meet it in this call
  uint8_t unused[2] = {};
  int32_t tid = 0;
  uint64_t set = 0;
};
// R to H: the replica has ended by itself.
struct ReplicaLost {
  static constexpr uint16_t kId = message_ids::kSpread + 8;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};
// R to H: the thread waits for a word (futex(2)). A request where other nodes have replicas, too:
// answered when it is queued.
struct QueueFutex {
  static constexpr uint16_t kId = message_ids::kSpread + 9;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t tid = 0;
  uint64_t set = 0;
  uint64_t address = 0;
  uint32_t bits = 0;
  uint8_t unused_too[4] = {};
};
// R to H, a request: it does not wait any more. The reply, a byte: 0 when it had been woken.
struct LeaveFutex {
  static constexpr uint16_t kId = message_ids::kSpread + 10;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t tid = 0;
  uint64_t set = 0;
};
// R to H, a request. The reply: an int64_t, how many were woken. EAGAIN: the kernel of H knows of
// waiters, too: to be asked by CallAtHome.
struct WakeFutex {
  static constexpr uint16_t kId = message_ids::kSpread + 11;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  uint32_t count = 0;
  uint64_t set = 0;
  uint64_t address = 0;
  uint32_t bits = 0;
  uint8_t unused_too[4] = {};
};
// H to R: the thread, which waited for a word, has been woken.
struct FutexWoken {
  static constexpr uint16_t kId = message_ids::kSpread + 12;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t tid = 0;
  uint64_t set = 0;
};
// R to H, a request: what is mapped there? The reply: KnownMapping.
struct AskMapping {
  static constexpr uint16_t kId = message_ids::kSpread + 13;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
  uint64_t address = 0;
};
// H to R: all threads there stand still from now on, or go on when there is no reason any more. A
// request when they are to stand: answered when they do; for a debugger with CapturedThreads.
struct HoldThreads {
  static constexpr uint16_t kId = message_ids::kSpread + 14;
  enum class Why : uint8_t { kFork = 1, kStop = 2, kDebugger = 4, kCapture = 8 };  // bits
  uint8_t version = 1;
  Why why = Why::kFork;
  uint8_t unused[6] = {};
  uint64_t set = 0;
};
// R to H, H to R: what page sets tell each other of pages with several writers
// (MultipleWritersOptions::send).
struct TellHomeOfWriters {
  static constexpr uint16_t kId = message_ids::kSpread + 15;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};
struct TellReplicaOfWriters {
  static constexpr uint16_t kId = message_ids::kSpread + 16;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};
static_assert(sizeof(TellHomeOfWriters) == 16 && sizeof(TellReplicaOfWriters) == 16);
// H to R, a request, when all stand: what the threads there are. The reply: CapturedThreads.
struct TellThreads {
  static constexpr uint16_t kId = message_ids::kSpread + 17;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};
// R to H: members of a team have come to a barrier, those of R together; payload: an ArrivedMember
// each.
struct TeamArrivals {
  static constexpr uint16_t kId = message_ids::kSpread + 18;
  uint8_t version = 1;
  uint8_t go_on = 0;  // 1: they have gone on, as home has let them (TeamGo)
  uint8_t unused[6] = {};
  uint64_t set = 0;
};
struct ArrivedMember {
  int32_t tid = 0;
  uint8_t unused[4] = {};
  TeamWords words{};  // of its call
};
// H to R: these members go on, or, where they have not come yet, may go on as soon as all of them
// have; payload: their numbers, int32_t each.
struct TeamGo {
  static constexpr uint16_t kId = message_ids::kSpread + 19;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
  uint64_t team = 0;
  uint64_t word = 0;  // what the barrier tells
};
// H to R: members of the team may be given tasks while they wait at barriers of this region, so
// each makes its calls by itself.
struct TeamHasTasks {
  static constexpr uint16_t kId = message_ids::kSpread + 21;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
  uint64_t team = 0;
};
static_assert(sizeof(TeamHasTasks) == 24);
static_assert(sizeof(TeamArrivals) == 16 && sizeof(ArrivedMember) == 104 && sizeof(TeamGo) == 32);
// H to R, a request, when all stand: which pages may have been written there since the same was
// asked before (PageSet::take_written). The reply: a byte, 0 when it is not known; PageNumbers.
struct TellWritten {
  static constexpr uint16_t kId = message_ids::kSpread + 20;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};
// H to R: the processors of R that the thread, which runs there, is bound to; payload: a mask of
// them by their order at R (processor_numbers.h).
struct BindThread {
  static constexpr uint16_t kId = message_ids::kSpread + 22;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t tid = 0;
  uint64_t set = 0;
};
static_assert(sizeof(BindThread) == 16);
// H to R, a request. The reply: a FaultSum of R, then a ThreadUsage for each thread that runs
// there, and one with tid 0 for all that have ended there.
struct TellUsage {
  static constexpr uint16_t kId = message_ids::kSpread + 23;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};
struct ThreadUsage {
  int32_t tid = 0;  // at home
  char state = 0;   // as stat has it
  uint8_t unused[3] = {};
  CpuTime used{};  // at R, since it came
};
static_assert(sizeof(TellUsage) == 16 && sizeof(FaultSum) == 24 && sizeof(ThreadUsage) == 24);
struct PageNumbers {  // in a row
  uint64_t first = 0, count = 0;
};
static_assert(sizeof(TellWritten) == 16 && sizeof(PageNumbers) == 16);
// H to R, a request: a debugger's breakpoint.
struct SetBreakpoint {
  static constexpr uint16_t kId = message_ids::kSpread + 24;
  uint8_t version = 1;
  uint8_t is_set = 0;  // 0: it is cleared
  uint8_t unused[6] = {};
  uint64_t set = 0;
  uint64_t address = 0;
};
// H to R: a debugger has the thread make one step.
struct StepThread {
  static constexpr uint16_t kId = message_ids::kSpread + 25;
  uint8_t version = 1;
  uint8_t alone = 0;  // 1: all others stand meanwhile
  uint8_t unused[2] = {};
  int32_t tid = 0;
  uint64_t set = 0;
};
// R to H: it has, or it has met a breakpoint; it stands.
struct ThreadTrapped {
  static constexpr uint16_t kId = message_ids::kSpread + 26;
  uint8_t version = 1;
  uint8_t at_breakpoint = 0;
  uint8_t unused[2] = {};
  int32_t tid = 0;
  uint64_t set = 0;
};
static_assert(sizeof(SetBreakpoint) == 24 && sizeof(StepThread) == 16 &&
              sizeof(ThreadTrapped) == 16);
static_assert(sizeof(TellThreads) == 16 && sizeof(HoldThreads) == 16);
static_assert(sizeof(AskMapping) == 24);
static_assert(sizeof(QueueFutex) == 32 && sizeof(LeaveFutex) == 16 && sizeof(WakeFutex) == 32 &&
              sizeof(FutexWoken) == 16);
static_assert(sizeof(OpenSpreadSet) == 24 && sizeof(EndSpread) == 16 &&
              sizeof(StartReplica) == 16 && sizeof(ChangeMemory) == 48 &&
              sizeof(SendThread) == 24 && sizeof(RecallThread) == 16 &&
              sizeof(ReturnThread) == 32 && sizeof(CallAtHome) == 16 && sizeof(ReplicaLost) == 16);

}  // namespace krg
