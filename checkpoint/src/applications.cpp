// SPDX-License-Identifier: GPL-2.0-or-later
#include "applications.h"

#include <fmt/format.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <set>
#include <string>

#include "krg/procmgr/job_namespaces.h"
#include "payloads.h"

namespace krg {

using namespace checkpoint_messages;

namespace {

// 0: it is outside of the session, or gone.
pid_t parent_of(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("PPid:")) return std::atoi(line.c_str() + 5);
  return 0;
}

NodeId home_of(JobId job) {
  return NodeId{static_cast<uint16_t>(job.value >> 16)};
}

Error not_checkpointable(pid_t pid) {
  return errno_error(fmt::format("process {}: CHECKPOINTABLE is not effective "
                                 "(krg_capset -e +CHECKPOINTABLE {})",
                                 pid, pid),
                     EPERM);
}

}  // namespace

void Applications::listen() {
  node_.messenger.on_request<FindApplication>(
      [weak = weak_from_this()](NodeId, const FindApplication& ask, std::string_view,
                                Messenger::Reply reply) {
        auto self = weak.lock();
        if (!self) return;
        auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
        self->climb(ask, [shared](Result<Application> found) {
          if (!found) return shared->fail(found.error());
          shared->ok({reinterpret_cast<const char*>(&*found), sizeof *found});
        });
      });
  node_.messenger.on_request<ListTopmost>([weak = weak_from_this()](NodeId, const ListTopmost&,
                                                                    std::string_view,
                                                                    Messenger::Reply reply) {
    if (auto self = weak.lock()) reply.ok(rows(self->local_roots()));
  });
}

bool Applications::is_checkpointable(pid_t pid) const {
  auto sets = capabilities_.of(pid);
  return sets && sets->effective.has(Capability::kCheckpointable);
}

std::vector<pid_t> Applications::local_roots() const {
  std::set<pid_t> roots;
  for (pid_t pid : table_.local_processes()) {
    if (!is_checkpointable(pid)) continue;
    pid_t root = pid;
    for (pid_t parent = parent_of(root); parent > 1 && is_checkpointable(parent);
         parent = parent_of(root))
      root = parent;
    const auto job = job_of_orphan(root);
    const auto task = job ? only_task_of(*job) : std::nullopt;
    if (!task || !is_checkpointable(*task)) roots.insert(root);
  }
  return {roots.begin(), roots.end()};
}

struct Applications::Search {
  std::function<void(std::vector<pid_t>)> done;
  std::set<pid_t> topmost, roots;
  size_t left = 0;
};

void Applications::find_all(std::function<void(std::vector<pid_t>)> done) {
  auto search = std::make_shared<Search>();
  search->done = std::move(done);
  search->left = node_.node_count;
  for (unsigned i = 0; i < node_.node_count; ++i)
    node_.messenger.request(NodeId{static_cast<uint16_t>(i)}, ListTopmost{}, {},
                            [self = shared_from_this(), search](const Result<std::string>& reply) {
                              if (reply)
                                for (pid_t pid : split_rows<pid_t>(*reply))
                                  search->topmost.insert(pid);
                              if (--search->left == 0) self->find_roots(search);
                            });
}

// A node does not know what is above a process that has come from another one.
void Applications::find_roots(const std::shared_ptr<Search>& search) {
  if (search->topmost.empty()) return search->done({});
  search->left = search->topmost.size();
  for (pid_t pid : std::set(search->topmost))
    find(pid, [search](const Result<Application>& found) {
      if (found) search->roots.insert(found->root);
      if (--search->left == 0) search->done({search->roots.begin(), search->roots.end()});
    });
}

void Applications::ask(NodeId to, const FindApplication& question, Done done) {
  node_.messenger.request(to, question, {}, [done = std::move(done)](Result<std::string> reply) {
    Application found;
    if (!reply) return done(reply.error());
    if (reply->size() != sizeof found) return done(errno_error("application", EPROTO));
    std::memcpy(&found, reply->data(), sizeof found);
    done(found);
  });
}

void Applications::find(pid_t pid, Done done) {
  table_.locate(GlobalPid{pid},
                [self = shared_from_this(), pid, done = std::move(done)](Result<NodeId> where) {
                  if (!where)
                    return done(errno_error(fmt::format("there is no process {}", pid), ESRCH));
                  FindApplication question;
                  question.pid = pid;
                  self->ask(*where, question, done);
                });
}

// None: it is no orphan, or of no job that is known.
std::optional<uint32_t> Applications::job_of_orphan(pid_t pid) const {
  if (parent_of(pid) != getpid() || table_.find_body(pid) || !node_.jobs) return std::nullopt;
  const auto job = node_.jobs->job_of(pid);
  return job ? std::optional(job->value) : std::nullopt;
}

std::optional<pid_t> Applications::only_task_of(uint32_t job) const {
  const auto tasks = tasks_of_(job);
  return tasks.size() == 1 ? std::optional(tasks.front()) : std::nullopt;
}

void Applications::climb_from_task(FindApplication ask, Done done) {
  const auto task = only_task_of(std::exchange(ask.job, 0));
  if (!task || *task == ask.root || kill(*task, 0) != 0)
    return done(Application{ask.root, ask.root_node, 0});
  ask.pid = *task;
  ask.is_above = 0;
  climb(ask, std::move(done));
}

void Applications::climb(FindApplication ask, Done done) {
  if (ask.job != 0) return climb_from_task(ask, std::move(done));
  for (pid_t pid = ask.is_above ? parent_of(ask.pid) : ask.pid; pid > 1; pid = parent_of(pid)) {
    ask.pid = pid;
    ask.is_above = 0;
    if (const auto* shadow = table_.find_shadow(pid))
      return this->ask(shadow->body_node, ask, std::move(done));
    if (!is_checkpointable(pid)) break;
    ask.root = pid;
    ask.root_node = node_.self;
    if (const auto* body = table_.find_body(pid)) {
      ask.is_above = 1;
      return this->ask(body->origin, ask, std::move(done));
    }
  }
  if (ask.root == 0) return done(not_checkpointable(ask.pid));
  if (const auto job = ask.pid == ask.root ? job_of_orphan(ask.pid) : std::nullopt) {
    ask.job = *job;
    return this->ask(home_of(JobId{*job}), ask, std::move(done));
  }
  // A job's first process is krgrun's child, whose shadow stays where it began.
  const bool is_task = parent_of(ask.root) == 0 && node_.jobs;
  const auto job = is_task ? node_.jobs->job_of(ask.root) : std::nullopt;
  const bool is_all = job && only_task_of(job->value) == ask.root;
  done(Application{ask.root, ask.root_node, is_all ? job->value : 0});
}

}  // namespace krg
