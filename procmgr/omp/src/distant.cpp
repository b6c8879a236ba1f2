// SPDX-License-Identifier: GPL-2.0-or-later
#include "distant.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "distant_call.h"

// long krg_omp_team_call(uint64_t words[12]): the words go into registers and come back in them.
asm(R"(
        .text
        .globl  krg_omp_team_call
        .hidden krg_omp_team_call
        .type   krg_omp_team_call, @function
krg_omp_team_call:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        push    %rdi
        mov     %rdi, %rax
        mov     (%rax), %rdi
        mov     8(%rax), %rsi
        mov     16(%rax), %rdx
        mov     24(%rax), %r10
        mov     32(%rax), %r8
        mov     40(%rax), %r9
        mov     48(%rax), %rbx
        mov     56(%rax), %rbp
        mov     64(%rax), %r12
        mov     72(%rax), %r13
        mov     80(%rax), %r14
        mov     88(%rax), %r15
        mov     $0x0b4f4d50, %eax
        syscall
        pop     %rcx
        mov     %rdi, (%rcx)
        mov     %rsi, 8(%rcx)
        mov     %rdx, 16(%rcx)
        mov     %r10, 24(%rcx)
        mov     %r8, 32(%rcx)
        mov     %r9, 40(%rcx)
        mov     %rbx, 48(%rcx)
        mov     %rbp, 56(%rcx)
        mov     %r12, 64(%rcx)
        mov     %r13, 72(%rcx)
        mov     %r14, 80(%rcx)
        mov     %r15, 88(%rcx)
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
        .size   krg_omp_team_call, .-krg_omp_team_call
)");
static_assert(krg::kTeamCallNumber == 0x0b4f4d50 && krg::kTeamWords == 12);

