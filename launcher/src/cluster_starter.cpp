// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster_starter.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "krg/runtime/unix_socket.h"
#include "launch_environment.h"
#include "processor_share.h"
#include "small_files.h"

namespace krg {

using nlohmann::json;

namespace {
constexpr std::chrono::seconds kOrderlyLimit{5};
// A rank that does not come up says so on its launcher's output only, while the others wait for it.
constexpr std::chrono::milliseconds kFailureLook{200};

// What the first rank that failed has said there; empty: none has.
std::string boot_failure(const std::string& launch_log) {
  std::ifstream log(launch_log);
  for (std::string line; std::getline(log, line) && !log.eof();)
    if (line.starts_with(kBootFailure)) return line.substr(std::strlen(kBootFailure));
  return "";
}
}  // namespace

Result<RunningCluster> RunningCluster::start_virtual(const ClusterPlan& plan) {
  if (auto enough = check_processor_shares(plan.nodes, plan.processors_per_node); !enough)
    return enough.error();
  auto root = state_root();
  if (!root) return root.error();
  auto dir = ClusterDir::create(*root, plan.name);
  if (!dir) return dir.error();
  RunningCluster cluster(std::move(*dir));
  if (auto listens = cluster.listen_for_ready(); !listens) return listens.error();
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  cluster.log_ = cluster.path() + "/host.log";
  UniqueFd log(open(cluster.log_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!null || !log) return errno_error(cluster.log_);
  std::vector<std::string> command = {libexec_dir() + "/krg_host",
                                      "--nodes",
                                      std::to_string(plan.nodes),
                                      "--cluster-dir",
                                      cluster.path(),
                                      "--network",
                                      plan.own_network ? "veth" : "host",
                                      "--processors",
                                      std::to_string(plan.processors_per_node)};
  UniqueFd watched;
  std::vector<int> kept;
  if (!plan.outlives_caller) {
    int line[2];
    if (pipe2(line, O_CLOEXEC) != 0) return errno_error("pipe");
    watched = UniqueFd(line[0]);
    cluster.lifeline_ = UniqueFd(line[1]);
    command.insert(command.end(), {"--lifeline", std::to_string(watched.get())});
    kept.push_back(watched.get());
  }
  auto host = ChildProcess::start(
      command, {.input = null.get(), .output = log.get(), .error = log.get()}, kept);
  if (!host) return host.error();
  cluster.host_ = std::move(*host);
  if (auto ready = cluster.wait_until_ready(plan.start_limit); !ready) return ready.error();
  return cluster;
}

Result<RunningCluster> RunningCluster::start_ranks(ClusterDir dir, std::vector<std::string> command,
                                                   std::chrono::seconds start_limit) {
  RunningCluster cluster(std::move(dir));
  if (auto listens = cluster.listen_for_ready(); !listens) return listens.error();
  cluster.log_ = cluster.path() + "/launch.log";
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  UniqueFd log(open(cluster.log_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!null || !log) return errno_error(cluster.log_);
  // Ranks are pid 1 of namespaces of their own: no shared memory between them (btl vader), TCP
  // only.
  setenv("OMPI_MCA_pml", "ob1", 0);
  setenv("OMPI_MCA_btl", "tcp,self", 0);
  auto host = ChildProcess::start(
      std::move(command),
      {.input = null.get(), .output = log.get(), .error = log.get(), .new_session = true});
  if (!host) return host.error();
  cluster.host_ = std::move(*host);
  if (auto ready = cluster.wait_until_ready(start_limit); !ready) return ready.error();
  return cluster;
}

Status RunningCluster::listen_for_ready() {
  auto listener = listen_seqpacket(path() + "/boot.sock", 0600);
  if (!listener) return listener.error();
  listener_ = std::move(*listener);
  return {};
}

Status RunningCluster::wait_until_ready(std::chrono::seconds limit) {
  Status ready = await_owner_socket(limit);
  if (!ready) print_logs();
  listener_.reset();
  unlink((path() + "/boot.sock").c_str());
  return ready;
}

Status RunningCluster::await_owner_socket(std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!owner_) {
    auto left =
        std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left.count() <= 0) return errno_error("the cluster did not start in time", ETIMEDOUT);
    pollfd awaited[] = {{listener_.get(), POLLIN, 0}, {host_->descriptor(), POLLIN, 0}};
    left = std::min(left, kFailureLook);
    if (poll(awaited, 2, static_cast<int>(left.count())) < 0 && errno != EINTR)
      return errno_error("poll");
    if (auto why = boot_failure(log_); !why.empty()) return text_error(why);
    if (awaited[0].revents) {
      auto connection = accept_connection(listener_.get());
      if (!connection) continue;
      owner_ = std::move(*connection);
    } else if (awaited[1].revents) {
      return text_error("the cluster did not start");
    }
  }
  auto packet = receive_packet(owner_.get());
  if (!packet || packet->end_of_stream) return text_error("the cluster ended while it started");
  if (!json::parse(packet->bytes, nullptr, false).value("ready", false))
    return text_error("the cluster did not start");
  return {};
}

// The last line of each log says why a node did not come up.
void RunningCluster::print_logs() const {
  namespace fs = std::filesystem;
  std::error_code ignored;
  for (const auto& entry : fs::recursive_directory_iterator(path(), ignored)) {
    if (entry.path().extension() != ".log") continue;
    auto text = read_small_file(entry.path());
    if (!text || text->empty()) continue;
    const std::string last = text->substr(text->rfind('\n') + 1);
    fmt::print(stderr, "krgrun: {}: {}\n", fs::relative(entry.path(), path(), ignored).string(),
               last);
  }
}

void RunningCluster::keep_running() {
  static_cast<void>(send_packet(owner_.get(), json{{"keep", true}}.dump()));
  owner_.reset();
  host_->release();
  host_.reset();
}

void RunningCluster::stop() {
  if (!host_) return;
  if (ask_to_shut_down(control_path()))
    host_->wait_for(kOrderlyLimit);
  else
    host_->signal(SIGTERM);  // srun and mpirun then end their ranks
  owner_.reset();
  lifeline_.reset();
  host_->wait_for(kOrderlyLimit);
  host_.reset();  // kills it if it still runs, and with it all
  dir_.remove();
}

RunningCluster::~RunningCluster() {
  stop();
}

bool ask_to_shut_down(const std::string& control_path) {
  auto client = ControlClient::connect(control_path);
  return client && client->call("cluster.shutdown");
}

}  // namespace krg
