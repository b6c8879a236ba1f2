// SPDX-License-Identifier: GPL-2.0-or-later
#include "job_runner.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "environment_variables.h"
#include "krg/runtime/crash_report.h"
#include "launch_environment.h"
#include "source_lines.h"
#include "spread_report.h"
#include "state_dir.h"

namespace krg {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

// Forwarded when somebody sends them to krgrun; from the terminal the program gets them by itself,
// being in the same process group.
constexpr int kForwarded[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
// Between SIGTERM and SIGKILL at the time limit.
constexpr std::chrono::seconds kGrace{5};

std::vector<std::string> exported_environment(const std::string& exports) {
  std::vector<std::string> kept;
  bool all = false;
  std::string rest = exports;
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string item = rest.substr(0, comma);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    if (item == "ALL") all = true;
    if (item == "ALL" || item == "NONE" || item.empty()) continue;
    if (item.find('=') != std::string::npos)
      kept.push_back(item);
    else if (const char* value = getenv(item.c_str()))
      kept.push_back(item + "=" + value);
  }
  if (!all) return kept;
  for (char** variable = environ; *variable; ++variable) {
    const std::string entry = *variable;
    const std::string name = entry.substr(0, entry.find('=') + 1);
    const bool replaced = std::any_of(kept.begin(), kept.end(), [&](const std::string& other) {
      return other.compare(0, name.size(), name) == 0;
    });
    if (!replaced) kept.push_back(entry);
  }
  return kept;
}

int exit_status_of(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

}  // namespace

JobRunner::JobRunner(const RunOptions& options)
    : options_(options), restart_fd_(options.restart_fd) {
  if (restart_fd_) fcntl(restart_fd_.get(), F_SETFD, FD_CLOEXEC);
  sigset_t caught;
  sigemptyset(&caught);
  for (int signal : {SIGCHLD, SIGWINCH}) sigaddset(&caught, signal);
  for (int signal : kForwarded) {
    // nohup(1) and its like: what the caller ignores, the program ignores.
    struct sigaction current {};
    sigaction(signal, nullptr, &current);
    if (current.sa_handler != SIG_IGN) sigaddset(&caught, signal);
  }
  sigprocmask(SIG_BLOCK, &caught, &caller_mask_);
  signals_ = UniqueFd(signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK));
}

JobRunner::~JobRunner() = default;

Result<int> JobRunner::run(const std::string& control_path) {
  TaskLaunch launch;
  NamespaceSet namespaces;
  if (auto begun = begin(control_path, launch, namespaces); !begun) return begun.error();
  auto status = launch_and_wait(launch);
  // Nothing of the job is left on any node when this is answered. A krgd that has gone took
  // everything along.
  auto finished = krgd_->call("job.finish", {{"job", job_}});
  // What such a krgd takes along may end with any status: an exec that nobody answers fails.
  if (!finished && status && *status != 0) node_failed_ = true;
  if (!finished && options_.verbosity >= 0) {
    const std::string crash = crash_of(0);
    fmt::print(stderr, "krgrun: node 0 has failed: {}\n",
               crash.empty() ? finished.error().message() : crash);
    const std::string end = crash.empty() ? end_of_log(log_of(0)) : "";
    if (!end.empty()) fmt::print(stderr, "krgrun: its log ends with\n{}\n", end);
  }
  if (io_) io_->drain();
  take_terminal_back();
  if (finished) tell_gathered();
  if (finished) tell_statistics();
  if (!status) return status;
  return final_status();
}

Result<int> JobRunner::run_in_session() {
  TaskLaunch launch;
  launch.environment = exported_environment(options_.exports);
  if (wants_libkrgomp(launch)) choose_openmp_runtime(launch.environment);
  if (!options_.threads_come_home) set_variable(launch.environment, "KRG_GATHER", "");
  auto status = launch_and_wait(launch);
  if (io_) io_->drain();
  take_terminal_back();
  if (!status) return status;
  return final_status();
}

// What the log of its krgd says, which goes with the cluster; empty: nothing, or it is elsewhere.
std::string JobRunner::crash_of(uint16_t node) const {
  return last_crash(log_of(node));
}

std::string JobRunner::log_of(uint16_t node) const {
  return log_path(std::filesystem::path(control_path_).parent_path().parent_path(), NodeId{node});
}

