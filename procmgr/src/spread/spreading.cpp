// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/spreading.h"

#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <deque>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "clone_call.h"
#include "image/frozen_process.h"
#include "krg/procmgr/allocation_call.h"
#include "krg/procmgr/fork_sight.h"
#include "krg/procmgr/team_call.h"
#include "krg/runtime/log.h"
#include "process_environment.h"
#include "process_status.h"
#include "set_memory.h"
#include "spread/allocation_book.h"
#include "spread/gathered_processes.h"
#include "spread/replica_host.h"
#include "spread/spread_again.h"
#include "spread/spread_debuggers.h"
#include "spread/spread_process.h"
#include "spread/spread_start.h"
#include "spread/spread_statistics.h"
#include "spread/spread_texts.h"
#include "spread/spread_writers.h"
#include "spread/standing_spread.h"

namespace krg {
namespace {

constexpr uint64_t kFirstSet = uint64_t{0x5350} << 48;  // among all sets of the cluster
constexpr size_t kFirstPages = 16384;
constexpr size_t kMostCounted = 64;  // processes whose statistics nobody has asked for yet

CpuTime cpu_time_of(const std::optional<struct rusage>& usage) {
  if (!usage) return {};
  const auto ns = [](const timeval& t) { return t.tv_sec * 1'000'000'000L + t.tv_usec * 1000; };
  return {ns(usage->ru_utime), ns(usage->ru_stime)};
}

}  // namespace

struct Spreading::Impl {
  using Call = SyscallBroker::Call;

  Impl(Parts p, UserfaultSource s)
      : parts(std::move(p)),
        source(std::move(s)),
        replicas(parts.node, parts.kddm, parts.broker, parts.table, source, parts.resources,
                 parts.patience),
        debuggers([this](pid_t pid) { return find_process(pid); }),
        texts([this](pid_t tid) { return find_process_of(tid); }) {}

  void take_calls();
  void take_messages();
  bool may_be_spread(pid_t pid, bool is_asked) const;
  void answer_whether_spread(pid_t pid, Call call);
  void note_allocation(pid_t pid, Call call);
  void begin(pid_t pid, Call call);
  // A process whose page set the nodes open.
  struct Opening {
    Call call;
    std::unique_ptr<PageSet> pages;
    std::vector<NodeId> nodes;
    bool multiple_writers = false;
    Patience::Kind patience = Patience::Kind::kUsual;
    std::string gathers_for = {};  // a job; empty: for none
    size_t left = 1;
  };
  void start(pid_t pid, Opening opening);
  void on_started(pid_t pid, const std::shared_ptr<SpreadStart>& start,
                  Result<SpreadStart::Spread> spread);
  void ended(uint64_t set);
  void drop(std::shared_ptr<PageSet> pages, std::shared_ptr<SpreadStatistics> statistics = {});
  void tell_statistics();
  // A process that is to be spread again. Its main thread asks for it, for only a call of its own
  // can bring it descriptors; the others stand meanwhile.
  struct Restoring {
    SpreadAgain again;
    RemoteAddr instruction;
    std::vector<pid_t> tids;
    std::function<void(Status)> done;
    std::unique_ptr<TracedThread> asker;
    std::shared_ptr<SpreadStart> start;  // once it has asked
  };
  using RestoringPtr = std::shared_ptr<Restoring>;
  void restore(FrozenProcess& process, const RestoringPtr& restoring);
  void has_asked(pid_t pid, const RestoringPtr& restoring);
  void restored(pid_t pid, const Status& how);
  SpreadProcess* find(uint64_t set) const;
  SpreadProcess* find_process(pid_t pid) const;
  SpreadProcess* find_process_of(pid_t tid) const;
  void charge(pid_t pid, const CpuTime& used);

