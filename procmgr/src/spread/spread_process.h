// SpreadProcess: a process of this node, its home, whose threads may run on other nodes. Its
// private memory is pages of a page set; every other node has a replica of its address space. krgd
// traces all of its threads. Each is at home, where it runs natively but for stops at its system
// calls, or away; then its original stands here in a stop and makes its system calls: with the
// registers that it has there, at the same instruction, so that the kernel does for it what it does
// for any thread (descriptors, futexes, signals, exit). A signal that has a handler brings the
// thread home.
//
// What changes mappings is watched: new private anonymous memory comes from the page set; a call
// returns when all replicas have the same mappings. What cannot be the same everywhere (shared
// mappings, new files) exists at home only: who touches it elsewhere goes home.
//
// Threads: the loop's thread, the tracer. Owned by Spreading.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/time.h>

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "ipc/futex_queues.h"
#include "krg/procmgr/node_context.h"
#include "krg/procmgr/thread_lender.h"
#include "krg/shmem/page_set.h"
#include "set_memory.h"
#include "spread/breakpoints.h"
#include "spread/call_arguments.h"
#include "spread/cpu_time.h"
#include "spread/cpu_timers.h"
#include "spread/fault_counts.h"
#include "spread/known_mapping.h"
#include "spread/saved_pages.h"
#include "spread/spread_memory.h"
#include "spread/spread_messages.h"
#include "spread/spread_processors.h"
#include "spread/spread_scratch.h"
#include "spread/team_phase.h"
#include "spread/traced_thread.h"
#include "spread/turn_trial.h"
#include "spread/wait_policy.h"
#include "teams/team_server.h"

struct clone_args;  // <linux/sched.h>
struct iovec;

namespace krg {

class FrozenProcess;
class Gathering;
class ShortTurns;
class SpreadChild;
class StandingSpread;
struct SpreadAgain;
struct SpreadStatistics;
struct MoreUsage;
struct UsageCall;

class SpreadProcess {
 public:
  struct Parts {
    NodeContext& node;
    std::shared_ptr<PageSet> pages;
    pid_t pid;
    SpreadMemory memory;
    int memory_fd;           // the process's number of the page set's memory
    RemoteAddr instruction;  // a `syscall` in it
    SpreadScratch scratch;
    std::vector<NodeId> nodes;                          // with a replica
    std::vector<SpreadRange> constants;                 // what the replicas have besides: files
    uint64_t brk;                                       // where the heap ends
    std::shared_ptr<SpreadStatistics> statistics = {};  // none: nobody wants them
    bool multiple_writers = false;
    std::vector<SpreadRange> one_writer = {};  // what is never to have several
    std::shared_ptr<SpreadProcessors> processors = {};
    WaitPolicy waiting = {};                        // of its teams' members
    std::array<itimerval, 3> interval_timers = {};  // those of processor time are krgd's now
    // Threads come home where several nodes do not pay, which this is told; none: they stay.
    std::function<void()> on_gathered = {};
    // What it has used on other nodes, which its parent's kernel does not know, before its end.
    std::function<void(pid_t pid, const CpuTime&)> charge = [](pid_t, const CpuTime&) {};
    // What its children used on other nodes: one that it has waited for, or (0) all of them.
    std::function<CpuTime(pid_t pid, pid_t child)> of_children = [](pid_t, pid_t) {
      return CpuTime();
    };
  };

  using Done = std::function<void(Status)>;

  // `ended` runs when the process has no thread any more, or is another program's.
  SpreadProcess(Parts parts, std::function<void()> ended);
  ~SpreadProcess();
  SpreadProcess(const SpreadProcess&) = delete;
  SpreadProcess& operator=(const SpreadProcess&) = delete;

  // Takes over its threads, which stand in kTrap stops, and places them: the first stays. `again`:
  // it was spread before, and its threads go where they were; null: it was not. Error: EBADMSG.
  Status begin(const std::vector<pid_t>& tids, const SpreadAgain* again = nullptr);