Status JobRunner::begin(const std::string& control_path, TaskLaunch& launch,
                        NamespaceSet& namespaces) {
  auto client = ControlClient::connect(control_path);
  if (!client) return client.error();
  krgd_.emplace(std::move(*client));
  control_path_ = control_path;
  krgd_->on_notice([this](const std::string& name, const json& packet) {
    if (name == "progress")
      return progress_.show("loading", packet.value("done", uint64_t{0}),
                            packet.value("total", uint64_t{0}));
    if (name == "restarted" || name == "restart_failed") progress_.end();
    if (name == "restarted") tell_restart(0);
    if (name == "restart_failed") {
      restart_failed_ = true;
      fmt::print(stderr, "krgrun: cannot restart: {}\n", packet.value("reason", std::string()));
      tell_restart(packet.value("errno", EIO));
    }
    if (name == "restart_lost") {
      restart_lost_ = true;
      fmt::print(stderr, "krgrun: the rest of the checkpoint cannot be read: {}; all is killed\n",
                 packet.value("reason", std::string()));
    }
    if (name != "node_failed") return;
    const auto node = packet.value("node", uint16_t{0});
    const std::string crash = crash_of(node);
    fmt::print(stderr, "krgrun: node {} has failed; its processes are lost{}\n", node,
               crash.empty() ? "" : ": " + crash);
    if (options_.kill_on_bad_exit) {
      node_failed_ = true;
      signal_tasks(SIGKILL);
    }
  });
  auto begun = krgd_->call("job.begin",
                           {{"options", {{"caps", options_.caps}, {"command", options_.program}}}});
  if (!begun) return begun.error();
  const json& job = begun->result;
  job_ = job.value("job", 0u);
  const auto names = job.at("namespaces").get<std::vector<std::string>>();
  for (size_t i = 0; i < names.size() && i < begun->fds.size(); ++i)
    namespaces.add(names[i], std::move(begun->fds[i]));
  launch.namespaces = &namespaces;
  launch.job = job_;
  launch.node = job.value("node", 0u);
  launch.node_count = job.value("nodes", 1u);
  launch.distant_threads = options_.caps.find("DISTANT_THREAD") != std::string::npos;
  launch.remote_memory = job.value("memory_per_node", uint64_t{0}) > 0;
  launch.shared_files = job.value("shared_files", false);
  launch.forks_by_clone = job.value("forks_by_clone", false);
  launch.environment = exported_environment(options_.exports);
  for (const auto& [name, value] : job.at("environment").items()) {
    set_variable(launch.environment, name, value.get<std::string>());
    if (name == "KRG_CONTROL") launch.control_path = value.get<std::string>();
  }
  if (options_.statistics != StatisticsForm::kNone) {
    set_variable(launch.environment, "KRG_STATS", std::to_string(job_));
    tell_allocations(launch.environment);
  }
  if (options_.multiple_writers) set_variable(launch.environment, "KRG_MULTIPLE_WRITERS", "1");
  if (options_.threads_come_home)
    set_variable(launch.environment, "KRG_GATHER", std::to_string(job_));
  if (wants_libkrgomp(launch)) {
    choose_openmp_runtime(launch.environment);
    spread_openmp_teams(job.value("distant_threads", false), launch);
  }
  return options_.restart_folder.empty() ? Status() : open_restart(launch);
}

Status JobRunner::open_restart(TaskLaunch& launch) {
  json ask = {{"folder", options_.restart_folder},
              {"version", options_.restart_version},
              {"job", job_},
              {"progress", ProgressBar::is_wanted()},
              {"close_lost", options_.closes_lost_peers},
              {"files", options_.checkpoints_files},
              {"lazy", options_.restarts_lazily}};
  if (options_.says_threads) ask["threads_come_home"] = options_.threads_come_home;
  auto opened = krgd_->call("restart.open", ask);
  if (!opened) {
    tell_restart(opened.error().errno_or(EIO));
    return opened.error();
  }
  launch.restart = RestartPlan::parse(opened->result, job_);
  launch.distant_threads |= launch.restart->distant_threads;
  for (const std::string& lost : launch.restart->lost) fmt::print(stderr, "krgrun: {}\n", lost);
  if (const auto why = opened->result.value("loads_first", std::string()); !why.empty())
    fmt::print(stderr, "krgrun: all pages are loaded first: {}\n", why);
  return {};
}