  const Parts parts;
  const UserfaultSource source;
  ReplicaHost replicas;
  SpreadDebuggers debuggers;
  SpreadTexts texts;
  GatheredProcesses gathered;
  std::map<uint64_t, std::unique_ptr<SpreadProcess>> processes;
  std::map<pid_t, uint64_t> decided;  // processes that need not be looked at, by their start time
  std::set<pid_t> starting;           // being spread
  std::map<pid_t, RestoringPtr> restoring;
  uint32_t next_set = 1;
  // Of processes that live, or whose other nodes have yet to tell theirs; and of those that have
  // ended.
  std::set<uint64_t> one_writer_instead;  // of several, which were asked for
  std::map<uint64_t, std::shared_ptr<SpreadStatistics>> counting;
  const bool sees_forks = has_to_see_forks();
  AllocationBook allocations;  // of processes that have yet to be spread
  std::deque<std::shared_ptr<SpreadStatistics>> counted;
  struct Question {
    std::string job;
    ControlServer::Reply reply;
  };
  std::deque<Question> questions;  // that wait for them
};

// --- a process that makes a thread --------------------------------------------------------------

void Spreading::Impl::take_calls() {
  parts.broker.set_handler(SYS_clone3, [this](Call call) {
    auto process = read_process_status(call.tid());
    if (!process) return call.go_on();
    if (call.arg(0) == kTellsAllocation) return note_allocation(process->pid, std::move(call));
    const bool is_asked = call.arg(0) == kAskToSpread;
    if (restoring.contains(process->pid)) return begin(process->pid, std::move(call));
    if (may_be_spread(process->pid, is_asked)) return begin(process->pid, std::move(call));
    if (is_asked) return answer_whether_spread(process->pid, std::move(call));
    // A fork that krgd has to see is made by clone(2).
    sees_forks && !shares_memory(call) ? call.fail(ENOSYS) : call.go_on();
  });
  parts.broker.add_memory_guard(
      memory_of_sets([this] { return !processes.empty(); },
                     [this](pid_t pid, RemoteAddr at) -> std::optional<PlaceInSet> {
                       const SpreadProcess* process = find_process(pid);
                       if (!process) return {};
                       return process->find(at);
                     }));
}

// Who asks needs to be permitted, who only makes a thread has the capability effective.
bool Spreading::Impl::may_be_spread(pid_t pid, bool is_asked) const {
  const auto sets = parts.capabilities.of(pid);
  if (!sets) return false;
  if (!(is_asked ? sets->permitted : sets->effective).has(Capability::kDistantThread)) return false;
  auto tracer = read_tracer(pid);
  if (!tracer || *tracer != 0) return false;
  auto known = decided.find(pid);
  return known == decided.end() || known->second != process_start_time(pid);
}

void Spreading::Impl::answer_whether_spread(pid_t pid, Call call) {
  for (const auto& [set, process] : processes)
    if (process->pid() == pid)
      return call.succeed(one_writer_instead.contains(set) ? kHasOneWriter : kIsSpread);
  call.fail(starting.count(pid) > 0 ? EAGAIN : ENOTSUP);
}

void Spreading::Impl::note_allocation(pid_t pid, Call call) {
  MemoryNames::Allocation told{.start = RemoteAddr{call.arg(2)},
                               .bytes = call.arg(3),
                               .goes_on = call.arg(1) > 1,
                               .sites = {}};
  for (uint64_t two : {call.arg(4), call.arg(5)})
    for (uint64_t site : {two & UINT32_MAX, two >> 32})
      if (site != 0) told.sites.push_back(site);
  call.succeed(0);
  SpreadProcess* process = find_process(pid);
  if (!process) return allocations.add(pid, std::move(told));
  if (auto statistics = process->statistics()) statistics->names.add(told);
}

// The caller waits meanwhile; then its thread is made, and the process frozen.
void Spreading::Impl::begin(pid_t pid, Call call) {
  std::erase_if(decided,
                [](const auto& entry) { return process_start_time(entry.first) != entry.second; });
  decided[pid] = process_start_time(pid);
  starting.insert(pid);
  NodeContext& node = parts.node;
  const SetId set{kFirstSet | static_cast<uint64_t>(node.self.value) << 32 | next_set++};
  auto made =
      PageSet::create(node.loop, parts.kddm, set, kFirstPages, spread_pages(node, node.self));
  if (!made) {
    starting.erase(pid);
    log_warn("spread", "pid {}: {}", pid, made.error().message());
    return call.go_on();
  }
  auto opening = std::make_shared<Opening>(Opening{std::move(call), std::move(*made), {}});
  const auto answered = [this, pid, opening] {
    if (--opening->left == 0) start(pid, std::move(*opening));
  };
  OpenSpreadSet ask;
  ask.set = set.value;
  ask.pages = opening->pages->pages();
  opening->multiple_writers = wants_multiple_writers(pid);
  opening->patience = patience_of_process(pid);
  opening->gathers_for = environment_variable(pid, "KRG_GATHER").value_or("");
  if (const auto again = restoring.find(pid); again != restoring.end())
    opening->gathers_for = again->second->again.gathers_for(opening->gathers_for);
  ask.multiple_writers = opening->multiple_writers;
  ask.patience = static_cast<uint8_t>(opening->patience);
  if (!opening->multiple_writers && asks_for_multiple_writers(pid))
    one_writer_instead.insert(set.value);
  if (auto statistics = SpreadStatistics::wanted_by(pid)) {
    counting[set.value] = std::make_shared<SpreadStatistics>(std::move(*statistics));
    ask.counts = 1;
  }
  for (unsigned i = 0; i < node.node_count; ++i) {
    const NodeId other{static_cast<uint16_t>(i)};
    if (other == node.self || node.messenger.is_failed(other)) continue;
    ++opening->left;
    node.messenger.request(other, ask, {},
                           [this, other, opening, answered](Result<std::string> reply) {
                             if (reply && parts.is_online(other)) opening->nodes.push_back(other);
                             answered();
                           });
  }
  answered();
}

void Spreading::Impl::start(pid_t pid, Opening opening) {
  auto& [call, pages, nodes, multiple_writers, patience, gathers_for, left] = opening;
  int memory_there = -1, device_there = -1;
  const auto again = restoring.find(pid);
  if ((!nodes.empty() || again != restoring.end()) && call.is_valid()) {
    if (auto there = call.add_fd(pages->memory())) memory_there = *there;
    if (source.device() >= 0)
      if (auto there = call.add_fd(source.device())) device_there = *there;
  }
  call.go_on();
  if (memory_there < 0) {
    starting.erase(pid);
    return drop(std::move(pages));
  }
  SpreadStart::Request request{parts.node,
                               source,
                               pid,
                               std::move(pages),
                               std::move(nodes),
                               memory_there,
                               device_there,
                               multiple_writers,
                               {&parts.patience, patience},
                               gathered.reporter(gathers_for, pid),
                               again != restoring.end()};
  // Threads that wait in krgd's hand come out of it, and ask again when they are spread.
  const auto claim = std::make_shared<Result<ProcessTable::Claim>>(parts.table.claim(pid));
  if (*claim) (*claim)->end_waits();
  auto holder = std::make_shared<std::shared_ptr<SpreadStart>>();
  *holder = std::make_shared<SpreadStart>(
      std::move(request), [this, pid, holder, claim](Result<SpreadStart::Spread> spread) {
        on_started(pid, std::exchange(*holder, nullptr), std::move(spread));
      });
  if (again == restoring.end()) return std::shared_ptr<SpreadStart>(*holder)->begin();
  again->second->start = *holder;
}

void Spreading::Impl::on_started(pid_t pid, const std::shared_ptr<SpreadStart>& start,
                                 Result<SpreadStart::Spread> spread) {
  starting.erase(pid);
  if (!spread) {
    log_warn("spread", "pid {} stays on this node: {}", pid, spread.error().message());
    restored(pid, spread.error());
    return drop(start->take_pages());
  }
  const uint64_t set = spread->parts.pages->id().value;
  if (auto found = counting.find(set); found != counting.end())
    spread->parts.statistics = found->second;
  const auto told = allocations.take(pid);
  if (spread->parts.statistics)
    for (const auto& allocation : told) spread->parts.statistics->names.add(allocation);
  const auto sets = parts.capabilities.of(pid);
  if (!sets || !sets->effective.has(Capability::kSeeLocalProcStat))
    spread->parts.processors = std::make_shared<SpreadProcessors>(parts.resources);
  spread->parts.charge = [this](pid_t charged, const CpuTime& used) { charge(charged, used); };
  spread->parts.of_children = [this](pid_t parent, pid_t child) {
    return cpu_time_of(parts.of_children(parent, child));
  };
  auto& process = processes[set];
  process = std::make_unique<SpreadProcess>(std::move(spread->parts), [this, set] { ended(set); });
  const auto again = restoring.find(pid);
  const Status begun =
      process->begin(spread->tids, again != restoring.end() ? &again->second->again : nullptr);
  if (!begun) process->fail(begun.error().message());
  restored(pid, begun);
}

// --- a process that was spread before -----------------------------------------------------------

void Spreading::Impl::restore(FrozenProcess& process, const RestoringPtr& restoring_one) {
  const pid_t pid = process.pid();
  const auto refuse = [&](const Error& why) {
    process.kill();
    restoring_one->done(why);
  };
  auto instruction = process.instruction();
  if (!instruction) return refuse(instruction.error());
  restoring_one->instruction = *instruction;
  auto tids = process.hand_over();
  if (!tids) return refuse(tids.error());
  restoring_one->tids = std::move(*tids);
  restoring[pid] = restoring_one;
  restoring_one->asker =
      std::make_unique<TracedThread>(*parts.node.children, pid, [this, pid](const TraceStop& stop) {
        if (stop.kind == TraceStop::Kind::kGone) restored(pid, errno_error("it died", ESRCH));
      });
  restoring_one->asker->call(*instruction, SYS_clone3, {kAskToSpread, 1},
                             [this, pid](int64_t result) {
                               if (result == -ESRCH) return;
                               parts.node.loop.post([this, pid] {
                                 if (auto known = restoring.find(pid); known != restoring.end())
                                   has_asked(pid, known->second);
                               });
                             });
}

void Spreading::Impl::has_asked(pid_t pid, const RestoringPtr& asked) {
  asked->asker->give_up();
  asked->asker.reset();
  const auto refuse = [&](const Error& why) {
    kill(pid, SIGKILL);
    restored(pid, why);
  };
  std::shared_ptr<FrozenProcess> process;
  for (pid_t tid : asked->tids) {
    auto thread = FrozenThread::stopped(tid);
    if (!thread) return refuse(thread.error());
    if (process)
      process->add(std::move(*thread));
    else
      process = FrozenProcess::adopt(*parts.node.children, std::move(*thread), asked->instruction);
  }
  auto start = std::exchange(asked->start, nullptr);
  if (!start) return refuse(errno_error("its memory cannot be shared between nodes", ENOTSUP));
  start->begin(std::move(process));
}

void Spreading::Impl::restored(pid_t pid, const Status& how) {
  auto found = restoring.extract(pid);
  if (found.empty()) return;
  // The thread that has told may be what is dropped.
  parts.node.loop.post([kept = found.mapped()] {});
  if (!how) kill(pid, SIGKILL);
  found.mapped()->done(how);
}

// --- spread processes ---------------------------------------------------------------------------

SpreadProcess* Spreading::Impl::find(uint64_t set) const {
  auto found = processes.find(set);
  return found == processes.end() ? nullptr : found->second.get();
}

SpreadProcess* Spreading::Impl::find_process(pid_t pid) const {
  for (const auto& [set, process] : processes)
    if (process->pid() == pid) return process.get();
  return nullptr;
}

SpreadProcess* Spreading::Impl::find_process_of(pid_t tid) const {
  for (const auto& [set, process] : processes)
    if (process->place_of(tid)) return process.get();
  return nullptr;
}

void Spreading::Impl::charge(pid_t pid, const CpuTime& used) {
  const auto time = [](int64_t ns) { return timeval{ns / 1'000'000'000, ns / 1000 % 1'000'000}; };
  struct rusage usage {};
  usage.ru_utime = time(used.user_ns);
  usage.ru_stime = time(used.system_ns);
  parts.charge(pid, usage);
}

void Spreading::Impl::take_messages() {
  Messenger& messenger = parts.node.messenger;
  messenger.on_request<CallAtHome>(
      [this](NodeId, const CallAtHome& ask, std::string_view payload, Messenger::Reply reply) {
        SpreadProcess* process = find(ask.set);
        user_regs_struct registers{};
        if (!process || payload.size() != sizeof registers) return;
        std::memcpy(&registers, payload.data(), sizeof registers);
        process->call(ask, registers, std::move(reply));
      });
  messenger.on<TeamArrivals>(
      [this](NodeId from, const TeamArrivals& tell, std::string_view payload) {
        SpreadProcess* process = find(tell.set);
        std::vector<ArrivedMember> members(payload.size() / sizeof(ArrivedMember));
        std::memcpy(members.data(), payload.data(), members.size() * sizeof(ArrivedMember));
        if (process) process->arrived(from, std::move(members), tell.go_on != 0);
      });
  messenger.on_request<AskMapping>(
      [this](NodeId from, const AskMapping& ask, std::string_view, Messenger::Reply reply) {
        SpreadProcess* process = find(ask.set);
        if (process) reply.ok(process->mapping_at(from, RemoteAddr{ask.address}).serialize());
      });
  messenger.on_request<QueueFutex>(
      [this](NodeId from, const QueueFutex& ask, std::string_view, Messenger::Reply reply) {
        if (SpreadProcess* process = find(ask.set)) process->queue_futex(from, ask);
        reply.ok();
      });
  messenger.on<QueueFutex>([this](NodeId from, const QueueFutex& ask, std::string_view) {
    if (SpreadProcess* process = find(ask.set)) process->queue_futex(from, ask);
  });
  messenger.on_request<LeaveFutex>(
      [this](NodeId from, const LeaveFutex& ask, std::string_view, Messenger::Reply reply) {
        SpreadProcess* process = find(ask.set);
        if (!process) return;
        const char still = process->leave_futex(from, ask.tid) ? 1 : 0;
        reply.ok({&still, 1});
      });
  messenger.on_request<WakeFutex>(
      [this](NodeId, const WakeFutex& ask, std::string_view, Messenger::Reply reply) {
        SpreadProcess* process = find(ask.set);
        if (!process) return;
        auto woken = process->wake_futex(ask);
        if (!woken) return reply.fail(woken.error());
        reply.ok({reinterpret_cast<const char*>(&*woken), sizeof *woken});
      });
  messenger.on<ReturnThread>(
      [this](NodeId from, const ReturnThread& back, std::string_view payload) {
        SpreadProcess* process = find(back.set);
        auto state = ThreadState::parse(payload);
        if (!process || !state) return;
        process->visited(from, back.tid, back.used);
        process->returned(back.tid, std::move(*state));
      });
  messenger.on<TellHomeOfWriters>(
      [this](NodeId from, const TellHomeOfWriters& tell, std::string_view message) {
        if (SpreadProcess* process = find(tell.set)) process->take_writers_message(from, message);
      });
  messenger.on<ThreadTrapped>([this](NodeId, const ThreadTrapped& tell, std::string_view) {
    SpreadProcess* process = find(tell.set);
    if (process) process->trapped(tell.tid, tell.at_breakpoint != 0);
  });
  messenger.on<ReplicaLost>([this](NodeId from, const ReplicaLost& lost, std::string_view) {
    if (SpreadProcess* process = find(lost.set))
      process->fail(fmt::format("its threads on node {} were killed", from.value));
  });
  messenger.on_peer_failure([this](NodeId failed) {
    for (const auto& [set, process] : processes)
      for (NodeId node : process->nodes())
        if (node == failed) process->fail(fmt::format("node {} has failed", failed.value));
  });
}

void Spreading::Impl::ended(uint64_t set) {
  auto found = processes.extract(set);
  if (found.empty()) return;
  decided.erase(found.mapped()->pid());  // it may be another program by now
  auto pages = found.mapped()->take_pages();
  auto statistics = found.mapped()->statistics();
  if (statistics && pages->allows_multiple_writers())
    statistics->multiple_writers = pages->multiple_writers();
  drop(std::move(pages), std::move(statistics));
}

// When nobody here maps it any more, and no other node has it.
void Spreading::Impl::drop(std::shared_ptr<PageSet> pages,
                           std::shared_ptr<SpreadStatistics> statistics) {
  NodeContext& node = parts.node;
  auto left = std::make_shared<size_t>(1);
  const auto answered = [this, left, pages, statistics, &loop = node.loop] {
    if (--*left > 0) return;
    one_writer_instead.erase(pages->id().value);
    if (counting.erase(pages->id().value) > 0 && statistics) counted.push_back(statistics);
    if (counted.size() > kMostCounted) counted.pop_front();
    tell_statistics();
    loop.post([pages] { pages->on_idle([] {}); });  // the last owner
  };
  if (pages->mapping_count() > 0) {
    ++*left;
    pages->on_idle([answered, &loop = node.loop] { loop.post([answered] { answered(); }); });
  }
  EndSpread ask;
  ask.set = pages->id().value;
  for (unsigned i = 0; i < node.node_count; ++i) {
    const NodeId other{static_cast<uint16_t>(i)};
    if (other == node.self || node.messenger.is_failed(other)) continue;
    ++*left;
    node.messenger.request(
        other, ask, {}, [answered, other, statistics](Result<std::string> reply) {
          auto counts = reply && statistics ? FaultCounts::parse(*reply)
                                            : Result<FaultCounts>(errno_error("none", ENOENT));
          if (counts) statistics->counts[other] = std::move(*counts);
          answered();
        });
  }
  answered();
}

// To who has asked, once all processes of his have ended.
void Spreading::Impl::tell_statistics() {
  for (Question& question : std::exchange(questions, {})) {
    const auto is_his = [&](const auto& statistics) { return statistics->job == question.job; };
    if (std::any_of(counting.begin(), counting.end(),
                    [&](const auto& entry) { return is_his(entry.second); })) {
      questions.push_back(std::move(question));
      continue;
    }
    nlohmann::json all = nlohmann::json::array();
    for (const auto& statistics : counted)
      if (is_his(statistics)) all.push_back(statistics->report());
    std::erase_if(counted, is_his);
    question.reply.ok({{"processes", std::move(all)}});
  }
}

// --- the interface ------------------------------------------------------------------------------

Result<std::unique_ptr<Spreading>> Spreading::create(Parts parts) {
  auto source = UserfaultSource::find();
  if (!source) return source.error();
  auto impl = std::make_unique<Impl>(std::move(parts), std::move(*source));
  impl->take_calls();
  impl->take_messages();
  return std::unique_ptr<Spreading>(new Spreading(std::move(impl)));
}

Spreading::Spreading(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Spreading::~Spreading() = default;

std::map<pid_t, NodeId> Spreading::threads_of(pid_t pid) const {
  std::map<pid_t, NodeId> places;
  for (const auto& [set, process] : impl_->processes)
    if (process->pid() == pid)
      for (pid_t tid : process->threads()) places[tid] = process->place_of(tid).value_or(NodeId{});
  return places;
}

void Spreading::add_commands(ControlServer& server) {
  server.add_command("spread.statistics", [this](ControlServer::Request request,
                                                 ControlServer::Reply reply) {
    impl_->questions.push_back({request.arguments.value("job", std::string()), std::move(reply)});
    impl_->tell_statistics();
  });
  impl_->debuggers.add_commands(server);
  impl_->gathered.add_commands(server);
}

bool Spreading::is_starting(pid_t pid) const {
  return impl_->starting.contains(pid);
}

void Spreading::stand(pid_t pid,
                      std::function<void(Result<std::shared_ptr<StandingSpread>>)> done) {
  SpreadProcess* process = impl_->find_process(pid);
  process ? process->stand(std::move(done)) : done(errno_error("it is not spread", ESRCH));
}

void Spreading::restore(std::shared_ptr<FrozenProcess> process, const std::string& state,
                        std::function<void(Status)> done) {
  auto again = SpreadAgain::parse(state);
  if (!again) {
    process->kill();
    return done(again.error());
  }
  auto restoring = std::make_shared<Impl::Restoring>();
  restoring->again = std::move(*again);
  restoring->done = std::move(done);
  impl_->restore(*process, restoring);
}

ThreadLender Spreading::lender() {
  return {[this](pid_t tid) { return process_of(tid) != 0; },
          [this](auto call, auto borrowed) {
            impl_->find_process_of(call.tid())->lend(std::move(call), std::move(borrowed));
          }};
}

pid_t Spreading::process_of(pid_t tid) const {
  const SpreadProcess* process = impl_->find_process_of(tid);
  return process ? process->pid() : 0;
}

ProcTexts Spreading::process_texts() {
  return impl_->texts.texts();
}

std::optional<std::set<unsigned>> Spreading::affinity_of(pid_t tid) const {
  for (const auto& [set, process] : impl_->processes)
    if (auto bound = process->affinity_of(tid)) return bound;
  return std::nullopt;
}

void Spreading::move_thread(pid_t tid, NodeId target, std::function<void(Status)> done) {
  for (const auto& [set, process] : impl_->processes)
    if (process->place_of(tid)) return process->move(tid, target, std::move(done));
  done(errno_error("no such thread", ESRCH));
}

}  // namespace krg
