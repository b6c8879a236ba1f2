// krg_host: the machine under a cluster's virtual nodes. Everything of the cluster lives in its PID
// namespace (an ordinary user's: and user namespace), so that its end is the end of all.
//
//   krg_host --nodes N --cluster-dir DIR --network veth|host [--processors N] [--lifeline FD]
//   krg_host --enter ADDRESS COMMAND...     mpirun's agent: runs COMMAND on the virtual node with
//   that address
//
// Two processes: the outer one waits for the life line (a pipe from krgrun; without one: until it
// is told to end) and then ends and cleans up; the inner one, init of the PID namespace, makes the
// network, starts the nodes, and ends when the last has ended.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/program_options.hpp>
#include <cstdio>
#include <string>

#include "state_dir.h"
#include "virtual_machine_room.h"

namespace krg {
namespace {

struct Arguments {
  VirtualMachineRoom::Options room;
  int lifeline = -1;
};

Arguments parse(int argc, char** argv) {
  namespace po = boost::program_options;
  Arguments arguments;
  std::string network;
  po::options_description known;
  known.add_options()("nodes", po::value(&arguments.room.nodes)->required())(
      "cluster-dir", po::value(&arguments.room.cluster_dir)->required())(
      "network", po::value(&network)->default_value("veth"))(
      "processors", po::value(&arguments.room.processors_per_node))("lifeline",
                                                                    po::value(&arguments.lifeline));
  po::variables_map given;
  po::store(po::parse_command_line(argc, argv, known), given);
  po::notify(given);
  arguments.room.own_network = network != "host";
  return arguments;
}

// Waits until the life line breaks, a signal asks for the end, or the init has ended by itself.
void supervise(int init_fd, int lifeline) {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  UniqueFd signal_fd(signalfd(-1, &signals, SFD_CLOEXEC));
  pollfd awaited[] = {{init_fd, POLLIN, 0}, {signal_fd.get(), POLLIN, 0}, {lifeline, 0, 0}};
  while (poll(awaited, 3, -1) < 0 && errno == EINTR) {
  }
}

Result<int> run(const Arguments& arguments) {
  setsid();  // the terminal's signals are krgrun's to forward
  auto dir = ClusterDir::open(arguments.room.cluster_dir, false);
  if (!dir) return dir.error();
  auto room = VirtualMachineRoom::make_namespaces(arguments.room);
  if (!room) return room.error();
  int alive[2];  // tells the init that its parent lives
  if (pipe2(alive, O_CLOEXEC) != 0) return errno_error("pipe");
  const pid_t init = fork();
  if (init < 0) return errno_error("fork");
  if (init == 0) {
    close(alive[0]);
    _exit(room->run_init(alive[1]));
  }
  close(alive[1]);
  UniqueFd init_fd(static_cast<int>(syscall(SYS_pidfd_open, init, 0)));
  if (!init_fd) return errno_error("pidfd_open");
  supervise(init_fd.get(), arguments.lifeline);
  kill(init, SIGKILL);
  int status = 0;
  while (waitpid(init, &status, 0) < 0 && errno == EINTR) {
  }
  const bool started_well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (started_well || WIFSIGNALED(status)) dir->remove();
  return started_well ? 0 : 1;
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  using namespace krg;
  if (argc > 3 && std::string(argv[1]) == "--enter") {
    auto failed = VirtualMachineRoom::exec_on_node(argv[2], argv + 3);
    std::fprintf(stderr, "krg_host: %s\n", failed.error().message().c_str());
    return 1;
  }
  try {
    auto status = run(parse(argc, argv));
    if (status) return *status;
    std::fprintf(stderr, "krg_host: %s\n", status.error().message().c_str());
  } catch (const boost::program_options::error& error) {
    std::fprintf(stderr, "krg_host: %s\n", error.what());
  }
  return 1;
}
