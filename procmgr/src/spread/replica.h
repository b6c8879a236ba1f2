// Replica: the address space that a spread process has on a node that is not its home, and the
// threads that run in it. It is a process of krgd's, in which nothing runs but those threads; its
// first thread, the keeper, stands in a stop for good and changes the mappings. No thread makes a
// system call here: each one stops before it (PTRACE_SYSEMU), and is carried out at home, but for
// those that need no kernel. A thread that gets a signal (it has touched what is not mapped here,
// say) goes home and does there what it was about to do.
//
// Threads: the loop's thread. Owned by ReplicaHost. Source: ptrace(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "image/image_installer.h"
#include "krg/procmgr/node_context.h"
#include "krg/shmem/page_set.h"
#include "processor_numbers.h"
#include "spread/breakpoints.h"
#include "spread/known_mapping.h"
#include "spread/spread_image.h"
#include "spread/spread_memory.h"
#include "spread/spread_messages.h"
#include "spread/team_phase.h"
#include "spread/traced_thread.h"
#include "spread/wait_policy.h"
#include "teams/local_barriers.h"

namespace krg {

class Replica {
 public:
  struct Parts {
    NodeContext& node;
    PageSet& pages;
    SetId set;
    NodeId home;
    WaitPolicy waiting;
    FaultSigns& signs;
  };
  // The number that the process has the page set's memory under.
  static constexpr int kMemoryFd = 3;

  // Maps the ranges and makes the keeper of the installed process. `ended` runs when the process
  // has died, whatever from. Errors: of the process's calls; it is killed then.
  static Result<std::unique_ptr<Replica>> create(Parts parts, InstalledProcess& installed,
                                                 const SpreadImage& image,
                                                 std::function<void()> ended);
  // Kills it.
  ~Replica();
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  pid_t pid() const { return keeper_->tid(); }
  // The number that a thread which runs here has at home; 0: none runs.
  pid_t thread_at_home(pid_t here) const;
  // Where in its program's parallel regions the thread is, by its number at home.
  TeamPhase phase_of(pid_t tid) const;
  // `done`: the mappings are so.
  void change(const ChangeMemory& change, std::function<void(Status)> done);
  // `done`: the thread runs here.
  void take(const SendThread& thread, ThreadState state, std::function<void(Status)> done);
  void recall(pid_t tid);
  // On these processors, by the node's own numbers.
  void bind(pid_t tid, const ProcessorSet& processors);
  // All threads stand still from now on; `done` when they do. They go on when each reason has gone.
  void hold(HoldThreads::Why why, std::function<void()> done);
  void release(HoldThreads::Why why);
  // Of those that stand.
  CapturedThreads captured_threads() const;
  // A debugger's (spread_messages.h).
  void set_breakpoint(const SetBreakpoint& ask);
  void step(const StepThread& ask);
  // Processor time since each thread came; of all that have ended here, by number 0.
  std::vector<ThreadUsage> usage() const;
  // Members of a team have passed a barrier, or may when they have come.
  void go(const TeamGo& tell, const LocalBarriers::Members& members);
  // From now on members of a team, in this region, may get tasks while they wait.
  void has_tasks(uint64_t team);
  // It waited for a futex.
  void woken(pid_t tid);

 private:
  struct Thread {
    pid_t tid = 0, pid = 0;  // of the thread and the process, at home
    std::unique_ptr<TracedThread> traced;
    bool awaits_answer = false, is_recalled = false;
    Patience::Claim patience;  // while it waits in a team call
    struct Wait {
      user_regs_struct call{};
      EventLoop::Timer timer;
      bool is_queued = false, is_leaving = false;
    };
    std::optional<Wait> wait;       // for a futex
    uint64_t calls = 0;             // that were sent home
    TeamWords asked{};              // its last team call
    user_regs_struct at_barrier{};  // while krgd combines members (LocalBarriers)
    TeamPhase phase;
    RemoteAddr met{};  // where it last touched what was not mapped
  };
  using ThreadPtr = std::shared_ptr<Thread>;
  using Job = std::function<void(std::function<void()> next)>;

  Replica(Parts parts, std::function<void()> ended) : parts_(parts), ended_(std::move(ended)) {}
  Status attach(UniqueFd userfaultfd, const SpreadRange& range);
  void enqueue(Job job);
  void run_next();
  void map(const SpreadRange& range, std::function<void(Status)> done);
  void ask_mapping(const ThreadPtr& thread);
  void learn(const ThreadPtr& thread, RemoteAddr address, uint64_t learnt_before,
             const KnownMapping& known);
  void learn_pages(const KnownMapping& known, RemoteAddr address,
                   const std::function<void(bool)>& done);
  void learn_file(const KnownMapping& known, std::function<void(bool)> done);
  void map_file(const KnownMapping& known, int64_t file, std::function<void(bool)> done);
  void start(const ThreadPtr& thread, pid_t task, ThreadState state,
             std::function<void(Status)> done);
  void on_stop(const ThreadPtr& thread, const TraceStop& stop);
  bool takes_trap(const ThreadPtr& thread);
  void tell_trap(const ThreadPtr& thread, bool at_breakpoint);
  void on_call(const ThreadPtr& thread);
  // `goes_on`: it was recalled, but makes this call first.
  void call_at_home(const ThreadPtr& thread, const user_regs_struct& call, bool goes_on = false);
  void take_answer(const ThreadPtr& thread, std::string_view reply);
  void answer(const ThreadPtr& thread, int64_t result);
  void begin_team_call(const ThreadPtr& thread, const user_regs_struct& call);
  bool begin_barrier(const ThreadPtr& thread, const user_regs_struct& call);
  void tell_arrivals(const LocalBarriers::Members& members, bool go_on);
  void let_go(const LocalBarriers::Members& members, uint64_t word);
  void leave_team(pid_t tid);
  void make_calls(const LocalBarriers::Members& members);
  void end_team_call(const ThreadPtr& thread, int64_t result, const TeamWords& words);
  bool begin_futex(const ThreadPtr& thread, const user_regs_struct& call);
  void wake(const ThreadPtr& thread, const user_regs_struct& call, uint32_t bits);
  bool begin_wait(const ThreadPtr& thread, const user_regs_struct& call, uint32_t bits);
  void wait(const ThreadPtr& thread, const user_regs_struct& call, uint32_t bits,
            std::optional<std::chrono::microseconds> limit);
  void look_at_word(const ThreadPtr& thread, std::function<void()> then);
  void leave(const ThreadPtr& thread, std::optional<int64_t> result);
  void end_wait(const ThreadPtr& thread, std::optional<int64_t> result);
  void send_home(const ThreadPtr& thread, bool makes_call_again);
  void end_thread(const ThreadPtr& thread);
  void end_here(const ThreadPtr& thread);
  void forget(const ThreadPtr& thread);
  std::optional<TaskTimes> times_of(const ThreadPtr& thread) const;

  const Parts parts_;
  std::function<void()> ended_;
  std::unique_ptr<TracedThread> keeper_;
  RemoteAddr instruction_{};
  SpreadMemory memory_;  // what is mapped
  SpreadMemory files_;   // the same of files; `first` means nothing
  bool has_scratch_ = false;
  unsigned held_for_ = 0;               // HoldThreads::Why
  uint64_t learnt_ = 0;                 // mappings, by asking
  std::map<pid_t, ThreadPtr> threads_;  // by their number at home
  CpuTime ended_used_;                  // by threads that have ended here
  LocalBarriers barriers_;
  Breakpoints breakpoints_;
  std::deque<Job> jobs_;  // of the keeper, the first one running
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace krg
