// krgd: the daemon of one node; the init of the node's session. Started by krgd_boot inside fresh
// namespaces.
//
//   krgd --cluster-dir DIR --libexec-dir DIR [--detach-fd FD]
//
// --detach-fd: a byte is written there when krgd has started (launch_environment.h).
// SPDX-License-Identifier: GPL-2.0-or-later
#include <malloc.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <boost/program_options.hpp>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "krg/runtime/crash_report.h"
#include "krg/runtime/log.h"
#include "krg/runtime/loop_precedence.h"
#include "krg/runtime/loop_reminder.h"
#include "krg/runtime/short_slice.h"
#include "krgd.h"
#include "launch_environment.h"
#include "memory_size.h"
#include "node_transport.h"
#include "own_limits.h"

namespace krg {
namespace {

constexpr int kMallocArenas = 16;
// Short turns, but longer than the shortest ones (0.1 ms): who is woken has the processor at once
// only if nobody else is to have it sooner, and LoopReminder is woken for this thread.
constexpr std::chrono::microseconds kSlice{300};

struct Arguments {
  KrgdOptions options;
  int detach_fd = -1;
};

Arguments parse(int argc, char** argv) {
  namespace po = boost::program_options;
  Arguments arguments;
  po::options_description known;
  known.add_options()("cluster-dir", po::value(&arguments.options.cluster_dir)->required())(
      "libexec-dir", po::value(&arguments.options.libexec_dir)->required())(
      "detach-fd", po::value(&arguments.detach_fd));
  po::variables_map given;
  po::store(po::parse_command_line(argc, argv, known), given);
  po::notify(given);
  // Reaches every node as all KRG_ variables do, whatever starts it.
  if (const char* memory = getenv(kMemoryPerNodeVariable))
    arguments.options.memory_per_node = strtoull(memory, nullptr, 10);
  if (const char* folder = getenv(kShareFilesVariable)) arguments.options.shared_files = folder;
  arguments.options.balance = getenv(kBalanceVariable) != nullptr;
  return arguments;
}

// Lets the launcher go where it is not needed: its end no longer ends this node.
void tell_launcher(int fd, bool needs_it) {
  if (!needs_it) prctl(PR_SET_PDEATHSIG, 0);
  const char word = needs_it ? kKrgdStarted : kKrgdDetached;
  if (write(fd, &word, 1) != 1) log_warn("krgd", "the launcher has gone already");
  close(fd);
}

// An init ignores signals that it does not handle; these end the cluster.
Result<UniqueFd> block_termination_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  UniqueFd fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return errno_error("signalfd");
  return fd;
}

Status run(const Arguments& arguments) {
  raise_own_limits();
  go_last_when_memory_runs_out();
  // Everything below finds a /proc of this session and mounts that nobody else sees.
  auto session = Session::create();
  if (!session) return session.error();
  auto loop = EventLoop::create();
  if (!loop) return loop.error();
  // Signals are blocked before MPI or the workers start threads.
  auto signals = block_termination_signals();
  if (!signals) return signals.error();
  auto reaper = ChildReaper::create(*loop);
  if (!reaper) return reaper.error();
  // Meets the other nodes, with MPI's help where there are others.
  Patience patience;
  auto transport = NodeTransport::boot(*loop, patience);
  if (!transport) return transport.error();
  set_log_node("n" + std::to_string((*transport)->get().self().value));

  Krgd krgd(arguments.options, *loop, **reaper, *session, (*transport)->get(), patience);
  auto terminated = loop->watch(signals->get(), EPOLLIN, [&](uint32_t) {
    signalfd_siginfo info;
    if (read(signals->get(), &info, sizeof info) > 0)
      krgd.cluster.shut_down(strsignal(static_cast<int>(info.ssi_signo)));
  });
  if (!terminated) return terminated.error();
  if (auto started = krgd.start(); !started) return started;
  if (arguments.detach_fd >= 0) tell_launcher(arguments.detach_fd, (*transport)->needs_launcher());
  if (auto taken = take_short_slices(kSlice); !taken)
    log_debug("krgd", "{}", taken.error().message());
  const LoopPrecedence woken_first(*loop);
  const LoopReminder reminder(*loop);
  loop->run();
  return {};
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  using namespace krg;
  // Else the first allocation of some new thread reads /sys/devices/system/cpu/online, to know how
  // many arenas there may be: krgd's own view of the cluster, which the loop does not serve while
  // it waits for that very thread.
  mallopt(M_ARENA_MAX, kMallocArenas);
  if (getpid() != 1) {
    std::fprintf(stderr, "krgd is started by krgrun, through krgd_boot\n");
    return 1;
  }
  Arguments arguments;
  try {
    arguments = parse(argc, argv);
  } catch (const boost::program_options::error& error) {
    std::fprintf(stderr, "krgd: %s\n", error.what());
    return 1;
  }
  install_crash_report("krgd");
  auto ran = run(arguments);
  if (!ran) log_error("krgd", "{}", ran.error().message());
  return ran ? 0 : 1;
}