  pid_t pid() const { return parts_.pid; }
  SetId set() const { return parts_.pages->id(); }
  // When it has ended: to be dropped when the other nodes have.
  std::shared_ptr<PageSet> take_pages() { return std::move(parts_.pages); }
  std::shared_ptr<SpreadStatistics> statistics() const { return parts_.statistics; }
  const std::vector<NodeId>& nodes() const { return parts_.nodes; }
  // Where a thread runs; nothing when it is none of the process's.
  std::optional<NodeId> place_of(pid_t tid) const;
  std::vector<pid_t> threads() const;
  // Where memory of the process lies in the page set, if it does.
  std::optional<PlaceInSet> find(RemoteAddr address) const;

  // Processor time on other nodes: of the process, and of each of its threads that has been there;
  // the state of those that are.
  struct Usage {
    CpuTime process;
    std::map<pid_t, TaskTimes> threads = {};
    FaultSum faults = {};  // of other nodes
  };
  // `only`: what that node has to tell, and what others have told before.
  void usage(std::function<void(const Usage&)> done, std::optional<NodeId> only = std::nullopt);
  // A thread has come home, and used so much there.
  void visited(NodeId node, pid_t tid, const CpuTime& used);
  // Stopped as a whole, by a signal.
  bool is_stopped() const { return is_stopped_; }

  // The processors that a thread has been bound to since the process was spread, as far as its node
  // has them, by the cluster's numbers; nothing: to none, or it is none of its threads.
  std::optional<ProcessorSet> affinity_of(pid_t tid) const;
  // ThreadLender's. REQUIRES: the call is one of its threads'.
  void lend(SyscallBroker::Call call, ThreadLender::Borrowed borrowed);
  // Has a thread run on another node, or here. `done`: it does. Errors: ESRCH; ENOTSUP with the
  // reason, the thread going on where it was.
  void move(pid_t tid, NodeId target, Done done);

  void call(const CallAtHome& ask, const user_regs_struct& registers, Messenger::Reply reply);
  void returned(pid_t tid, ThreadState state);
  // Members of a team that run on another node have come to a barrier.
  void arrived(NodeId from, std::vector<ArrivedMember> members, bool have_gone_on);
  // For a replica that has met an address that it does not know.
  KnownMapping mapping_at(NodeId asker, RemoteAddr address);
  // Futexes of threads elsewhere, by address. Whether it still waited; how many were woken, EAGAIN:
  // the kernel has to be asked, too.
  void queue_futex(NodeId from, const QueueFutex& ask);
  bool leave_futex(NodeId from, pid_t tid);
  Result<int64_t> wake_futex(const WakeFutex& ask);
  // For a debugger: all threads stand still, wherever they are, till go_on() or release(). Errors:
  // EBUSY (another one's); EAGAIN: a fork or a capture is under way, or a thread does not stand.
  struct Held {
    pid_t tid;
    NodeId node;
    std::optional<ThreadState> state;  // none: it is on its way between two nodes
  };
  void hold(std::function<void(Result<std::vector<Held>>)> done);
  bool is_held() const { return inspection_ && !inspection_->goes_on; }
  // They go on till hold(). `step` is the thread that makes one step, 0 for none; `alone`: it alone
  // goes on. `trapped` is told once, of the first that has made it or has met a breakpoint; of
  // thread 0 when the process has ended, or has become another program's.
  // REQUIRES: they are held.
  struct Trap {
    pid_t tid = 0;
    bool at_breakpoint = false;
    int end_status = 0;  // as wait(2) tells it
  };
  void go_on(pid_t step, bool alone, std::function<void(const Trap&)> trapped);
  void trapped(pid_t tid, bool at_breakpoint);
  // Errors: EIO where nothing is mapped; ENOTSUP: in code that the process has written itself.
  // REQUIRES: they are held.
  void set_breakpoint(RemoteAddr at, bool is_set, Done done);
  // The debugger has gone, and with it its breakpoints.
  void release();
  // What the program would find there. Errors: EFAULT.
  void read_memory(RemoteAddr start, size_t bytes, std::function<void(Result<std::string>)> done);
  // Errors: EFAULT where the threads have no memory in common that may be written.
  void write_memory_of_all(RemoteAddr start, std::string_view bytes, Done done);
  void take_writers_message(NodeId from, std::string_view message) {
    parts_.pages->take_writers_message(from, message);
  }
  // For a capture: all threads stand still, wherever they are, in states that can be had again.
  // Errors: EBUSY (a debugger looks at it, or another capture); ENOTSUP, ETIMEDOUT with the reason,
  // all going on.
  using Standing = std::function<void(Result<std::shared_ptr<StandingSpread>>)>;
  void stand(Standing done);
  // Kills it: what it needs is lost.
  void fail(const std::string& why);

