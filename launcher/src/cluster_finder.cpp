// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster_finder.h"

#include <cstdlib>
#include <string_view>
#include <vector>

#include "state_dir.h"

namespace krg {
namespace {
constexpr std::string_view kPrivatePrefix = "run";
}  // namespace

std::string private_cluster_name(int pid) {
  return std::string(kPrivatePrefix) + std::to_string(pid);
}

Result<std::optional<std::string>> find_cluster(const std::string& name) {
  auto root = state_root();
  if (!root) return root.error();
  std::vector<std::string> found;
  for (const std::string& living : living_clusters(*root)) {
    const bool is_private = living.rfind(kPrivatePrefix, 0) == 0;
    if (living == name || (name.empty() && !is_private)) found.push_back(living);
  }
  if (found.empty() && !name.empty()) return text_error("no cluster named " + name + " is running");
  if (found.size() > 1) return text_error("several clusters are running: say which one");
  if (found.empty()) return std::optional<std::string>();
  return std::optional(*root + "/" + found.front());
}

Result<ControlClient> connect_to_cluster(const std::string& name) {
  if (name.empty() && std::getenv("KRG_CONTROL"))
    if (auto session = ControlClient::connect_to_session()) return session;
  auto path = find_cluster(name);
  if (!path) return path.error();
  if (!*path) return errno_error("no cluster is running (kradm cluster start)", ENOENT);
  return ControlClient::connect(control_socket_path(**path, NodeId{0}));
}

}  // namespace krg