void JobRunner::tell_restart(int error) {
  if (restart_fd_) dprintf(restart_fd_.get(), "%d\n", error);
  restart_fd_.reset();
}

// The user may have asked for these nodes, and waits for them in vain.
void JobRunner::tell_gathered() {
  if (!options_.threads_come_home || options_.verbosity < 0) return;
  auto told = krgd_->call("spread.gathered", {{"job", std::to_string(job_)}});
  if (!told) return;
  for (const json& process : told->result["processes"])
    fmt::print(
        stderr,
        "krgrun: {} (pid {}): its threads waited for pages more than they computed, and came "
        "home after {:.1f} s (--stats tells why, --threads=stay keeps them on all nodes)\n",
        process.at("command").get<std::string>(), process.at("pid").get<pid_t>(),
        process.at("after_s").get<double>());
}

void JobRunner::tell_statistics() {
  if (options_.statistics == StatisticsForm::kNone) return;
  auto told = krgd_->call("spread.statistics", {{"job", std::to_string(job_)}});
  if (!told) return fmt::print(stderr, "krgrun: no statistics: {}\n", told.error().message());
  json& processes = told->result["processes"];
  add_source_lines(processes);
  options_.statistics == StatisticsForm::kJson
      ? fmt::print(stderr, "{}\n", processes.dump())
      : fmt::print(stderr, "{}", format_spread_report(processes));
}

bool JobRunner::wants_libkrgomp(const TaskLaunch& launch) const {
  if (options_.openmp != OpenmpRuntime::kAuto) return options_.openmp == OpenmpRuntime::kKrg;
  return launch.node_count > 1 && !options_.program.empty() &&
         needs_libgomp(launch.environment, options_.program.front());
}

void JobRunner::choose_openmp_runtime(std::vector<std::string>& environment) const {
  if (options_.program.empty()) return;
  const auto used = use_libkrgomp(environment, options_.program.front());
  if (!used && options_.verbosity >= 0) fmt::print(stderr, "krgrun: {}\n", used.error().message());
}

// libkrgomp asks krgd to spread its process when it comes to a team of several threads.
void JobRunner::spread_openmp_teams(bool is_offered, TaskLaunch& launch) const {
  if (launch.node_count < 2) return;
  if (!is_offered) {
    if (options_.verbosity >= 0)
      fmt::print(stderr,
                 "krgrun: OpenMP threads stay on one node: DISTANT_THREAD is not offered here\n");
    return;
  }
  launch.distant_threads = true;
  set_variable(launch.environment, "KRG_OMP_NODES", std::to_string(launch.node_count));
}

Result<int> JobRunner::launch_and_wait(TaskLaunch& launch) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  const char* slurm_job = getenv("SLURM_JOB_ID");
  const PatternValues values{slurm_job ? slurm_job : std::to_string(job_), host.data(), launch.node,
                             0};
  auto io = TaskIo::open(options_, values);
  if (!io) return io.error();
  io_ = std::move(*io);
  launch.directory = options_.directory;
  if (launch.directory.empty()) {
    char* current = get_current_dir_name();
    launch.directory = current ? current : "/";
    free(current);
  }
  launch.program = options_.program;
  launch.signal_mask = caller_mask_;
  auto pids = launch.start(io_->streams());
  if (!pids) return pids.error();
  for (pid_t pid : *pids) tasks_.push_back({pid, std::nullopt});
  io_->tasks_started();
  if (options_.time_limit) deadline_ = Clock::now() + *options_.time_limit;
  if (options_.checkpoint_every && krgd_)
    next_checkpoint_ = Clock::now() + *options_.checkpoint_every;
  reap();
  while (tasks_remain()) {
    std::vector<pollfd> polled = {{signals_.get(), POLLIN, 0},
                                  {krgd_ ? krgd_->fd() : -1, POLLIN, 0}};
    io_->add_descriptors(polled);
    const int ready = poll(polled.data(), polled.size(), wait_limit_ms());
    if (ready == 0 && deadline_ && Clock::now() >= *deadline_) on_time_limit();
    if (next_checkpoint_ && Clock::now() >= *next_checkpoint_) {
      next_checkpoint_ = Clock::now() + *options_.checkpoint_every;
      checkpoint(false);
    }
    if (ready <= 0) continue;
    if (polled[0].revents) handle_signal();
    if (polled[1].revents) krgd_spoke();
    for (size_t i = 2; i < polled.size(); ++i) io_->handle(polled[i]);
  }
  return final_status();
}

