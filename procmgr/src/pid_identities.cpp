// SPDX-License-Identifier: GPL-2.0-or-later
#include "pid_identities.h"

#include <time.h>
#include <unistd.h>

#include "gather.h"
#include "packed_bytes.h"
#include "proc_view_messages.h"

namespace krg {
namespace {

using proc_view_messages::IdentitiesRequest;
using Identities = PidIdentities::Identities;

// Bodies whose shadows are bodies' children and so on: a longer chain is a bug, not a family.
constexpr uint8_t kMaxDepth = 16;
constexpr int kMaxAncestors = 1000;
constexpr pid_t kKrgd = 1;

int64_t clock_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

Identities parse_identities(std::string_view payload) {
  Identities identities;
  PackedReader reader(payload);
  while (!reader.at_end()) {
    auto identity = reader.get<PidIdentity>();
    if (reader.ok()) identities[identity.pid] = identity;
  }
  return identities;
}

// A process of this node whose shadow, or whose body's shadow, has to be asked for.
struct Question {
  PidIdentity kernel;
  // The bodies that decide; nothing: the kernel does. `whole`: the process is itself a body.
  std::optional<pid_t> whole, group, session;
};

const PidIdentity* find(const Identities& identities, std::optional<pid_t> pid) {
  if (!pid) return nullptr;
  auto found = identities.find(*pid);
  return found == identities.end() ? nullptr : &found->second;
}

// Puts together what this kernel and the shadows' nodes say.
PidIdentity combine(const Question& question, const Identities& answers) {
  PidIdentity identity = question.kernel;
  if (const PidIdentity* whole = find(answers, question.whole)) return *whole;
  if (const PidIdentity* group = find(answers, question.group)) identity.group = group->group;
  const PidIdentity* session = find(answers, question.session);
  if (session == nullptr) return identity;
  identity.session = session->session;
  identity.tty = session->tty;
  identity.foreground_group = session->foreground_group;
  return identity;
}

}  // namespace

int64_t boot_epoch_ns() {
  return clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_BOOTTIME);
}

struct PidIdentities::Impl : std::enable_shared_from_this<Impl> {
  Impl(NodeContext& n, ProcessTable& t, PlainFiles p, int64_t epoch_ns)
      : node(n), table(t), proc(std::move(p)), own_boot_epoch_ns(epoch_ns) {}