 private:
  static constexpr long kTraceOptions =
      PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
  // kArming: on its way to kArmed, where it stands at the kernel's door (in the stop before a
  // system call): what it is to do for itself elsewhere takes one stop more. kBehindCall: it has
  // made a call for itself, but has been recalled meanwhile.
  // kDisarming: on its way from the door, to be stopped as the whole process is.
  enum class Stands {
    kRunning,
    kArming,
    kArmed,
    kDisarming,
    kLeaving,
    kAtSignal,
    kInTeamCall,
    kBehindCall
  };
  struct Returning;
  struct Thread {
    std::unique_ptr<TracedThread> traced;
    NodeId node;  // where it runs
    Stands stands = Stands::kRunning;
    bool is_new = false;  // its first stop is to come
    bool is_recalled = false;
    bool is_in_call = false;  // of itself elsewhere
    bool is_exiting = false;
    int signal = 0;                        // kAtSignal
    std::optional<Messenger::Reply> call;  // that it makes for itself elsewhere
    user_regs_struct called{};             // with what
    std::optional<ThreadState> returned;   // it runs here as soon as it stands
    struct Move {
      NodeId target;
      Done done;
    };
    std::optional<Move> move;  // that was asked for
    // Of the system call that it is in.
    user_regs_struct entry{};       // as the program made it
    uint64_t number = 0;            // as the kernel is to carry it out
    std::optional<int64_t> result;  // instead of the kernel's
    bool has_changed_arguments = false;
    std::optional<SpreadRange> maps;  // what it maps
    ThreadLender::Borrowed borrower;  // who is to have it when it comes from its call
    std::vector<LentArgument> loans;  // that the call is made with
    size_t woken = 0;                 // waiters that krgd has woken before the kernel does
    bool waits = false;               // for a futex, here
    bool waits_natively = false;      // for one, in a call from before the process was spread
    std::optional<user_regs_struct> interrupted_wait;  // that the kernel remembers
    uint64_t slot = 0;                                 // its word of scratch memory
    std::optional<uint64_t> tid_address;               // set_tid_address(2); none: not known here
    std::optional<uint64_t> new_tid_address;           // of the thread that it is making
    unsigned brought = 0;                              // times that its call's memory was brought
    std::optional<ProcessorSet> affinity;  // that was asked for; by the cluster's numbers
    std::map<NodeId, CpuTime> visits;      // what it used there, when it has come home
    TeamPhase phase;
    bool forks = false;        // stands behind a fork that was none
    Patience::Claim patience;  // while it is in a team call
    bool is_gone = false;
  };
  using ThreadPtr = std::shared_ptr<Thread>;
  struct Fork {  // under way: all other threads stand still
    ThreadPtr thread;
    user_regs_struct call;
    std::vector<SpreadRange> ranges;  // that the child does not get from the kernel
    size_t next = 0;
    pid_t child = 0;
    std::shared_ptr<SpreadChild> filled = {};
    EventLoop::Timer limit;
  };

  struct Inspection {  // by a debugger
    std::map<pid_t, ThreadState> elsewhere;
    std::function<void(Result<std::vector<Held>>)> done;
    EventLoop::Timer limit;
    bool goes_on = false;  // they are not held
    std::function<void(const Trap&)> trapped;
    pid_t stepping = 0;
    bool alone = false;
    Breakpoints breakpoints;
    std::map<RemoteAddr, KnownMapping> files;  // with breakpoints, as they were without, by start
  };
  struct Reading;

  struct Capture;  // under way, or done: it stands
  struct CapturedThreadAtHome;
  class StandingProcess;
  enum class Rest { kRests, kIsAboutToRest, kIsBusy };

  ThreadPtr add(pid_t tid, bool is_new);
  void on_stop(const ThreadPtr& thread, const TraceStop& stop);
  void on_trap(const ThreadPtr& thread, const TraceStop& stop);
  void on_signal(const ThreadPtr& thread, int signal);
  void on_event(const ThreadPtr& thread, int event);
  void on_exec(const ThreadPtr& thread);
  void on_gone(pid_t tid);
  void resume(const ThreadPtr& thread, int signal = 0);
  void arm(const ThreadPtr& thread);
  void on_armed(const ThreadPtr& thread);
  void leave(const ThreadPtr& thread);

