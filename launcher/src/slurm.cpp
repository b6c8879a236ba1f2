// SPDX-License-Identifier: GPL-2.0-or-later
#include "slurm.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "exec_words.h"
#include "launch_environment.h"

namespace krg {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// n[1-3,7] -> n1 n2 n3 n7; scontrol knows every notation.
Result<std::vector<std::string>> expand_hosts(const std::string& list) {
  if (list.find('\'') != std::string::npos) return text_error("not a list of nodes: " + list);
  const std::string command = "scontrol show hostnames '" + list + "'";
  std::unique_ptr<FILE, int (*)(FILE*)> output(popen(command.c_str(), "re"), pclose);
  if (!output) return errno_error("scontrol");
  std::vector<std::string> hosts;
  std::array<char, 1024> line;
  while (std::fgets(line.data(), line.size(), output.get())) {
    std::string host = line.data();
    while (!host.empty() && host.back() == '\n') host.pop_back();
    if (!host.empty()) hosts.push_back(host);
  }
  if (hosts.empty()) return text_error("scontrol does not know the nodes " + list);
  return hosts;
}

bool contains(const std::vector<std::string>& hosts, const std::string& host) {
  return std::find(hosts.begin(), hosts.end(), host) != hosts.end();
}

}  // namespace

std::optional<SlurmAllocation> SlurmAllocation::current() {
  SlurmAllocation found;
  found.job_id_ = variable("SLURM_JOB_ID");
  found.node_list_ = variable("SLURM_JOB_NODELIST");
  if (found.job_id_.empty() || found.node_list_.empty()) return std::nullopt;
  found.node_name_ = variable("SLURMD_NODENAME");
  found.step_id_ = variable("SLURM_STEP_ID");
  // PMIX_RANK is in the environment of ranks only, not in a batch script's.
  if (std::getenv("PMIX_RANK")) {
    const LaunchPosition position = launch_position();
    found.rank_ = position.rank;
    found.step_tasks_ = position.size;
  }
  return found;
}

std::string SlurmAllocation::cluster_name() const {
  return "run" + job_id_ + "." + (is_rank_of_step() ? "s" + step_id_ : std::to_string(getpid()));
}

Result<std::vector<std::string>> SlurmAllocation::choose_hosts(const RunOptions& options) const {
  auto all = expand_hosts(node_list_);
  if (!all) return all;
  std::vector<std::string> wanted = *all, excluded;
  if (!options.node_list.empty()) {
    auto listed = expand_hosts(options.node_list);
    if (!listed) return listed;
    for (const std::string& host : *listed)
      if (!contains(*all, host)) return text_error("node " + host + " is not in the allocation");
    std::erase_if(wanted, [&](const std::string& host) { return !contains(*listed, host); });
  }
  if (!options.exclude.empty()) {
    auto listed = expand_hosts(options.exclude);
    if (!listed) return listed;
    std::erase_if(wanted, [&](const std::string& host) { return contains(*listed, host); });
  }
  const size_t count = options.nodes.value_or(static_cast<unsigned>(wanted.size()));
  if (wanted.size() < count || count == 0)
    return text_error(
        fmt::format("{} nodes asked for, the allocation has {}", count, wanted.size()));
  wanted.resize(count);
  return wanted;
}

Error SlurmAllocation::continue_on(const std::string& host, int argc, char** argv, bool pty) {
  std::vector<std::string> words = {"srun", "--overlap", "--mpi=none", "-N1",
                                    "-n1",  "-w",        host,         "--quiet"};
  if (pty || isatty(0)) words.push_back("--pty");
  std::array<char, 4096> self{};
  if (readlink("/proc/self/exe", self.data(), self.size() - 1) < 0)
    return errno_error("/proc/self/exe");
  words.emplace_back(self.data());
  words.insert(words.end(), argv + 1, argv + argc);
  auto pointers = pointers_to(words);
  execvp(pointers[0], pointers.data());
  return errno_error("cannot start srun");
}

std::vector<std::string> SlurmAllocation::launch_command(const std::vector<std::string>& hosts,
                                                         const RunOptions& options,
                                                         const std::string& cluster_dir) {
  const std::string count = std::to_string(hosts.size());
  std::vector<std::string> words = {"srun",
                                    "--overlap",
                                    "--mpi=pmix",
                                    "--quiet",
                                    "--kill-on-bad-exit=0",
                                    "--cpu-bind=none",
                                    "-N",
                                    count,
                                    "-n",
                                    count,
                                    "--ntasks-per-node=1",
                                    "-w",
                                    fmt::format("{}", fmt::join(hosts, ","))};
  if (options.cpus_per_task) words.push_back("-c" + std::to_string(*options.cpus_per_task));
  words.insert(words.end(), {libexec_dir() + "/krgd_boot", "--cluster-dir", cluster_dir, "--stay"});
  return words;
}

}  // namespace krg
