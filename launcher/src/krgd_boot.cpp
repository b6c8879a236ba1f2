// krgd_boot: the rank that mpirun or srun starts. It makes the session's namespaces (of a user's
// own when it is not root), starts krgd in them as pid 1, and stays until krgd needs its MPI
// launcher no more.
//
//   krgd_boot --cluster-dir DIR [--name-host] [--processors N] [--stay]
//
// --processors: the node has N of this machine's processors for itself, by its rank.
// --name-host: the node is a virtual one; its host name becomes n<rank>.
// --stay: remain krgd's parent for good (under srun, which must see the node's processes as its
// own). Exit status: 0 when krgd detached or ended in order.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/program_options.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "krg/runtime/unique_fd.h"
#include "launch_environment.h"
#include "namespaces.h"
#include "processor_share.h"
#include "small_files.h"
#include "state_dir.h"

namespace krg {
namespace {

constexpr int kSignalled = 128;  // an exit status above tells of a signal, as a shell's

struct Arguments {
  std::string cluster_dir;
  bool name_host = false;
  bool stay = false;
  unsigned processors = 0;
};

Arguments parse(int argc, char** argv) {
  namespace po = boost::program_options;
  Arguments arguments;
  po::options_description known;
  known.add_options()("cluster-dir", po::value(&arguments.cluster_dir)->required())(
      "name-host", po::bool_switch(&arguments.name_host))("stay", po::bool_switch(&arguments.stay))(
      "processors", po::value(&arguments.processors));
  po::variables_map given;
  po::store(po::parse_command_line(argc, argv, known), given);
  po::notify(given);
  return arguments;
}

// Makes the node's folder and sends what this process and krgd print to its log.
Status open_log(const std::string& dir, const std::string& path) {
  if (mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) return errno_error(dir);
  UniqueFd log(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!log || !null) return errno_error(path);
  dup2(null.get(), 0);
  dup2(log.get(), 1);
  dup2(log.get(), 2);
  return {};
}

Status make_namespaces(bool name_host, unsigned rank) {
  if (!has_admin_capability())
    if (auto entered = enter_new_user_namespace(); !entered) return entered;
  if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) != 0)
    return errno_error("making the session's namespaces");
  if (name_host) {
    const std::string name = "n" + std::to_string(rank);
    if (sethostname(name.c_str(), name.size()) != 0) return errno_error("sethostname");
  }
  return keep_capabilities_over_exec();
}

[[noreturn]] void exec_krgd(const Arguments& arguments, int detach_fd) {
  if (!die_with_parent(SIGKILL, detach_fd)) _exit(1);
  const std::string libexec = libexec_dir(), program = libexec + "/krgd";
  const std::string fd = std::to_string(detach_fd);
  // libinfinipath (by libfabric) handles SIGSEGV, and a crash looks like exit(1).
  setenv("IPATH_NO_BACKTRACE", "1", 0);
  execl(program.c_str(), "krgd", "--cluster-dir", arguments.cluster_dir.c_str(), "--libexec-dir",
        libexec.c_str(), "--detach-fd", fd.c_str(), nullptr);
  std::perror(program.c_str());
  _exit(127);
}

pid_t forwarded_to = 0;
void forward_signal(int signal) {
  kill(forwarded_to, signal);
}

// Waits until krgd says that it has started (krgd_main.cpp), or has ended: 0.
char wait_for_start(int fd) {
  char byte = 0;
  ssize_t got;
  do got = read(fd, &byte, 1);
  while (got < 0 && errno == EINTR);
  return got == 1 ? byte : '\0';
}

// To the launcher: the log goes with this process, and the other ranks may wait for this one.
void tell_failure(int launcher, unsigned rank, int status, const std::string& log) {
  const auto text = read_small_file(log);
  const std::string last = text ? text->substr(text->rfind('\n') + 1) : text.error().message();
  const std::string how = status > kSignalled
                              ? "was ended by " + std::string(strsignal(status - kSignalled))
                              : "ended with status " + std::to_string(status);
  dprintf(launcher, "%snode %u: krgd %s before it was ready: %s\n", kBootFailure, rank, how.c_str(),
          last.c_str());
}

int wait_for_end(pid_t krgd) {
  int status = 0;
  while (waitpid(krgd, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : kSignalled + WTERMSIG(status);
}

Result<int> run(const Arguments& arguments) {
  const unsigned rank = launch_position().rank;
  setsid();  // not in the launcher's session, whose end it is to outlive
  // On this machine nothing but this may ever clear away what a killed job has left.
  if (arguments.stay)
    living_clusters(std::filesystem::path(arguments.cluster_dir).parent_path().string());
  auto dir = ClusterDir::open(arguments.cluster_dir, true);
  if (!dir) return dir.error();
  const UniqueFd launcher(fcntl(2, F_DUPFD_CLOEXEC, 3));
  const NodeId self{static_cast<uint16_t>(rank)};
  const std::string log = log_path(dir->path(), self);
  if (auto opened = open_log(node_dir(dir->path(), self), log); !opened) return opened.error();
  if (arguments.processors > 0)
    if (auto taken = take_processor_share(rank, arguments.processors); !taken) return taken.error();
  if (auto made = make_namespaces(arguments.name_host, rank); !made) return made.error();
  int detached[2];
  if (pipe(detached) != 0) return errno_error("pipe");
  const pid_t krgd = fork();
  if (krgd < 0) return errno_error("fork");
  if (krgd == 0) {
    close(detached[0]);
    exec_krgd(arguments, detached[1]);
  }
  close(detached[1]);
  forwarded_to = krgd;
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) ::signal(signal, forward_signal);
  const char started = wait_for_start(detached[0]);
  if (started == kKrgdDetached && !arguments.stay) return 0;
  const int status = wait_for_end(krgd);
  if (started == 0 && status != 0) tell_failure(launcher.get(), rank, status, log);
  dir->remove_if_last();
  return status;
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  try {
    auto status = krg::run(krg::parse(argc, argv));
    if (status) return *status;
    std::fprintf(stderr, "krgd_boot: %s\n", status.error().message().c_str());
  } catch (const boost::program_options::error& error) {
    std::fprintf(stderr, "krgd_boot: %s\n", error.what());
  }
  return 1;
}