  void on_entry(const ThreadPtr& thread);
  void on_entry(const ThreadPtr& thread, const user_regs_struct& registers);
  void begin_call(const ThreadPtr& thread, const user_regs_struct& registers);
  void skip(const ThreadPtr& thread, int64_t result);
  void answer(const ThreadPtr& thread, int64_t result);
  void change_call(const ThreadPtr& thread, const user_regs_struct& call);
  Status grow();
  void begin_map(const ThreadPtr& thread);
  void begin_remap(const ThreadPtr& thread);
  void begin_advice(const ThreadPtr& thread);
  void begin_exit(const ThreadPtr& thread);
  struct RobustList;
  void free_robust_mutexes(const ThreadPtr& thread, std::function<void()> done);
  void free_robust_mutex(const ThreadPtr& thread, const std::shared_ptr<RobustList>& list,
                         uint64_t link);
  void begin_exit_call(const ThreadPtr& thread);
  void forget_tid_address(const ThreadPtr& thread);
  void clear_tid(const ThreadPtr& thread);
  void exit(const ThreadPtr& thread);
  bool has_bound_itself(pid_t tid) const;
  void note_binding(const ThreadPtr& thread);
  void begin_affinity(const ThreadPtr& thread);
  void bind(const ThreadPtr& thread, const ThreadPtr& target, const ProcessorSet& wanted);
  void bind_elsewhere(const ThreadPtr& thread);
  void begin_clone3(const ThreadPtr& thread);
  void begin_fork3(const ThreadPtr& thread, const clone_args& arguments);

  void begin_stop();
  void end_stop();
  void stop_standing(pid_t tid, const ThreadPtr& thread);
  void tell_held();
  void let_go_on();
  void hold_to_release();
  void step_here(const ThreadPtr& thread);
  bool takes_trap(const ThreadPtr& thread);
  void tell_of_breakpoint(RemoteAddr at, bool is_set, std::function<void()> done);
  const KnownMapping* file_with_breakpoints(RemoteAddr address) const;
  void read_next(const std::shared_ptr<Reading>& reading);

  void try_to_stand();
  void hold_for_capture();
  void ask_elsewhere();
  void look_whether_all_rest();
  void try_later();
  Rest rest_of(const ThreadPtr& thread, CapturedThreadAtHome& captured) const;
  Rest rest_at_home(const ThreadPtr& thread, CapturedThreadAtHome& captured) const;
  Rest rest_elsewhere(const ThreadPtr& thread, CapturedThreadAtHome& captured) const;
  bool waits_for_its_turn(const ThreadPtr& thread) const;
  void take_up();
  Result<std::shared_ptr<FrozenProcess>> take_threads();
  void leave_entry(const CapturedThreadAtHome& captured);
  void go_on(const std::shared_ptr<FrozenProcess>& process);
  void end_capture();
  void give_up_capture(Error why);
  // All threads stand, and nobody but the capture may touch them.
  bool is_standing() const;
  // Whether what has come is to be done when they go on again.
  bool is_put_off(std::function<void()> what);
  std::unique_ptr<TracedThread> traced(pid_t tid, const ThreadPtr& thread);

  void begin_fork(const ThreadPtr& thread, const user_regs_struct& call);
  void hold_others(const ThreadPtr& thread, std::function<void()> done);
  void fork_next(const ThreadPtr& thread);
  void make_child(const ThreadPtr& thread);
  void fill_child(const ThreadPtr& thread, int64_t result);
  void finish_fork(const ThreadPtr& thread, int64_t result);
  void end_fork();

  SharedPlace futex_place(RemoteAddr address) const;
  IpcTicket ticket_of(pid_t tid, NodeId node) const;
  IpcTicket own_ticket(const ThreadPtr& thread) const {
    return ticket_of(thread->traced->tid(), parts_.node.self);
  }
  void begin_futex(const ThreadPtr& thread);
  void begin_wait(const ThreadPtr& thread, uint64_t bits);
  void begin_wait_for_any(const ThreadPtr& thread);
  void begin_restart(const ThreadPtr& thread);
  bool end_wait(const ThreadPtr& thread, user_regs_struct& registers);
  size_t wake_futex(RemoteAddr address, uint32_t count, uint32_t bits);
  void requeue(const ThreadPtr& thread);
  void begin_wake_op(const ThreadPtr& thread);
  bool has_native_waiters() const;
  // Calls `use` with the word, in the same moment in which nobody else changes it.
  void with_word(const ThreadPtr& thread, RemoteAddr address, std::function<void(uint32_t)> use);

