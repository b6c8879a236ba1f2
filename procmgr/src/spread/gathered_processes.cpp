// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/gathered_processes.h"

#include <chrono>
#include <utility>

#include "krg/runtime/control_server.h"
#include "process_status.h"

namespace krg {

std::function<void()> GatheredProcesses::reporter(const std::string& job, pid_t pid) {
  using Clock = std::chrono::steady_clock;
  if (job.empty()) return nullptr;
  return [this, job, pid, since = Clock::now(), told = false]() mutable {
    if (std::exchange(told, true)) return;
    std::string command = read_proc_text(pid, "comm").value_or("?\n");
    command.pop_back();
    const std::chrono::duration<double> after = Clock::now() - since;
    processes_.push_back({job, std::move(command), pid, after.count()});
    if (processes_.size() > kMost) processes_.pop_front();
  };
}

nlohmann::json GatheredProcesses::take(const std::string& job) {
  nlohmann::json all = nlohmann::json::array();
  for (const Process& process : processes_)
    if (process.job == job)
      all.push_back(
          {{"pid", process.pid}, {"command", process.command}, {"after_s", process.after_s}});
  std::erase_if(processes_, [&](const Process& process) { return process.job == job; });
  return all;
}

void GatheredProcesses::add_commands(ControlServer& server) {
  server.add_command(
      "spread.gathered", [this](const ControlServer::Request& request, ControlServer::Reply reply) {
        reply.ok({{"processes", take(request.arguments.value("job", std::string()))}});
      });
}

}  // namespace krg
