// krgrun: runs a program on a cluster: one that runs already, or one that it starts and that ends
// with it.
//
// Exit status: the program's, 128+signal; 122 a node failed, 124 the time limit, 125 the launch
// failed, 126/127 the program cannot be executed / is not found.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster_finder.h"
#include "cluster_starter.h"
#include "host_launch.h"
#include "job_runner.h"
#include "launch_environment.h"
#include "memory_size.h"
#include "run_options.h"
#include "slurm.h"
#include "state_dir.h"

namespace krg {
namespace {

// The control socket of the running cluster to join; nothing when one is to be started.
Result<std::optional<std::string>> cluster_to_join(const RunOptions& options) {
  if (options.cluster == "none") return std::optional<std::string>();
  auto path = find_cluster(options.cluster);
  if (!path) return path.error();
  if (!*path) return std::optional<std::string>();
  return std::optional(control_socket_path(**path, NodeId{0}));
}

Status check_node_count(const RunOptions& options, const std::string& control_path) {
  auto client = ControlClient::connect(control_path);
  if (!client) return client.error();
  auto status = client->call("cluster.status");
  if (!status) return status.error();
  const unsigned nodes = status->result.value("nodes", 0u);
  if (options.nodes && *options.nodes != nodes)
    return text_error(
        fmt::format("the running cluster has {} nodes, not {} (--cluster=none starts another)",
                    nodes, *options.nodes));
  return {};
}

Result<int> run_on_new_cluster(const RunOptions& options) {
  ClusterPlan plan{.name = private_cluster_name(getpid()),
                   .nodes = options.nodes.value_or(1),
                   .processors_per_node = options.cpus_per_task.value_or(0),
                   .own_network = options.own_network};
  if (options.dry_run) {
    fmt::print("would start {} virtual node{} with {} network and run: {}\n", plan.nodes,
               plan.nodes == 1 ? "" : "s", plan.own_network ? "a" : "the caller's",
               fmt::join(options.program, " "));
    return 0;
  }
  // Before anything is started: a signal meanwhile must not leave it behind.
  JobRunner runner(options);
  auto cluster = RunningCluster::start_virtual(plan);
  if (!cluster) return cluster.error();
  return runner.run(cluster->control_path());
}

constexpr std::chrono::seconds kStartLimit{60};

// slurmstepd leaves a socket of its PMIx plug-in open in the tasks that it starts (seen in
// slurm-wlm 22.05, descriptor 10). A program has no use for it, and could not be taken to another
// node with it.
void close_plugin_sockets_on_exec() {
  constexpr int kHighestLooked = 64;
  for (int fd = 3; fd < kHighestLooked; ++fd) {
    struct stat status {};
    if (fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode)) fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
}

// One of the ranks of `srun krgrun`: each brings its own node up, the first runs the program.
Result<int> run_as_rank(const RunOptions& options, const SlurmAllocation& allocation) {
  close_plugin_sockets_on_exec();
  auto root = shared_state_root();
  if (!root) return root.error();
  const std::string path = *root + "/" + allocation.cluster_name();
  auto dir = ClusterDir::open(path, true);
  if (!dir) return dir.error();
  const std::vector<std::string> boot = {libexec_dir() + "/krgd_boot", "--cluster-dir", path,
                                         "--stay"};
  if (allocation.rank() > 0) {
    auto node = ChildProcess::start(boot, {});
    if (!node) return node.error();
    while (!node->wait_for(std::chrono::hours(24))) {
    }
    dir->remove_if_last();
    return 0;
  }
  JobRunner runner(options);
  auto cluster = RunningCluster::start_ranks(std::move(*dir), boot, kStartLimit);
  if (!cluster) return cluster.error();
  return runner.run(cluster->control_path());
}

Result<int> run_on_allocation(const RunOptions& options, const SlurmAllocation& allocation,
                              int argc, char** argv) {
  auto hosts = allocation.choose_hosts(options);
  if (!hosts) return hosts.error();
  if (options.dry_run) {
    fmt::print("would start one node on each of {} by srun and run: {}\n", fmt::join(*hosts, ","),
               fmt::join(options.program, " "));
    return 0;
  }
  if (!allocation.is_on(hosts->front()))
    return SlurmAllocation::continue_on(hosts->front(), argc, argv, options.pty);
  auto root = shared_state_root();
  if (!root) return root.error();
  auto dir = ClusterDir::create(*root, allocation.cluster_name());
  if (!dir) return dir.error();
  // Slurm's default, "mixed", takes one way for fences with data and another for those without, and
  // lets ranks out of MPI_Init before others have left its first fence (22.05): messages then reach
  // an MPI that is not ready for them, and crash it.
  setenv("SLURM_PMIX_FENCE", "tree", 0);
  const auto command = SlurmAllocation::launch_command(*hosts, options, dir->path());
  JobRunner runner(options);
  auto cluster = RunningCluster::start_ranks(std::move(*dir), command, kStartLimit);
  if (!cluster) return cluster.error();
  return runner.run(cluster->control_path());
}

Result<int> run_on_hosts(const RunOptions& options) {
  auto hosts = choose_listed_hosts(options);
  if (!hosts) return hosts.error();
  if (options.cpus_per_task) return text_error("-c is for virtual nodes and Slurm");
  if (options.dry_run) {
    fmt::print("would start one node on each of {} by mpirun over {} and run: {}\n",
               fmt::join(*hosts, ","), options.remote_shell, fmt::join(options.program, " "));
    return 0;
  }
  auto root = shared_state_root();
  if (!root) return root.error();
  auto dir = ClusterDir::create(*root, private_cluster_name(getpid()));
  if (!dir) return dir.error();
  const auto command = host_launch_command(*hosts, options.remote_shell, dir->path());
  JobRunner runner(options);
  auto cluster = RunningCluster::start_ranks(std::move(*dir), command, kStartLimit);
  if (!cluster) return cluster.error();
  return runner.run(cluster->control_path());
}

Status refuse_slurm_options(const RunOptions& options) {
  if (!options.node_list.empty() || !options.exclude.empty())
    return text_error("-w and -x need a Slurm allocation or a --hostfile");
  if (options.launcher == LauncherKind::kSlurm) return text_error("this is no Slurm allocation");
  return {};
}

Result<int> run(const RunOptions& options, int argc, char** argv) {
  if (getenv("KRG_CONTROL") && ControlClient::connect_to_session())
    return JobRunner(options).run_in_session();
  set_memory_per_node(options.memory_per_node);
  set_balance(options.balance);
  set_shared_files(options.shared_files);
  if (!options.host_file.empty() || options.launcher == LauncherKind::kMpirun)
    return run_on_hosts(options);
  const bool may_use_slurm =
      options.launcher == LauncherKind::kAuto || options.launcher == LauncherKind::kSlurm;
  if (auto allocation = SlurmAllocation::current(); allocation && may_use_slurm)
    return allocation->is_rank_of_step() ? run_as_rank(options, *allocation)
                                         : run_on_allocation(options, *allocation, argc, argv);
  if (auto refused = refuse_slurm_options(options); !refused) return refused.error();
  auto joined = cluster_to_join(options);
  if (!joined) return joined.error();
  if (!*joined) return run_on_new_cluster(options);
  if (options.cpus_per_task)
    return text_error("a cluster that runs has its processors: -c needs --cluster=none");
  if (options.memory_per_node > 0)
    return text_error("a cluster that runs has its memory: --mem-per-node needs --cluster=none");
  if (options.balance)
    return text_error(
        "a cluster that runs balances as it was started: --balance needs --cluster=none");
  if (!options.shared_files.empty())
    return text_error(
        "a cluster that runs shares files as it was started: --share-files needs --cluster=none");
  if (auto checked = check_node_count(options, **joined); !checked) return checked.error();
  if (options.dry_run) {
    fmt::print("would join the cluster at {} and run: {}\n", **joined,
               fmt::join(options.program, " "));
    return 0;
  }
  return JobRunner(options).run(**joined);
}

// A handler rather than SIG_IGN, which the program would inherit over exec. A caller who ignores
// SIGPIPE hands that on.
void keep_running_on_broken_pipes() {
  struct sigaction callers {};
  sigaction(SIGPIPE, nullptr, &callers);
  if (callers.sa_handler != SIG_IGN) signal(SIGPIPE, [](int) {});
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  using namespace krg;
  auto options = parse_run_options(argc, argv);
  if (!options) {
    fmt::print(stderr, "krgrun: {}\n", options.error().message());
    return exit_status::kLaunchFailure;
  }
  if (options->wants_help) return fmt::print("{}", run_usage()), 0;
  if (options->wants_version) return fmt::print("krgrun (Kerrighed over MPI) {}\n", KRG_VERSION), 0;
  keep_running_on_broken_pipes();
  auto status = run(*options, argc, argv);
  if (status) return *status;
  fmt::print(stderr, "krgrun: {}\n", status.error().message());
  return exit_status::kLaunchFailure;
}