  static bool is_fatal(pid_t tid, int signal);
  void add_usage_of(NodeId node, std::string_view answer, Usage& sum) const;
  void add_usage(const ThreadPtr& thread, uint64_t result);
  void add_waited_usage(const ThreadPtr& thread, const UsageCall& call);
  void add_own_usage(const ThreadPtr& thread, const UsageCall& call);
  void add_to_answer(const ThreadPtr& thread, const UsageCall& call, const MoreUsage& more);
  void charge_parent(const ThreadPtr& thread, std::function<void()> then);
  void look_at_limit();
  void begin_timer_call(const ThreadPtr& thread);
  void answer_timer_call(const ThreadPtr& thread, const CpuTime& used, const itimerval* timer);
  void await_timers();
  void look_at_timers();
  CpuTime used_here() const;
  bool is_last(const ThreadPtr& thread) const;

  void allow_multiple_writers();
  void note_writers(RemoteAddr start, uint64_t bytes, bool one_writer);

  void watch_faults();
  // For the statistics, if they are wanted.
  FaultCounts* counts();
  void count_team_call(const ThreadPtr& thread, const TeamWords& asked);
  void count_phase(const ThreadPtr& thread);
  void name_memory(RemoteAddr start, uint64_t bytes, const std::string& name);
  void name_stack(const ThreadPtr& thread);

  void begin_team_call(const ThreadPtr& thread);
  void resume_behind_team_call(const ThreadPtr& thread);
  void on_emulated_entry(const ThreadPtr& thread);
  void let_go(NodeId node, uint64_t team, const std::vector<pid_t>& members, uint64_t word);
  bool let_last_go(const TeamServer::LastNode& last);
  void tell_of_tasks(uint64_t team);
  void begin_phase(const ThreadPtr& thread);
  void begin_phases();
  void answer_team_call(const ThreadPtr& thread, const user_regs_struct& registers,
                        Messenger::Reply reply);

  class LentThread;
  void on_exit(const ThreadPtr& thread);
  void give_to_borrower(const ThreadPtr& thread);
  void take_back(const ThreadPtr& thread, int64_t result, std::vector<SpreadRange> changed);
  uint64_t usable(RemoteAddr start, uint64_t bytes, uint32_t protection) const;
  void begin_loans(const ThreadPtr& thread);
  void lend_next(const ThreadPtr& thread, const std::shared_ptr<std::vector<CallArgument>>& wanted);
  void end_loans(const ThreadPtr& thread);
  // What cannot be written is left out.
  void write_memory(RemoteAddr to, std::string_view bytes, std::function<void()> done);
  void return_next(const std::shared_ptr<Returning>& returning);
  bool lacks_memory(const ThreadPtr& thread, const user_regs_struct& registers);
  void bring_memory(const ThreadPtr& thread, size_t argument);
  void call_again(const ThreadPtr& thread);
  void bring_vector(const ThreadPtr& thread);
  void bring_piece(const ThreadPtr& thread, const std::shared_ptr<std::vector<iovec>>& pieces);
  void populate(const ThreadPtr& thread, RemoteAddr start, uint64_t bytes, int advice,
                std::function<void()> done);
  void after_call(const ThreadPtr& thread, uint64_t result);
  void after_map(const ThreadPtr& thread, RemoteAddr at);
  void after_shrink(const ThreadPtr& thread);
  // Calls that change mappings, and forks, are carried out one after the other: what is known of
  // them here changes after the kernel has changed them, and another call must not find it in
  // between. False: the thread's turn comes later, on_entry() again.
  bool begin_change(const ThreadPtr& thread);
  void end_change(const ThreadPtr& thread);
  void after_brk(const ThreadPtr& thread, uint64_t result);
  // Puts pages of the set, with the same contents, where the process has mapped private memory.
  void convert(const ThreadPtr& thread, SpreadRange range, bool has_contents,
               std::function<void()> done);
  void put_pages(const ThreadPtr& thread, const SpreadRange& range, std::function<void()> done);
  void move_pages(const ThreadPtr& thread, RemoteAddr to);
  void move_next(const ThreadPtr& thread, const std::shared_ptr<std::vector<SpreadRange>>& ranges);
  void unmap_everywhere(RemoteAddr start, uint64_t bytes, std::function<void()> done);
  void protect_everywhere(RemoteAddr start, uint64_t bytes, uint32_t protection,
                          std::function<void()> done);
  void finish(const ThreadPtr& thread);

