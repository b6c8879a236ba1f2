// Team calls: what the members of an OpenMP team on several nodes ask of the krgd of their
// process's home, where the team's state is. A call is a system call that the kernel does not have;
// it is seen because krgd traces all threads of a spread process, and answered wherever the thread
// runs. Its words are the general registers that both sides name here. libkrgomp (procmgr/omp)
// includes this file alone.
//
// An unanswered call may be told EINTR, and one that a thread made where it does not run any more
// is made again: the same words, with the same sequence number, are the same call.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <array>
#include <cstdint>

namespace krg {

inline constexpr std::uint64_t kTeamCallNumber = 0x0b4f4d50;

// clone3(kAskToSpread, 1): the calling process is to be spread over nodes. kIsSpread: it is;
// kHasOneWriter: it is, but the program has memory fences, so that a page has one writer though
// KRG_MULTIPLE_WRITERS asks for several; EINVAL: it is being so from now on, or cannot be; EAGAIN:
// it is being so; ENOTSUP: it stays on this node.
inline constexpr std::uint64_t kAskToSpread = 0x6b72'6773'7072'6561;
inline constexpr long kIsSpread = 1, kHasOneWriter = 2;

// Words: 0 what, 1 the thread's sequence number, 2 the team or the lock, from 3 on what each has.
// Answers: a result, 0 where nothing is said, and words from 3 on.
enum class TeamOp : std::uint64_t {
  // A worker waits for a region. 3: 1 when it has just ended one. Result: 1, or 0 when it is to
  // end.
  // Answer: 3 its number, 4 to 11 as the master described the region.
  dock = 1,
  // 3: members | workers << 32, with kTeamBound. 4 to 11: the region, for the workers.
  begin,
  // The master waits until all members have docked.
  end,
  // Until all members are here. 3: not 0 from one of them, answered to all; 4: not 0: a cancelled
  // region ends it; 5: where in the program it is. Result: 1 when one did.
  barrier,
  cancel,
  // All docked workers are to end.
  dismiss,
  // 3: number of the construct. Result: 1 for the first who asks.
  single,
  // 3: number of the construct; 4: iterations; 5: chunk; 6: ABI's schedule (3: guided), with
  // kWholeChunks; 7: how many chunks at most. Result: 1, and 3, 4 first and last + 1, or 0: none.
  next,
  // A number that only grows. 3: number of the construct; 4: which one; 5: value.
  post,
  // Until it is at least 5.
  await,
  // 3: number of the construct. Result: 1 for the first who asks, who publishes a word (4); 0 with
  // that word (3) for the others.
  claim,
  publish,
  // 3: number of the construct. Result: 1 for the last of the members.
  leave,
  // 2: the lock. 3: owner, for those who may have it several times, or 0. Result: how many times
  // the owner has it; try_lock: or 0.
  lock,
  try_lock,
  unlock,
  // A member has a task that another one may run. 3: the task, with kTeamTask... flags; 4: its
  // function; 5: its arguments, or, kTeamTaskInline, they are in 5, 9, 10, 11; 6: its parent; 7:
  // its
  // group, or 0; 8: the task of this kind that it descends from, or 0; what these name is its
  // owner's and not touched. Result: 1; 0: there are enough for now.
  // Answer: 3 to 11: news.
  give_task,
  // Until there is a task for it, or news. 3: kTeamAny..., 4: the parent or group; 5: not 0: it has
  // tasks that it may not run itself now. Result: kTeamTask, with 3 to 11 as they were given;
  // kTeamOwnTask, with 3; kTeamNews: 3 to 11, as far as they are not 0; none: one that it may not
  // run itself is wanted.
  wait_for_task,
  // 3: the task that it got, with what of it is over.
  task_over,
  // 3: a task whose event is fulfilled; 4: the member that it belongs to.
  fulfill,
};

// dock, when it has ended a region, end and barrier may have these results, too: the member runs
// the task and makes the call anew.
inline constexpr long kTeamTask = 16, kTeamOwnTask = 17, kTeamNews = 18;
// What a member may run: anything, children of a task, what is in a group; with what descends from
// these.
inline constexpr std::uint64_t kTeamAnyTask = 0, kTeamChildren = 1, kTeamGroup = 2;
// Tasks are aligned to 64 bytes; the bits below tell of one that is given (the last one is krgd's:
// it is taken though there are enough), and news of it.
inline constexpr std::uint64_t kTeamTaskBits = 63;
inline constexpr std::uint64_t kTeamTaskInline = 1, kTeamTaskFinal = 2, kTeamTaskCopied = 4,
                               kTeamTaskReduces = 8, kTeamTaskIcvs = 16, kTeamTaskForced = 32;
// News: its body has ended; so have all tasks of its group that descend from it; its event is
// fulfilled.
inline constexpr std::uint64_t kTeamBodyOver = 1, kTeamAllOver = 2, kTeamFulfilled = 4;

// Members are bound to places by their numbers, so that each goes where its number is to be: a
// worker keeps its number, whatever node it is on.
inline constexpr std::uint64_t kTeamBound = std::uint64_t(1) << 63;

inline constexpr std::uint64_t kTeamGuided = 3;
inline constexpr std::uint64_t kTeamWholeChunks = 256;  // guided chunks are multiples of the chunk

// Whoever makes such a call does not wait for its answer.
constexpr bool is_one_way(TeamOp op) {
  return op == TeamOp::begin || op == TeamOp::cancel || op == TeamOp::dismiss ||
         op == TeamOp::post || op == TeamOp::publish || op == TeamOp::unlock ||
         op == TeamOp::task_over || op == TeamOp::fulfill;
}

inline constexpr unsigned kTeamWords = 12;
// In rdi, rsi, rdx, r10, r8, r9, rbx, rbp, r12, r13, r14, r15.
using TeamWords = std::array<std::uint64_t, kTeamWords>;

constexpr TeamOp op_of(const TeamWords& words) {
  return static_cast<TeamOp>(words[0]);
}

}  // namespace krg
