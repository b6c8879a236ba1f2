// SPDX-License-Identifier: GPL-2.0-or-later
#include "job_table.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "krg/procmgr/fork_sight.h"
#include "krg/runtime/log.h"
#include "session_messages.h"

namespace krg {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds kKillRetry{5};

json environment_of(const NodeContext& node, const Session& session, JobId job) {
  return {{"KRG_CONTROL", session.root() + "/ctl.sock"},
          {"KRG_NODES", std::to_string(node.node_count)},
          {"KRG_JOB", std::to_string(job.value)}};
}

}  // namespace

JobTable::JobTable(NodeContext& node, ControlServer& control, const Session& session)
    : node_(node), control_(control), session_(session) {
  using Request = ControlServer::Request;
  using Reply = ControlServer::Reply;
  control.add_command("job.begin",
                      [this](Request q, Reply r) { begin(std::move(q), std::move(r)); });
  control.add_command("job.started",
                      [this](Request q, Reply r) { started(std::move(q), std::move(r)); });
  control.add_command("job.finish",
                      [this](Request q, Reply r) { finish(std::move(q), std::move(r)); });
  control.on_disconnect([this](ControlServer::ConnectionId connection) {
    for (const auto& [id, job] : jobs_)
      if (job.connection == connection) return end_everywhere(id, [](unsigned) {});
  });
  node.messenger.on_request<EndJobMessage>(
      [this](NodeId, const EndJobMessage& message, std::string_view, Messenger::Reply reply) {
        auto kept = std::make_shared<Messenger::Reply>(std::move(reply));
        end_here(JobId{message.job}, [kept](unsigned killed) { kept->ok(std::to_string(killed)); });
      });
  node.messenger.on_peer_failure([this](NodeId failed) { tell_node_failure(failed); });
}

void JobTable::on_task_start(std::function<Status(const Task&)> prepare) {
  preparations_.push_back(std::move(prepare));
}

void JobTable::begin(ControlServer::Request request, ControlServer::Reply reply) {
  const JobId id{static_cast<uint32_t>(node_.self.value) << 16 | next_job_};
  auto uts = node_.jobs->descriptor(id);
  if (!uts) return reply.fail(uts.error());
  ++next_job_;
  json names = session_.namespaces().names();
  std::vector<int> fds = session_.namespaces().descriptors();
  names.push_back("uts");
  fds.push_back(*uts);
  jobs_[id] = Job{request.connection, request.arguments.value("options", json::object()), {}};
  log_info("jobs", "job {} begins", id.value);
  reply.ok({{"job", id.value},
            {"node", node_.self.value},
            {"nodes", node_.node_count},
            {"memory_per_node", node_.memory_per_node},
            {"shared_files", !node_.shared_files.empty()},
            {"forks_by_clone", has_to_see_forks()},
            {"distant_threads", has_distant_threads_},
            {"environment", environment_of(node_, session_, id)},
            {"namespaces", names}},
           fds);
}

Result<JobId> JobTable::job_of(const ControlServer::Request& request) const {
  const JobId id{request.arguments.value("job", 0u)};
  if (!jobs_.contains(id)) return errno_error("no such job", ESRCH);
  return id;
}

void JobTable::started(ControlServer::Request request, ControlServer::Reply reply) {
  auto id = job_of(request);
  if (!id) return reply.fail(id.error());
  if (request.peer.pid <= 1 || node_.jobs->job_of(request.peer.pid) != *id)
    return reply.fail(errno_error("a task must have joined its job's session", EPERM));
  Job& job = jobs_.at(*id);
  UniqueFd listener = request.fds.empty() ? UniqueFd() : std::move(request.fds.front());
  for (const auto& prepare : preparations_)
    if (auto prepared = prepare(Task{*id, request.peer.pid, job.options, listener}); !prepared)
      return reply.fail(prepared.error());
  job.tasks.push_back(request.peer.pid);
  note_streams(request.peer.pid, job);
  log_info("jobs", "job {}: task {} starts", id->value, request.peer.pid);
  reply.ok();
}

void JobTable::finish(ControlServer::Request request, ControlServer::Reply reply) {
  auto id = job_of(request);
  if (!id) return reply.fail(id.error());
  auto kept = std::make_shared<ControlServer::Reply>(std::move(reply));
  end_everywhere(*id, [kept](unsigned killed) { kept->ok({{"killed", killed}}); });
}

void JobTable::end_everywhere(JobId job, std::function<void(unsigned)> done) {
  jobs_.erase(job);
  // Answers when the last node's answer, or its failure, lets go of it.
  auto killed_in_all = std::shared_ptr<unsigned>(new unsigned(0), [done](unsigned* killed) {
    done(*killed);
    delete killed;
  });
  for (uint16_t peer = 0; peer < node_.node_count; ++peer) {
    if (node_.messenger.is_failed(NodeId{peer})) continue;
    node_.messenger.request(NodeId{peer}, EndJobMessage{.job = job.value}, {},
                            [killed_in_all](Result<std::string> killed) {
                              if (killed)
                                *killed_in_all += static_cast<unsigned>(std::stoul(*killed));
                            });
  }
}

void JobTable::end_here(JobId job, std::function<void(unsigned)> done) {
  endings_[job].done.push_back(std::move(done));
  kill_members(job);
}

// A process may fork between the listing and the kill, so it is repeated until the list is empty.
void JobTable::kill_members(JobId job) {
  Ending& ending = endings_.at(job);
  const auto members = node_.jobs->members(job);
  for (pid_t pid : members) {
    kill(pid, SIGKILL);
    ending.killed.insert(pid);
  }
  if (!members.empty()) {
    ending.retry = node_.loop.after(kKillRetry, [this, job] { kill_members(job); });
    return;
  }
  auto ended = endings_.extract(job);
  node_.jobs->forget(job);
  log_info("jobs", "job {} has ended here, {} killed", job.value, ended.mapped().killed.size());
  for (const auto& done : ended.mapped().done)
    done(static_cast<unsigned>(ended.mapped().killed.size()));
}

void JobTable::tell_node_failure(NodeId failed) {
  for (const auto& [id, job] : jobs_)
    control_.notify(job.connection, "node_failed", {{"node", failed.value}});
}

std::vector<pid_t> JobTable::tasks_of(JobId job) const {
  auto found = jobs_.find(job);
  return found == jobs_.end() ? std::vector<pid_t>() : found->second.tasks;
}

// It has krgrun's still, which it may have by other numbers later.
void JobTable::note_streams(pid_t task, Job& job) {
  for (int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    struct stat found {};
    if (stat(fmt::format("/proc/{}/fd/{}", task, stream).c_str(), &found) != 0) found = {};
    job.streams.emplace_back(found.st_dev, found.st_ino);
  }
}

int JobTable::stream_of(dev_t device, ino_t inode, bool is_written) const {
  constexpr size_t kStreams = STDERR_FILENO + 1;
  for (const auto& [id, job] : jobs_)
    for (size_t i = 0; i < job.streams.size(); ++i)
      if (job.streams[i] == std::pair(device, inode) &&
          (i % kStreams != STDIN_FILENO) == is_written)
        return static_cast<int>(i % kStreams);
  return -1;
}

json JobTable::describe() const {
  json list = json::array();
  for (const auto& [id, job] : jobs_)
    list.push_back({{"job", id.value}, {"tasks", job.tasks}, {"options", job.options}});
  return list;
}

}  // namespace krg