  NodeId choose_node() const;
  void runs_on(const ThreadPtr& thread, NodeId node);
  void place(const ThreadPtr& thread, NodeId node);
  std::map<pid_t, NodeId> places_again(const std::vector<pid_t>& tids,
                                       const SpreadAgain& again) const;
  void send_away(const ThreadPtr& thread, NodeId node);
  // Whether it has yet to be sent.
  static bool is_to_move(const ThreadPtr& thread) {
    return thread->move && thread->move->target != thread->node;
  }
  void begin_move(const ThreadPtr& thread, NodeId target, Done done);
  void go_on_move(const ThreadPtr& thread);
  void stand_for_move(const ThreadPtr& thread);
  static void end_move(const ThreadPtr& thread, const Status& moved);
  void stay_in_call(const ThreadPtr& thread);
  void begin_gathering();
  void stop_gathering();
  void look_whether_it_pays();
  void take_advice(const Usage& elsewhere);
  int64_t computed_at_home() const;  // ns
  ProcessorSet processors_at_home() const;
  void take_short_turns();
  void gather();
  void spread_again();
  void recall(const ThreadPtr& thread);
  // Those that show something there.
  void tell_replicas(const ChangeMemory& change, std::function<void()> done);
  void introduce(NodeId node, const SpreadRange& range);
  void free_pages(const std::vector<SpreadRange>& ranges);
  void look_for_signals();
  void end();

  Parts parts_;
  std::function<void()> ended_;
  std::map<pid_t, ThreadPtr> threads_;
  std::map<NodeId, unsigned> threads_on_;  // those that have begun
  TeamServer teams_;
  std::map<uint64_t, std::vector<pid_t>> may_go_;  // by team: who was told before they had come
  std::vector<std::weak_ptr<Thread>> beginning_;   // a phase, in a moment
  std::vector<pid_t> arriving_;                    // who has come by the message being handled
  EventLoop::Timer signals_timer_, limit_timer_;
  size_t signals_turn_ = 0;  // whose waiting signals are read next, of many
  bool has_ended_ = false;
  bool is_stopped_ = false;  // by a signal
  FutexQueues futexes_;
  SpreadMemory one_writer_;               // memory that is never to have several
  std::map<NodeId, SpreadMemory> known_;  // what replicas show, by node; `first` means nothing
  uint64_t next_slot_ = 0;
  ThreadPtr changer_;               // of mappings
  std::deque<ThreadPtr> changers_;  // that wait for it
  std::shared_ptr<Fork> fork_;
  std::shared_ptr<Inspection> inspection_;
  std::shared_ptr<Capture> capture_;
  SavedPages saved_;                                     // of the last one
  ThreadPtr capture_turn_ = std::make_shared<Thread>();  // none: who changes mappings then
  uint64_t answers_ = 0;                                 // to threads elsewhere
  std::map<NodeId, CpuTime> visits_;                     // of threads that have come home
  int end_status_ = 0;                                   // of its main thread
  CpuTime charged_;                                      // to its parent
  CpuTimers cpu_timers_;
  EventLoop::Timer cpu_timers_look_;
  CpuTime used_;                          // everywhere, at the last look
  std::unique_ptr<Gathering> gathering_;  // none: threads stay where they are
  EventLoop::Timer gathering_timer_;
  std::shared_ptr<FaultSigns> signs_ = std::make_shared<FaultSigns>();  // of faults here
  uint64_t stops_ = 0;                                                  // of threads here
  TurnTrial turn_trial_;
  std::unique_ptr<ShortTurns> short_turns_;  // of gathered threads
  bool is_asked_for_usage_ = false;
  std::map<pid_t, NodeId> gathered_from_;
  int64_t computed_gathered_ = 0;  // ns, of them at home till the last look
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace krg
