// SPDX-License-Identifier: GPL-2.0-or-later
#include "host_launch.h"

#include <fmt/ranges.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <sstream>
#include <string_view>

#include "krg/runtime/unique_fd.h"
#include "launch_environment.h"

namespace krg {
namespace {

bool contains(const std::vector<std::string>& hosts, const std::string& host) {
  return std::find(hosts.begin(), hosts.end(), host) != hosts.end();
}

std::vector<std::string> split_at_commas(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream text(list);
  for (std::string part; std::getline(text, part, ',');) parts.push_back(part);
  return parts;
}

Result<std::vector<std::string>> read_host_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return errno_error(path);
  std::vector<std::string> hosts;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string host;
    if (words >> host && !contains(hosts, host)) hosts.push_back(host);
  }
  return hosts;
}

// A socket can be bound to this machine's own addresses only.
bool is_this_machine(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* first = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &first) != 0) return false;
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(first, freeaddrinfo);
  for (const addrinfo* one = first; one; one = one->ai_next) {
    const UniqueFd socket(::socket(one->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (socket && bind(socket.get(), one->ai_addr, one->ai_addrlen) == 0) return true;
  }
  return false;
}

}  // namespace

Result<std::vector<std::string>> choose_listed_hosts(const RunOptions& options) {
  if (options.host_file.empty()) return text_error("--launcher=mpirun needs a --hostfile");
  auto hosts = read_host_file(options.host_file);
  if (!hosts) return hosts;
  const std::vector<std::string> wanted = split_at_commas(options.node_list);
  for (const std::string& host : wanted)
    if (!contains(*hosts, host)) return text_error(options.host_file + " does not have " + host);
  const std::vector<std::string> excluded = split_at_commas(options.exclude);
  std::erase_if(*hosts, [&](const std::string& host) {
    return (!wanted.empty() && !contains(wanted, host)) || contains(excluded, host);
  });
  const size_t count = options.nodes.value_or(static_cast<unsigned>(hosts->size()));
  if (hosts->size() < count || count == 0)
    return text_error(
        fmt::format("{} hosts asked for, {} has {}", count, options.host_file, hosts->size()));
  hosts->resize(count);
  if (!is_this_machine(hosts->front()))
    return text_error("the program starts on the first host, which must be this machine: " +
                      hosts->front() + " is not");
  return hosts;
}

std::vector<std::string> host_launch_command(const std::vector<std::string>& hosts,
                                             const std::string& remote_shell,
                                             const std::string& cluster_dir) {
  std::vector<std::string> words = {"mpirun",
                                    "--allow-run-as-root",
                                    "--bind-to",
                                    "none",
                                    "--mca",
                                    "plm",
                                    "rsh",
                                    "--mca",
                                    "plm_rsh_agent",
                                    remote_shell,
                                    "--mca",
                                    "plm_rsh_no_tree_spawn",
                                    "1",
                                    "--host",
                                    fmt::format("{}", fmt::join(hosts, ",")),
                                    "-np",
                                    std::to_string(hosts.size())};
  // A remote shell hands no environment on.
  for (char** variable = environ; *variable; ++variable) {
    const std::string_view text = *variable;
    if (text.substr(0, 4) == "KRG_")
      words.insert(words.end(), {"-x", std::string(text.substr(0, text.find('=')))});
  }
  words.insert(words.end(), {libexec_dir() + "/krgd_boot", "--cluster-dir", cluster_dir, "--stay"});
  return words;
}

}  // namespace krg