namespace krg::omp {

std::atomic<distant::State> distant::state{distant::State::unasked};

namespace distant {
namespace {

constexpr std::uint64_t kShortNs = 200'000;  // a batch of chunks is to take about as long
constexpr std::uint64_t kLongNs = 1'000'000;
constexpr std::uint64_t kMostChunks = 4096;
constexpr unsigned kTries = 20'000;  // of 1 ms: a process of many GiB takes a while

Call of_construct(TeamOp op, const Thread& thread) {
  Call call(op, thread.at.team);
  call.words[3] = thread.at.share_number;
  return call;
}

// A region's first work share, which the master describes.
void put_share(std::uint64_t* words, const WorkShare& share) {
  const Iterations& it = share.iterations;
  words[6] = it.count;
  words[7] = it.first;
  words[8] = it.step;
  words[9] = it.end;
  words[10] = share.chunk;
  words[11] = std::uint64_t(share.schedule) | std::uint64_t(1) << 32;
}

void enter_first_share(Thread& thread, const std::uint64_t* words) {
  if (words[11] == 0) return;
  WorkShare& share = member_share(*thread.at.team, thread.at.number);
  thread.at.share = &share;
  thread.at.share_number = thread.at.shares_met++;
  describe_loop(share, {words[6], words[7], words[8], words[9]}, Schedule(std::uint32_t(words[11])),
                words[10]);
  share.batch = {};
}

long ask_to_spread() {
  const long answer = syscall(SYS_clone3, kAskToSpread, 1);
  if (answer == kHasOneWriter)
    complain(
        "--multiple-writers is not used: the program has memory fences (flush, atomics), by which "
        "its threads may talk: each page has one writer");
  return answer > 0 ? 0 : errno;
}

void sleep_a_moment() {
  timespec until{};
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += 1'000'000;
  if (until.tv_nsec >= 1'000'000'000) {
    until.tv_nsec -= 1'000'000'000;
    ++until.tv_sec;
  }
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
}

// EINVAL twice: nobody looks at the call.
bool spread_now() {
  const int kept = errno;
  long answer = ask_to_spread();
  bool is_seen = answer != EINVAL;
  for (unsigned i = 0; i < kTries && (answer == EAGAIN || (answer == EINVAL && !is_seen)); ++i) {
    sleep_a_moment();
    const long before = answer;
    answer = ask_to_spread();
    if (answer == EINVAL && before == EINVAL) break;
    is_seen = true;
  }
  errno = kept;
  if (answer != 0)
    complain("the threads stay on one node: krgd cannot spread this process (its log says why)");
  return answer == 0;
}

}  // namespace

unsigned nodes() {
  static const unsigned count = [] {
    const char* text = std::getenv("KRG_OMP_NODES");
    const long value = text != nullptr ? std::strtol(text, nullptr, 10) : 1;
    return unsigned(value > 1 && value < 65536 ? value : 1);
  }();
  return count;
}

bool begins() {
  if (state.load(std::memory_order_relaxed) == State::unasked) {
    static Mutex mutex;
    const Locked locked(mutex);
    if (state.load() == State::unasked) {
      const bool is_spread = nodes() > 1 && spread_now();
      state.store(is_spread ? State::on : State::off);
      if (is_spread) bind_thread(this_thread());  // its place may be on another node
    }
  }
  return is_on();
}

// --- regions ------------------------------------------------------------------------------------

void begin_region(Thread& master, Team& team, Function function, void* data) {
  Call call(TeamOp::begin, &team);
  call.words[3] =
      team.size | std::uint64_t(team.pool->workers) << 32 | (team.binds ? kTeamBound : 0);
  call.words[4] = std::uint64_t(reinterpret_cast<std::uintptr_t>(function));
  call.words[5] = std::uint64_t(reinterpret_cast<std::uintptr_t>(data));
  if (team.first_claimed) put_share(call.words, team.shares[0]);
  become_member(master, team, 0);
  enter_first_share(master, call.words);
  call.make();
}

void end_region(Thread& master, Team& team) {
  for (;;) {
    finish_tasks(master);
    Call call(TeamOp::end, &team);
    if (!run_if_task(master, call.make(), call.words)) return;
  }
}

void work(Thread& thread, Pool& pool) {
  Team& team = pool.team;
  for (bool has_ended_region = false;; has_ended_region = true) {
    Call call(TeamOp::dock, &team);
    call.words[3] = has_ended_region ? 1 : 0;
    const long result = call.make();
    if (result == 0) return;
    if (!run_if_task(thread, result, call.words)) {
      become_member(thread, team, unsigned(call.words[3]));
      enter_first_share(thread, call.words);
      const auto function = reinterpret_cast<Function>(std::uintptr_t(call.words[4]));
      function(reinterpret_cast<void*>(std::uintptr_t(call.words[5])));
    }
    finish_tasks(thread);
  }
}

void dismiss(Thread&, Pool& pool) {
  Call(TeamOp::dismiss, &pool.team).make();
}

bool barrier(Thread& thread, bool cancellable, const void* site, std::uint64_t word,
             std::uint64_t* told) {
  for (;;) {
    finish_tasks(thread);
    Call call(TeamOp::barrier, thread.at.team);
    call.words[3] = word;
    call.words[4] = cancellable ? 1 : 0;
    call.words[5] = std::uint64_t(reinterpret_cast<std::uintptr_t>(site));
    const long result = call.make();
    if (run_if_task(thread, result, call.words)) continue;
    if (told != nullptr) *told = call.words[3];
    return result != 0;
  }
}

void cancel(Thread& thread) {
  Call(TeamOp::cancel, thread.at.team).make();
}

bool single(Thread& thread) {
  Call call(TeamOp::single, thread.at.team);
  call.words[3] = thread.at.singles_met++;
  return call.make() != 0;
}

// --- work shares --------------------------------------------------------------------------------

// Each member describes the construct for itself: all come with the same bounds. Only what they
// share besides iterations is told by the first.
void enter_loop(Thread& thread, const Iterations& iterations, Plan plan, const LoopExtras& extras) {
  Position& at = thread.at;
  WorkShare& share = member_share(*at.team, at.number);
  at.share_number = at.shares_met++;
  at.share = &share;
  at.trip = 0;
  describe_loop(share, iterations, plan.schedule, plan.chunk);
  share.batch = {};
  free_doacross(thread, share);  // of a loop that was cancelled
  share.ordered = extras.ordered;
  share.turn.store(0, std::memory_order_relaxed);
  share.scratch = nullptr;
  share.claimed = extras.reductions != nullptr || extras.scratch != nullptr;
  if (extras.dimensions != 0) describe_doacross(thread, share, extras.dimensions, extras.counts);
  if (!share.claimed) return;
  // Two words of memory that the program sees are shared: where scratch is, and the reductions.
  struct Shared {
    void* scratch;
    ReductionArray reductions;
  };
  std::size_t bytes = 0;
  if (extras.scratch != nullptr) std::memcpy(&bytes, extras.scratch, sizeof bytes);
  share.scratch_bytes = sizeof(Shared) + 48 + bytes;
  Call claim = of_construct(TeamOp::claim, thread);
  const bool first = claim.make() != 0;
  if (first) {
    share.scratch = thread.blocks.allocate(Side::program, share.scratch_bytes);
    std::memset(share.scratch, 0, share.scratch_bytes);
  } else {
    share.scratch = reinterpret_cast<void*>(std::uintptr_t(claim.words[3]));
  }
  auto& shared = *static_cast<Shared*>(share.scratch);
  if (extras.reductions != nullptr) {
    share.reductions = first ? nullptr : shared.reductions;
    begin_share_reductions(thread, extras.reductions, first);
    if (first) shared.reductions = share.reductions;
  }
  if (first) {
    Call publish = of_construct(TeamOp::publish, thread);
    publish.words[4] = std::uint64_t(reinterpret_cast<std::uintptr_t>(share.scratch));
    publish.make();
  }
  if (extras.scratch != nullptr) *extras.scratch = static_cast<char*>(share.scratch) + 64;
}

void leave_share(Thread& thread) {
  WorkShare& share = *thread.at.share;
  free_doacross(thread, share);
  if (share.claimed && of_construct(TeamOp::leave, thread).make() != 0)
    thread.blocks.free(Side::program, share.scratch, share.scratch_bytes);
  share.claimed = false;
  thread.at.share = nullptr;
}

// Several chunks at a time where they are short.
static bool take_chunk(Thread& thread, WorkShare& share, std::uint64_t& begin, std::uint64_t& end) {
  Batch& batch = share.batch;
  if (batch.begin == batch.end) {
    const bool is_guided = share.schedule == Schedule::guided;
    const std::uint64_t now = now_ns();
    if (batch.asked_ns != 0 && now - batch.asked_ns < kShortNs)
      batch.chunks = std::min(2 * batch.chunks, kMostChunks);
    else if (now - batch.asked_ns > kLongNs)
      batch.chunks = std::max<std::uint64_t>(batch.chunks / 2, 1);
    Call call = of_construct(TeamOp::next, thread);
    call.words[4] = share.iterations.count;
    call.words[5] = share.chunk;
    call.words[6] =
        std::uint64_t(share.schedule) | (share.doacross != nullptr ? kTeamWholeChunks : 0);
    call.words[7] = is_guided || share.ordered || share.doacross != nullptr ? 1 : batch.chunks;
    if (call.make() == 0) return false;
    batch.begin = call.words[3];
    batch.end = call.words[4];
    batch.asked_ns = now_ns();
    if (is_guided) {
      begin = batch.begin;
      end = batch.begin = batch.end;
      return true;
    }
  }
  begin = batch.begin;
  end = batch.end - begin > share.chunk ? begin + share.chunk : batch.end;
  batch.begin = end;
  return true;
}

void wait_for_turn(Thread& thread, std::uint64_t begin) {
  std::atomic<std::uint64_t>& seen = thread.at.share->turn;
  if (seen.load(std::memory_order_relaxed) == begin) return;
  await(thread, 0, begin);
  seen.store(begin, std::memory_order_relaxed);
}

void hand_on_turn(Thread& thread, std::uint64_t end) {
  post(thread, 0, end);
}

void post(Thread& thread, std::uint64_t counter, std::uint64_t value) {
  Call call = of_construct(TeamOp::post, thread);
  call.words[4] = counter;
  call.words[5] = value;
  call.make();
}

void await(Thread& thread, std::uint64_t counter, std::uint64_t value) {
  Call call = of_construct(TeamOp::await, thread);
  call.words[4] = counter;
  call.words[5] = value;
  call.make();
}

// --- locks --------------------------------------------------------------------------------------

std::uint64_t lock(const void* key, const void* owner) {
  Call call(TeamOp::lock, key);
  call.words[3] = std::uint64_t(reinterpret_cast<std::uintptr_t>(owner));
  return std::uint64_t(call.make());
}

std::uint64_t try_lock(const void* key, const void* owner) {
  Call call(TeamOp::try_lock, key);
  call.words[3] = std::uint64_t(reinterpret_cast<std::uintptr_t>(owner));
  return std::uint64_t(call.make());
}

void unlock(const void* key) {
  Call(TeamOp::unlock, key).make();
}

}  // namespace distant

bool next_distant_chunk(Thread& thread, WorkShare& share, std::uint64_t& begin,
                        std::uint64_t& end) {
  return distant::take_chunk(thread, share, begin, end);
}

}  // namespace krg::omp
