// SPDX-License-Identifier: GPL-2.0-or-later
#include "virtual_machine_room.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <optional>

#include "exec_words.h"
#include "krg/procmgr/placement.h"
#include "krg/runtime/unique_fd.h"
#include "launch_environment.h"
#include "namespaces.h"
#include "small_files.h"
#include "virtual_network.h"

namespace krg {
namespace {

// Where exec_on_node() finds the network namespaces, inside the room.
constexpr const char* kNetworksVariable = "KRG_VIRTUAL_NETWORKS";

Status mount_private(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return errno_error(path);
  if (mount("tmpfs", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700") != 0)
    return errno_error("mounting a tmpfs over " + path);
  return {};
}

Status create_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  if (!file) return errno_error(path, EIO);
  return {};
}

// The node's number in an address that VirtualNetwork gave out.
std::optional<unsigned> node_of(const std::string& address) {
  for (unsigned node = 0; node < kMaxVirtualNodes; ++node)
    if (VirtualNetwork::address_of(node) == address) return node;
  return std::nullopt;
}

std::string shell_quoted(const std::string& word) {
  std::string quoted = "'";
  for (char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace

Result<VirtualMachineRoom> VirtualMachineRoom::make_namespaces(const Options& options) {
  if (!has_admin_capability())
    if (auto entered = enter_new_user_namespace(); !entered) return entered.error();
  if (unshare(CLONE_NEWPID) != 0) return errno_error("making a PID namespace");
  return VirtualMachineRoom(options);
}

int VirtualMachineRoom::run_init(int parent_pipe) {
  if (!die_with_parent(SIGKILL, parent_pipe)) return 1;
  if (auto prepared = prepare(); !prepared) {
    fmt::print(stderr, "krg_host: {}\n", prepared.error().message());
    return 1;
  }
  auto launcher = start(launch_command());
  if (!launcher) {
    fmt::print(stderr, "krg_host: {}\n", launcher.error().message());
    return 1;
  }
  // The launcher ends when the nodes run by themselves; they are this init's children then.
  int status = 0;
  for (pid_t ended; (ended = wait(&status)) > 0 || errno == EINTR;)
    if (ended == *launcher && status != 0) {
      fmt::print(stderr, "krg_host: the nodes did not start (mpirun: status {})\n", status);
      return 1;
    }
  return 0;
}

Status VirtualMachineRoom::prepare() {
  if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) != 0)
    return errno_error("making namespaces");
  if (auto slave = make_mounts_slave(); !slave) return slave;
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
    return errno_error("mounting proc over /proc");
  private_dir_ = options_.cluster_dir + "/room";
  if (auto made = mount_private(private_dir_); !made) return made;
  if (options_.own_network)
    if (auto made = make_network(); !made) return made;
  return keep_capabilities_over_exec();
}

Status VirtualMachineRoom::make_network() {
  if (unshare(CLONE_NEWNET) != 0) return errno_error("making a network namespace");
  auto network = VirtualNetwork::create(options_.nodes);
  if (!network)
    return {Error{network.error().code,
                  network.error().context + " (without networks of their own: --network=host)"}};
  setenv(kNetworksVariable, private_dir_.c_str(), 1);
  // A bind mount gives the namespace a name for the agent to open.
  for (unsigned node = 0; node < options_.nodes; ++node) {
    const std::string name = private_dir_ + "/" + VirtualNetwork::address_of(node);
    if (auto made = create_file(name, ""); !made) return made;
    const std::string space = fmt::format("/proc/self/fd/{}", network->namespace_of(node));
    if (mount(space.c_str(), name.c_str(), nullptr, MS_BIND, nullptr) != 0)
      return errno_error("binding " + name);
  }
  return add_host_names();
}

// n0, n1, ... resolve on every virtual node, as machines of a cluster would.
Status VirtualMachineRoom::add_host_names() const {
  std::string hosts = read_small_file("/etc/hosts").value_or("127.0.0.1 localhost") + "\n";
  for (unsigned node = 0; node < options_.nodes; ++node)
    hosts += fmt::format("{} n{}\n", VirtualNetwork::address_of(node), node);
  const std::string path = private_dir_ + "/hosts";
  if (auto made = create_file(path, hosts); !made) return made;
  chmod(path.c_str(), 0644);
  if (mount(path.c_str(), "/etc/hosts", nullptr, MS_BIND, nullptr) != 0)
    return errno_error("binding /etc/hosts");
  return {};
}

// The ranks are the node's krgd_boot; a single one needs no mpirun.
std::vector<std::string> VirtualMachineRoom::launch_command() const {
  const std::string libexec = libexec_dir();
  std::vector<std::string> words;
  if (options_.nodes > 1)
    words = {"mpirun",          "--bind-to", "none",
             "--oversubscribe", "-np",       std::to_string(options_.nodes)};
  if (options_.nodes > 1 && options_.own_network) {
    std::string hosts;
    for (unsigned node = 0; node < options_.nodes; ++node)
      hosts += (node ? "," : "") + VirtualNetwork::address_of(node);
    words.insert(words.end(), {"--host", hosts});
  }
  words.insert(words.end(), {libexec + "/krgd_boot", "--cluster-dir", options_.cluster_dir});
  if (options_.processors_per_node > 0)
    words.insert(words.end(), {"--processors", std::to_string(options_.processors_per_node)});
  if (!options_.own_network) return words;
  words.emplace_back("--name-host");
  std::vector<std::string> command = {libexec + "/krg_host", "--enter",
                                      VirtualNetwork::address_of(0)};
  for (const std::string& word : words) command.push_back(shell_quoted(word));
  return command;
}

std::vector<std::string> VirtualMachineRoom::launch_environment() const {
  const char* interfaces = options_.own_network ? VirtualNetwork::kSubnet : "127.0.0.0/8";
  std::vector<std::string> environment = environment_outside_of_mpi();
  // Ranks are pid 1 of namespaces of their own: no shared memory between them (btl vader), TCP
  // only.
  for (const std::string& setting :
       {std::string("OMPI_ALLOW_RUN_AS_ROOT=1"), std::string("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"),
        std::string("OMPI_MCA_pml=ob1"), std::string("OMPI_MCA_btl=tcp,self"),
        std::string("OMPI_MCA_plm=rsh"), std::string("OMPI_MCA_plm_rsh_no_tree_spawn=1"),
        "OMPI_MCA_plm_rsh_agent=" + libexec_dir() + "/krg_host --enter",
        "OMPI_MCA_orte_tmpdir_base=" + private_dir_,
        std::string("OMPI_MCA_btl_tcp_if_include=") + interfaces,
        std::string("OMPI_MCA_oob_tcp_if_include=") + interfaces,
        "KRG_LIBEXEC_DIR=" + libexec_dir(),
        std::string("KRG_OFI_INTERFACE=") + (options_.own_network ? "eth0" : "lo")})
    environment.push_back(setting);
  if (usable_cores() < 2 * options_.nodes) environment.emplace_back("KRG_SHARED_CORES=1");
  return environment;
}

Result<pid_t> VirtualMachineRoom::start(const std::vector<std::string>& command) const {
  const std::string log_path = options_.cluster_dir + "/launch.log";
  UniqueFd log(open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!log || !null) return errno_error(log_path);
  std::vector<std::string> words = command, environment = launch_environment();
  auto arguments = pointers_to(words), variables = pointers_to(environment);
  const pid_t child = fork();
  if (child < 0) return errno_error("fork");
  if (child == 0) {
    dup2(null.get(), 0);
    dup2(log.get(), 1);
    dup2(log.get(), 2);
    execvpe(arguments[0], arguments.data(), variables.data());
    std::perror(arguments[0]);
    _exit(127);
  }
  return child;
}

Status VirtualMachineRoom::exec_on_node(const std::string& address, char** command) {
  const char* networks = getenv(kNetworksVariable);
  const auto node = node_of(address);
  if (!networks || !node) return errno_error("no virtual node has the address " + address, EINVAL);
  const std::string path = std::string(networks) + "/" + address;
  UniqueFd space(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!space || setns(space.get(), CLONE_NEWNET) != 0) return errno_error(path);
  const std::string name = "n" + std::to_string(*node);
  if (unshare(CLONE_NEWUTS) != 0 || sethostname(name.c_str(), name.size()) != 0)
    return errno_error("naming the node");
  // As with ssh, the words are joined to one line for a shell; whoever passes them quoted them.
  std::string line;
  for (char** word = command; *word; ++word) line += (line.empty() ? "" : " ") + std::string(*word);
  execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
  return errno_error("/bin/sh");
}

}  // namespace krg