// Till the time limit or the next checkpoint; -1: neither will come.
int JobRunner::wait_limit_ms() const {
  auto until = deadline_;
  if (next_checkpoint_ && (!until || *next_checkpoint_ < *until)) until = next_checkpoint_;
  if (!until) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - Clock::now()).count();
  return static_cast<int>(std::clamp<long>(left, 0, 1 << 30));
}

void JobRunner::checkpoint(bool may_wait) {
  checkpoint_.start(control_path_,
                    {{"job", job_},
                     {"folder", options_.checkpoint_folder},
                     {"keep", options_.checkpoints_kept},
                     {"files", options_.checkpoints_files}},
                    may_wait);
}

void JobRunner::handle_signal() {
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
    const int signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGCHLD)
      reap();
    else if (signal == SIGUSR1 && krgd_ && !options_.checkpoint_folder.empty())
      checkpoint(true);
    else if (signal == SIGWINCH)
      io_->window_changed();
    else if (info.ssi_code != SI_KERNEL || options_.pty)
      signal_tasks(signal);
  }
}

void JobRunner::reap() {
  checkpoint_.reap();
  for (Task& task : tasks_) {
    if (task.status) continue;
    int status = 0;
    if (waitpid(task.pid, &status, WNOHANG | WUNTRACED) != task.pid) continue;
    if (WIFSTOPPED(status))
      follow_stop(task);
    else
      task_ended(task, status);
  }
}

void JobRunner::task_ended(Task& task, int status) {
  task.status = exit_status_of(status);
  if (*task.status != 0 && options_.kill_on_bad_exit)
    for (const Task& other : tasks_)
      if (!other.status) kill(other.pid, SIGKILL);
}

// A program that stops itself stops krgrun, so that the shell takes over; fg then continues both.
// Stopped by the terminal, krgrun has been stopped along with it already.
void JobRunner::follow_stop(const Task& task) {
  if (options_.pty || tasks_.size() > 1) return;
  raise(SIGSTOP);
  kill(task.pid, SIGCONT);
}

void JobRunner::on_time_limit() {
  if (!timed_out_) {
    fmt::print(stderr, "krgrun: the time limit is reached\n");
    timed_out_ = true;
    signal_tasks(SIGTERM);
    signal_tasks(SIGCONT);
    deadline_ = Clock::now() + kGrace;
  } else {
    signal_tasks(SIGKILL);
    deadline_.reset();
  }
}

void JobRunner::krgd_spoke() {
  if (krgd_->receive_notice()) return;
  // krgd is the session's init: with it the kernel ends the tasks.
  node_failed_ = true;
  signal_tasks(SIGKILL);
  deadline_.reset();
  for (Task& task : tasks_) {
    int status = 0;
    if (!task.status && waitpid(task.pid, &status, 0) == task.pid)
      task.status = exit_status_of(status);
  }
}

void JobRunner::signal_tasks(int signal) const {
  for (const Task& task : tasks_)
    if (!task.status) kill(task.pid, signal);
}

bool JobRunner::tasks_remain() const {
  return std::any_of(tasks_.begin(), tasks_.end(), [](const Task& task) { return !task.status; });
}

int JobRunner::final_status() const {
  if (restart_failed_) return exit_status::kLaunchFailure;
  if (node_failed_) return exit_status::kNodeFailure;
  if (timed_out_) return exit_status::kTimeout;
  int highest = 0;
  for (const Task& task : tasks_) highest = std::max(highest, task.status.value_or(0));
  // The first process may have ended well before it was its turn to be killed.
  if (restart_lost_ && highest == 0) return 128 + SIGKILL;
  return highest;
}

// A shell that ran as the program gave the terminal to groups that are gone now.
void JobRunner::take_terminal_back() const {
  const pid_t foreground = tcgetpgrp(0);
  if (foreground < 0 || foreground == getpgrp() || kill(-foreground, 0) == 0) return;
  sigset_t background;
  sigemptyset(&background);
  sigaddset(&background, SIGTTOU);
  sigprocmask(SIG_BLOCK, &background, nullptr);
  tcsetpgrp(0, getpgrp());
}

}  // namespace krg