  // procfs does not block on "stat": it takes no lock that a stopped or faulting process holds.
  std::optional<PidIdentity> kernel_identity(pid_t pid) const {
    auto text = proc.read({geteuid(), getegid()}, std::to_string(pid) + "/stat");
    if (!text) return std::nullopt;
    auto stat = parse_pid_stat(*text);
    if (!stat) return std::nullopt;
    int64_t since_boot_ns =
        static_cast<int64_t>(stat->start_ticks) * (1'000'000'000 / sysconf(_SC_CLK_TCK));
    return PidIdentity{.pid = pid,
                       .parent = stat->parent,
                       .group = stat->group,
                       .session = stat->session,
                       .tty = stat->tty,
                       .foreground_group = stat->foreground_group,
                       .start_epoch_ns = own_boot_epoch_ns + since_boot_ns};
  }

  std::optional<Question> question(pid_t pid, std::map<NodeId, std::vector<pid_t>>& ask) {
    auto kernel = kernel_identity(pid);
    if (!kernel) return std::nullopt;
    Question question{*kernel, {}, {}, {}};
    if (const ProcessTable::Body* body = table.find_body(pid)) {
      question.whole = pid;
      question.kernel.group = body->virtual_group;  // unless the shadow's node says otherwise
      question.kernel.session = body->virtual_session;
      ask[body->origin].push_back(pid);
      return question;
    }
    if (const ProcessTable::Body* body = table.find_group(kernel->group)) {
      question.group = question.session = kernel->group;
      question.kernel.group = body->virtual_group;
      question.kernel.session = body->virtual_session;
      ask[body->origin].push_back(kernel->group);
    } else if (pid_t leader = body_above(*kernel)) {
      body = table.find_group(leader);
      question.session = leader;
      question.kernel.session = body->virtual_session;
      ask[body->origin].push_back(leader);
    }
    return question;
  }

  // Bodies are in krgd's own session, and what they fork; of a process there that is in a group of
  // its own, an ancestor tells which body it comes from. 0: from none.
  pid_t body_above(const PidIdentity& kernel) const {
    if (kernel.session != getsid(0) || table.bodies().empty()) return 0;
    std::optional<PidIdentity> ancestor = kernel;
    for (int level = 0; level < kMaxAncestors && ancestor && ancestor->parent > kKrgd; ++level) {
      ancestor = kernel_identity(ancestor->parent);
      if (ancestor && table.find_group(ancestor->group) != nullptr) return ancestor->group;
    }
    return 0;
  }

  void resolve(const std::vector<pid_t>& pids, uint8_t depth, std::function<void(Identities)> done);
  void ask(NodeId origin, const std::vector<pid_t>& pids, uint8_t depth,
           std::function<void(Result<Identities>)> done);

  NodeContext& node;
  ProcessTable& table;
  const PlainFiles proc;
  const int64_t own_boot_epoch_ns;
};

void PidIdentities::Impl::ask(NodeId origin, const std::vector<pid_t>& pids, uint8_t depth,
                              std::function<void(Result<Identities>)> done) {
  PackedWriter payload;
  for (pid_t pid : pids) payload.put(pid);
  node.messenger.request(origin, IdentitiesRequest{.version = 1, .depth = depth}, payload.bytes(),
                         [done = std::move(done)](Result<std::string> reply) {
                           if (!reply) return done(reply.error());
                           done(parse_identities(*reply));
                         });
}

void PidIdentities::Impl::resolve(const std::vector<pid_t>& pids, uint8_t depth,
                                  std::function<void(Identities)> done) {
  std::map<NodeId, std::vector<pid_t>> to_ask;
  std::vector<Question> questions;
  for (pid_t pid : pids)
    if (auto asked = question(pid, to_ask)) questions.push_back(std::move(*asked));
  std::vector<NodeId> origins;
  if (depth < kMaxDepth)
    for (const auto& [origin, unused] : to_ask) origins.push_back(origin);
  gather<Identities>(
      origins,
      [&](NodeId origin, auto answered) {
        ask(origin, to_ask[origin], static_cast<uint8_t>(depth + 1), answered);
      },
      [questions = std::move(questions), done = std::move(done)](NodeAnswers<Identities> answers) {
        Identities all, identities;
        for (auto& [origin, some] : answers) all.merge(some);
        for (const Question& question : questions)
          identities[question.kernel.pid] = combine(question, all);
        done(std::move(identities));
      });
}

PidIdentities::PidIdentities(NodeContext& node, ProcessTable& table, PlainFiles proc,
                             int64_t own_boot_epoch_ns)
    : impl_(std::make_shared<Impl>(node, table, std::move(proc), own_boot_epoch_ns)) {
  node.messenger.on_request<IdentitiesRequest>(
      [weak = std::weak_ptr<Impl>(impl_)](NodeId, const IdentitiesRequest& request,
                                          std::string_view payload, Messenger::Reply reply) {
        auto self = weak.lock();
        if (!self) return;
        std::vector<pid_t> pids;
        PackedReader reader(payload);
        while (!reader.at_end()) pids.push_back(reader.get<pid_t>());
        auto answer = std::make_shared<Messenger::Reply>(std::move(reply));
        self->resolve(pids, request.depth, [answer](Identities identities) {
          PackedWriter text;
          for (const auto& [pid, identity] : identities) text.put(identity);
          answer->ok(text.bytes());
        });
      });
}
PidIdentities::~PidIdentities() = default;

bool PidIdentities::differs_from_kernel(pid_t pid) const {
  ProcessTable& table = impl_->table;
  if (table.find_body(pid) != nullptr) return true;
  pid_t group = getpgid(pid);
  if (group > 0 && table.find_group(group) != nullptr) return true;
  if (getsid(pid) != getsid(0) || table.bodies().empty()) return false;
  auto kernel = impl_->kernel_identity(pid);
  return kernel && impl_->body_above(*kernel) != 0;
}

void PidIdentities::resolve(std::vector<pid_t> pids, std::function<void(Identities)> done) {
  impl_->resolve(pids, 0, std::move(done));
}

}  // namespace krg
