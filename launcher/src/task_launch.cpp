// SPDX-License-Identifier: GPL-2.0-or-later
#include "task_launch.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string_view>

#include "environment_variables.h"
#include "exec_words.h"
#include "krg/procmgr/syscall_filter.h"
#include "krg/runtime/control_client.h"
#include "own_limits.h"
#include "processor_share.h"

namespace krg {
namespace {

[[noreturn]] void fail(int status, const std::string& sentence) {
  const std::string line = "krgrun: " + sentence + "\n";
  if (write(2, line.data(), line.size()) < 0) _exit(status);
  _exit(status);
}

// fork(2) of a sibling: the new process's parent is this one's. `wanted`: its pid in the session;
// 0: any.
pid_t clone_for_parent(pid_t wanted) {
  if (wanted == 0)
    return static_cast<pid_t>(syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0));
  clone_args arguments{};
  arguments.flags = CLONE_PARENT;
  arguments.set_tid = reinterpret_cast<uint64_t>(&wanted);
  arguments.set_tid_size = 1;
  return static_cast<pid_t>(syscall(SYS_clone3, &arguments, sizeof arguments));
}

void use_streams(const TaskStreams& streams) {
  if (streams.controlling_terminal) {
    setsid();
    ioctl(streams.input, TIOCSCTTY, 0);
  }
  if (streams.input >= 0) dup2(streams.input, 0);
  if (streams.output >= 0) dup2(streams.output, 1);
  if (streams.error >= 0) dup2(streams.error, 2);
}

}  // namespace

Result<std::vector<pid_t>> TaskLaunch::start(const std::vector<TaskStreams>& tasks) const {
  int report[2], alive[2];
  if (pipe2(report, O_CLOEXEC) != 0) return errno_error("pipe");
  UniqueFd reports(report[0]), report_end(report[1]);
  if (pipe2(alive, O_CLOEXEC) != 0) return errno_error("pipe");
  UniqueFd alive_here(alive[0]), alive_there(alive[1]);
  const pid_t helper = fork();
  if (helper < 0) return errno_error("fork");
  if (helper == 0) {
    alive_here.reset();
    join_and_clone(tasks, report_end.get(), alive_there.get());
  }
  report_end.reset();
  alive_there.reset();
  std::vector<pid_t> pids;
  for (pid_t pid; read(reports.get(), &pid, sizeof pid) == sizeof pid;) pids.push_back(pid);
  int status = 0;
  while (waitpid(helper, &status, 0) < 0 && errno == EINTR) {
  }
  alive_here.release();  // stays open as long as this process lives
  if (status != 0) {
    for (pid_t pid : pids) kill(pid, SIGKILL);
    return text_error("the session cannot be joined");
  }
  return pids;
}

void TaskLaunch::join_and_clone(const std::vector<TaskStreams>& tasks, int report,
                                int parent_pipe) const {
  let_programs_go_first();
  if (namespaces)
    if (auto entered = namespaces->enter(); !entered)
      fail(exit_status::kLaunchFailure, entered.error().message());
  for (unsigned id = 0; id < tasks.size(); ++id) {
    const pid_t pid = clone_for_parent(restart ? restart->pid : 0);
    if (pid == 0) become_task(tasks[id], id, parent_pipe);
    const std::string what =
        restart ? fmt::format("a process with pid {}", restart->pid) : std::string("fork");
    if (pid < 0) fail(exit_status::kLaunchFailure, errno_error(what).message());
    if (write(report, &pid, sizeof pid) != sizeof pid) _exit(exit_status::kLaunchFailure);
  }
  _exit(0);
}

void TaskLaunch::become_task(const TaskStreams& streams, unsigned id, int parent_pipe) const {
  use_streams(streams);
  // Only after the credentials changed: that clears the setting (prctl(2)).
  if (!die_with_parent(SIGKILL, parent_pipe)) _exit(exit_status::kLaunchFailure);
  if (chdir(directory.c_str()) != 0)
    fail(exit_status::kLaunchFailure, errno_error("cannot change to " + directory).message());
  // A virtual node's processors are those of its krgd, the session's init; only its children have
  // them by themselves, and this is krgrun's.
  if (namespaces)
    if (auto bound = share_processors_of(1); !bound)
      fail(exit_status::kLaunchFailure, bound.error().message());
  if (namespaces)
    if (auto registered = register_with_krgd(); !registered)
      fail(exit_status::kLaunchFailure, registered.error().message());
  if (restart) fail(exit_status::kLaunchFailure, restart->exec(control_path).message());
  exec_program(id);
}

// From the filter's installation on, krgd answers this process's cluster-wide system calls.
Status TaskLaunch::register_with_krgd() const {
  auto client = ControlClient::connect(control_path);
  if (!client) return client.error();
  const NodeId self{static_cast<uint16_t>(node)};
  auto listener = install_syscall_filter({.pids = PidRange(self, node_count),
                                          .remote_memory = remote_memory,
                                          .distant_threads = distant_threads,
                                          .shared_files = shared_files,
                                          .forks_by_clone = forks_by_clone});
  if (!listener) return listener.error();
  const int fd = listener->get();
  auto go = client->call("job.started", {{"job", job}}, {&fd, 1});
  if (!go) return go.error();
  return restart ? keep_thread_id_choice() : drop_ambient_capabilities();
}

void TaskLaunch::exec_program(unsigned id) const {
  std::vector<std::string> variables = environment;
  variables.push_back("KRG_TASK_ID=" + std::to_string(id));
  auto arguments = pointers_to(program), environment_pointers = pointers_to(variables);
  sigprocmask(SIG_SETMASK, &signal_mask, nullptr);
  const std::string& name = program.front();
  auto attempt = [&](const std::string& path) {
    exec_unnotified(path.c_str(), arguments.data(), environment_pointers.data());
    if (errno != ENOEXEC) return;
    // As execvp(3): a file without a header is a shell script.
    std::vector<char*> shell = {const_cast<char*>("/bin/sh"), const_cast<char*>(path.c_str())};
    shell.insert(shell.end(), arguments.begin() + 1, arguments.end());
    exec_unnotified("/bin/sh", shell.data(), environment_pointers.data());
  };
  int reason = ENOENT;
  if (name.find('/') != std::string::npos) {
    attempt(name);
    reason = errno;
  } else {
    std::string_view path = value_of(environment, "PATH");
    if (path.empty()) path = "/bin:/usr/bin";
    while (true) {
      const size_t end = path.find(':');
      const std::string_view folder = path.substr(0, end);
      attempt((folder.empty() ? "." : std::string(folder)) + "/" + name);
      if (errno != ENOENT && errno != ENOTDIR) reason = errno;
      if (end == std::string_view::npos) break;
      path.remove_prefix(end + 1);
    }
  }
  fail(reason == ENOENT ? exit_status::kNotFound : exit_status::kNotExecutable,
       errno_error(name, reason).message());
}

}  // namespace krg
