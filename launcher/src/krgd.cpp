// SPDX-License-Identifier: GPL-2.0-or-later
#include "krgd.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "krg/runtime/log.h"
#include "krg/shmem/page_set.h"
#include "state_dir.h"

namespace krg {
namespace {

constexpr unsigned kMaxWorkers = 8;

// Trees of krgfs that are bound where programs look for them.
const std::vector<Session::View> kViews = {
    {"proc", "/proc"}, {"cpu", "/sys/devices/system/cpu"}, {"tty/tty", "/dev/tty"}};

NodeContext make_context(const KrgdOptions& options, EventLoop& loop, ChildReaper& reaper,
                         const Session& session, WorkerPool& workers, Messenger& messenger,
                         JobNamespaces& jobs) {
  const NodeId self = messenger.self();
  const unsigned count = messenger.node_count();
  return NodeContext{
      .loop = loop,
      .workers = workers,
      .messenger = messenger,
      .self = self,
      .node_count = count,
      .pids = PidRange(self, count),
      .paths = {node_dir(options.cluster_dir, self), session.root(), options.libexec_dir},
      .session_mount_ns = session.mount_namespace(),
      .children = &reaper,
      .jobs = &jobs,
      .memory_per_node = options.memory_per_node,
      .shared_files = options.shared_files,
      .page_sets = make_userfaultfd_group(),
  };
}

}  // namespace

Krgd::Krgd(const KrgdOptions& krgd_options, EventLoop& event_loop, ChildReaper& reaper,
           const Session& node_session, Transport& transport, Patience& transport_patience)
    : options(krgd_options),
      session(node_session),
      patience(transport_patience),
      messenger(transport),
      workers(event_loop, kMaxWorkers),
      node(make_context(krgd_options, event_loop, reaper, node_session, workers, messenger,
                        job_namespaces)),
      control(event_loop, geteuid()) {
  wire();
}

void Krgd::wire() {
  descriptors.set_lock_holders(shadows);
  membership.on_death([this](NodeId dead) { kddm.node_died(dead); });
  membership.on_excluded([this] { cluster.leave("the others hold this node for dead"); });
  placement =
      make_least_loaded(node, {.is_online = [this](NodeId n) { return membership.is_online(n); },
                               .running = count_running_processes,
                               .cores = usable_cores()});
  wire_signals();
  ipc.end_waits_if([this](pid_t pid) { return processes.ends_waits(pid); });
  capability_service.add_commands(control);
  kddm_report.add_commands(control);
  process_finder.add_commands(control);
  kddm_service.add_commands(control);
  jobs.on_task_start([this](const JobTable::Task& task) -> Status {
    const std::string caps = task.options.value("caps", "");
    auto sets = initial_capabilities(caps);
    if (sets)
      if (auto allowed = capabilities.check_refused(*sets); !allowed) return allowed;
    return sets ? capabilities.adopt(task.pid, *sets) : sets.error();
  });
  jobs.on_task_start([this](const JobTable::Task& task) -> Status {
    return task.listener ? syscalls.add_listener(std::move(task.listener)) : Status();
  });
}

void Krgd::wire_signals() {
  syscalls.set_handler(SYS_pidfd_send_signal, [this](SyscallBroker::Call call) {
    const auto number = static_cast<int>(call.arg(0));
    const auto of_pidfd = descriptors.process_of_pidfd(call.tid(), number);
    if (of_pidfd == 0) return call.fail(ESRCH);
    const pid_t pid = of_pidfd ? *of_pidfd : view->process_of_directory(call.tid(), number);
    if (pid == 0) return call.go_on();
    pid_calls.signal_by_pidfd(std::move(call), pid);
  });
  shadows.set_delivery([this](pid_t body, const SignalInfo& signal) {
    if (signal.signal == SIGCHLD) remote_children.child_changed(body);
    const std::optional<pid_t> receiver = terminals.receiver(body, signal);
    return receiver ? signals.signal_body(*receiver, signal) : Status();
  });
  shadows.on_body_end(
      [this](pid_t shadow, const BodyEnd& end) { remote_usage.body_ended(shadow, end.usage); });
}

bool Krgd::sees_node_only(pid_t pid) const {
  const auto sets = capabilities.of(pid);
  return sets && sets->effective.has(Capability::kSeeLocalProcStat);
}

std::map<pid_t, NodeId> Krgd::threads_of(pid_t pid) const {
  return spreading ? spreading->threads_of(pid) : std::map<pid_t, NodeId>{};
}

Status Krgd::start() {
  workers.start_all();  // with ids below those of programs, which may be restarted with theirs
  auto keeper = PidKeeper::create(node.loop, node.pids);
  if (!keeper) return keeper.error();
  pids = std::move(*keeper);
  auto made = ProcView::create(node, files, processes, capabilities, resources);
  if (!made) return made.error();
  view = std::move(*made);
  view->add_folder(kddm_report);
  std::vector<Session::View> views = kViews;
  // A cluster of one node leaves what programs share to its kernel.
  if (node.node_count > 1) share_between_nodes(views);
  start_remote_memory();
  session.serve(files);
  resources.start();
  if (auto placing = start_placing(); !placing) return placing;
  start_spreading();
  if (auto opened = open_control_sockets(); !opened) return opened;
  if (!files.is_serving()) {
    cluster.node_is_ready();
    return {};
  }
  session.bind_views(workers, views, [this](Status bound) {
    if (!bound) log_error("session", "{}", bound.error().message());
    cluster.node_is_ready();
  });
  return {};
}

bool Krgd::read_ipc_text(std::string_view name, std::function<void(Result<std::string>)> done) {
  if (name != "shm" || !shared_memory) return ipc.read_text(name, std::move(done));
  shared_memory->segments_text(std::move(done));
  return true;
}

void Krgd::share_between_nodes(std::vector<Session::View>& views) {
  view->set_ipc_text(
      [this](std::string_view name, auto done) { return read_ipc_text(name, std::move(done)); });
  if (std::filesystem::is_directory("/dev/mqueue")) views.push_back({"mqueue", "/dev/mqueue"});
  if (auto memory = SharedMemory::create(node, kddm, files, syscalls)) {
    shared_memory = std::move(*memory);
    shared_memory->share_anonymous_if([this](pid_t pid) {
      const auto sets = capabilities.of(pid);
      if (!sets) return false;
      const auto may = [&](Capability capability) {
        return sets->effective.has(capability) || sets->inheritable_effective.has(capability);
      };
      return may(Capability::kDistantFork) || may(Capability::kCanMigrate);
    });
    views.push_back({"shm", "/dev/shm"});
  } else {
    log_info("shm", "/dev/shm is this node's own: {}", memory.error().message());
  }
}

void Krgd::start_remote_memory() {
  if (options.memory_per_node == 0)
    return capabilities.refuse(Capability::kUseRemoteMemory, "needs a cluster with --mem-per-node");
  kddm.set_memory_limit(options.memory_per_node);
  auto made = RemoteMemory::create(node, kddm, syscalls, capabilities);
  if (!made) return capabilities.refuse(Capability::kUseRemoteMemory, made.error().message());
  remote_memory = std::move(*made);
}

Status Krgd::start_placing() {
  if (auto started = shadows.start(); !started) return started;
  body_descriptors = body_descriptors_of(descriptors);
  const ExecPlacer::Parts parts{
      syscalls,
      processes,
      shadows,
      capabilities,
      forkers,
      *placement,
      *body_descriptors,
      [this](pid_t body, rusage& usage) {
        ipc.process_ended(body);
        if (auto more = remote_usage.close(body)) add_usage(usage, *more);
      },
      [this] { return membership.is_online(node.self); },
      [this](const KnownForkers::Program& forker) { remote_fork->child_execs(forker); },
      &page_moves,
      shared_memory.get(),
      &sleeps};
  mover = std::make_unique<ProcessMover>(node, parts);
  remote_fork = std::make_unique<RemoteFork>(node, parts, *mover);
  migration = std::make_unique<Migration>(
      node, parts, *mover, [this](NodeId n) { return membership.is_online(n); }, threads_to_move());
  migration->add_commands(control);
  cluster_view.set_move([this](GlobalPid pid, NodeId target, Migration::Done done) {
    migration->migrate(pid, target, std::move(done));
  });
  if (options.balance)
    balancer = std::make_unique<Balancer>(node, parts, *mover, Balancer::Options{});
  placer = std::make_unique<ExecPlacer>(node, parts);
  return {};
}

Migration::Threads Krgd::threads_to_move() {
  return {[this](pid_t tid) { return spreading ? spreading->process_of(tid) : 0; },
          [this](pid_t tid, NodeId target, Migration::Done done) {
            spreading->move_thread(tid, target, std::move(done));
          }};
}

SpreadMembers Krgd::spread_members() {
  using State = SpreadMembers::State;
  return {[this](pid_t pid) {
            if (spreading && spreading->is_starting(pid)) return State::kIsBeingSpread;
            return threads_of(pid).empty() ? State::kOrdinary : State::kSpread;
          },
          [this](pid_t pid, auto done) { spreading->stand(pid, std::move(done)); },
          [this](std::shared_ptr<FrozenProcess> process, const std::string& state, auto done) {
            if (!spreading) return done(errno_error("processes cannot be spread here", ENOTSUP));
            spreading->restore(std::move(process), state, std::move(done));
          }};
}

void Krgd::start_spreading() {
  auto made = Spreading::create(
      {node, kddm, syscalls, capabilities, processes,
       [this](NodeId n) { return membership.is_online(n); }, resources, patience,
       [this](pid_t pid, const rusage& usage) { remote_usage.body_ended(pid, usage); },
       [this](pid_t pid, pid_t child) {
         return child == 0 ? remote_usage.of_children(pid)
                           : remote_usage.of_waited_child(pid, child);
       }});
  if (!made) return capabilities.refuse(Capability::kDistantThread, made.error().message());
  spreading = std::move(*made);
  spreading->add_commands(control);
  view->set_process_texts(spreading->process_texts());
  if (shared_memory) shared_memory->borrow_of(spreading->lender());
  cluster_view.set_spread(
      {.bound = [this](pid_t tid) { return spreading->affinity_of(tid); },
       .is_starting = [this](pid_t pid) { return spreading->is_starting(pid); }});
  jobs.offer_distant_threads();
}

Status Krgd::open_control_sockets() {
  // In the state folder for krgrun and kradm, which run outside; in the session root for what runs
  // inside.
  for (const std::string& path : {node.paths.state_dir + "/ctl.sock", session.root() + "/ctl.sock"})
    if (auto open = control.listen(path, 0666); !open) return open;
  return {};
}

}  // namespace krg
