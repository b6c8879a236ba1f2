// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_tree.h"

#include <fmt/format.h>
#include <linux/sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>

namespace krg {
namespace {

Status done(std::string what, int64_t result) {
  if (result >= 0) return {};
  return errno_error(std::move(what), static_cast<int>(-result));
}

Error about_member(pid_t pid, const Error& why) {
  return {why.code, fmt::format("process {}: {}", pid, why.context)};
}

}  // namespace

FamilyTree::FamilyTree(ChildReaper& reaper, const ProcessFamily& family, Leads leads)
    : reaper_(reaper),
      family_(family),
      leads_(std::move(leads)),
      processes_(family.members.size()) {
  for (uint32_t i = 0; i < family_.members.size(); ++i) {
    children_[family_.members[i].parent].push_back(i);
    members_[family_.members[i].pid] = i;
  }
  find_births();
}

FamilyTree::~FamilyTree() {
  for (const Helper& helper : helpers_) helper.process->kill();
  for (const auto& process : processes_)
    if (process) process->kill();
}

// Of one that leads its own session its children tell: those that are in another one were made
// before it, or are adopted. Children come behind their parents.
void FamilyTree::find_births() {
  births_.resize(family_.members.size());
  for (auto i = static_cast<uint32_t>(births_.size()); i-- > 0;) {
    const FamilyMember& member = family_.members[i];
    if (member.session != member.pid) births_[i] = member.session;
    const auto parent = members_.find(member.parent);
    if (!births_[i] || parent == members_.end()) continue;
    if (*births_[i] == family_.members[parent->second].session) continue;
    if (is_adopted(parent->second, *births_[i]))
      adopted_.insert(adopted_.begin(), i);
    else
      births_[parent->second] = births_[i];
  }
}

// Its parent has not forked it in that session, which is another one than the parent's: it does not
// lead its own, or nobody above it is in that session whom it may have it from.
bool FamilyTree::is_adopted(uint32_t parent, pid_t born_in) const {
  const FamilyMember* above = &family_.members[parent];
  if (above->session != above->pid) return true;
  for (;;) {
    if (above->parent == FamilyMember::kInit || above->session == born_in) return false;
    const auto next = members_.find(above->parent);
    if (next == members_.end()) return born_in != 0;
    above = &family_.members[next->second];
  }
}

Status FamilyTree::grow(FrozenThread root) {
  processes_[0] = FrozenProcess::adopt(reaper_, std::move(root));
  if (auto raised = raise(0); !raised) return raised;
  if (auto raised = raise_orphans(); !raised) return raised;
  if (auto raised = raise_adopted(); !raised) return raised;
  if (auto led = lead_ended_groups(); !led) return led;
  if (auto joined = join_groups(); !joined) return joined;
  return end_helpers();
}

// Makes all that descend from it.
Status FamilyTree::raise(uint32_t index) {
  const FamilyMember& member = family_.members[index];
  if (member.session != member.pid) return raise_children(index, false);
  if (auto raised = raise_children(index, false); !raised) return raised;
  const int64_t led = processes_[index]->call(SYS_setsid, {});
  if (led < 0 && index != 0) return done("setsid", led);  // the root may lead one already
  if (auto done = leads_(member, *processes_[index]); !done) return done;
  return raise_children(index, true);
}

Status FamilyTree::raise_children(uint32_t index, bool leads_already) {
  const FamilyMember& member = family_.members[index];
  const bool leads = member.session == member.pid;
  const auto children = children_.find(member.pid);
  if (children == children_.end()) return {};
  for (uint32_t child : children->second) {
    if (std::ranges::find(adopted_, child) != adopted_.end()) continue;
    const auto birth = births_[child];
    const bool is_of_own = !birth || *birth == member.session;
    if (leads && is_of_own != leads_already) continue;
    if (auto forked = fork_member(*processes_[index], child); !forked) return forked;
    if (auto raised = raise(child); !raised) return raised;
  }
  return {};
}

// One may lead the session of another, or have made who does.
Status FamilyTree::raise_orphans() {
  const auto found = children_.find(FamilyMember::kInit);
  if (found == children_.end()) return {};
  std::vector<uint32_t> left = found->second;
  while (!left.empty()) {
    const size_t before = left.size();
    for (uint32_t orphan : std::exchange(left, {})) {
      const pid_t session = births_[orphan].value_or(family_.members.front().session);
      const auto leader = members_.find(session);
      if (leader != members_.end() && !processes_[leader->second]) {
        left.push_back(orphan);
        continue;
      }
      auto parent = parent_of_orphan(session);
      if (!parent) return parent.error();
      if (auto forked = fork_member(**parent, orphan); !forked) return forked;
      if (auto raised = raise(orphan); !raised) return raised;
    }
    if (left.size() == before)
      return errno_error(fmt::format("process {}: the session of its own descendant",
                                     family_.members[left.front()].pid),
                         ENOTSUP);
  }
  return {};
}

// One may be adopted by another, or lead its session.
Status FamilyTree::raise_adopted() {
  std::vector<uint32_t> left = adopted_;
  while (!left.empty()) {
    const size_t before = left.size();
    for (uint32_t child : std::exchange(left, {})) {
      const auto leader = members_.find(*births_[child]);
      const bool is_led = leader == members_.end() || processes_[leader->second];
      if (!is_led || !processes_[members_.at(family_.members[child].parent)])
        left.push_back(child);
      else if (auto adopted = adopt(child); !adopted)
        return adopted;
    }
    if (left.size() == before)
      return errno_error(fmt::format("process {}: the session of its own descendant",
                                     family_.members[left.front()].pid),
                         ENOTSUP);
  }
  return {};
}

// What a helper below the adopter has made is the adopter's when the helper has ended: none between
// them is told to adopt yet.
Status FamilyTree::adopt(uint32_t child) {
  const uint32_t parent = members_.at(family_.members[child].parent);
  auto maker = maker_of_adopted(parent, *births_[child]);
  if (!maker) return about_member(family_.members[child].pid, maker.error());
  if (adopters_.insert(parent).second)
    if (auto told = done("PR_SET_CHILD_SUBREAPER",
                         processes_[parent]->call(SYS_prctl, {PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0}));
        !told)
      return told;
  if (auto forked = fork_member(**maker, child); !forked) return forked;
  return raise(child);
}

// A helper in that session, below its adopter.
Result<std::shared_ptr<FrozenProcess>> FamilyTree::maker_of_adopted(uint32_t parent,
                                                                    pid_t session) {
  const auto leader = members_.find(session);
  if (leader != members_.end()) {
    if (!descends(leader->second, parent))
      return errno_error(fmt::format("session {}, whose leader its parent has not", session),
                         ENOTSUP);
    return make_helper(processes_[leader->second], 0);
  }
  auto helper = lead_ended_session(session, parent);
  if (helper && makers_[session] != parent)
    return errno_error(fmt::format("session {}, which another one's children are in", session),
                       ENOTSUP);
  return helper;
}

bool FamilyTree::descends(uint32_t member, uint32_t from) const {
  while (member != from) {
    const auto parent = members_.find(family_.members[member].parent);
    if (parent == members_.end()) return false;
    member = parent->second;
  }
  return true;
}

// ---- processes ----

// `pid`: 0: any; `end_signal`: what its maker is told its end by.
Result<std::shared_ptr<FrozenProcess>> FamilyTree::fork(FrozenProcess& maker, pid_t pid,
                                                        uint64_t end_signal) {
  auto scratch = maker.scratch();
  auto instruction = maker.instruction();
  if (!scratch) return scratch.error();
  if (!instruction) return instruction.error();
  const RemoteAddr pid_at = *scratch + sizeof(clone_args);
  clone_args arguments{};
  arguments.exit_signal = end_signal;
  if (pid != 0) {
    arguments.set_tid = pid_at.value;
    arguments.set_tid_size = 1;
  }
  if (auto put = maker.write_value(*scratch, arguments); !put) return put.error();
  if (auto put = maker.write_value(pid_at, pid); !put) return put.error();
  pid_t made = 0;
  const int64_t result =
      maker.main().call_clone(*instruction, SYS_clone3, {scratch->value, sizeof arguments}, made);
  if (made == 0)
    return errno_error(fmt::format("a process with pid {}", pid),
                       static_cast<int>(result < 0 ? -result : ESRCH));
  auto thread = FrozenThread::stopped(made);
  if (!thread) return thread.error();
  return FrozenProcess::adopt(reaper_, std::move(*thread));
}

Status FamilyTree::fork_member(FrozenProcess& maker, uint32_t index) {
  auto made = fork(maker, family_.members[index].pid, SIGCHLD);
  if (!made) return made.error();
  processes_[index] = std::move(*made);
  return {};
}

Result<std::shared_ptr<FrozenProcess>> FamilyTree::make_helper(std::shared_ptr<FrozenProcess> maker,
                                                               pid_t pid) {
  auto made = fork(*maker, pid, 0);
  if (!made) return made.error();
  helpers_.push_back({*made, std::move(maker)});
  return *made;
}

// ---- those that have ended ----

Result<std::shared_ptr<FrozenProcess>> FamilyTree::lead_ended_session(pid_t session,
                                                                      uint32_t maker) {
  if (const auto known = leaders_.find(session); known != leaders_.end()) return known->second;
  auto leader = make_helper(processes_[maker], session);
  if (!leader) return leader.error();
  if (auto led = done("setsid", (*leader)->call(SYS_setsid, {})); !led) return led.error();
  makers_[session] = maker;
  return leaders_[session] = *leader;
}

// Some process that is in it, itself no member but where a member leads it or the root is.
Result<std::shared_ptr<FrozenProcess>> FamilyTree::process_in(pid_t session) {
  if (session == 0) return processes_[0];
  if (const auto leader = members_.find(session); leader != members_.end())
    return processes_[leader->second];
  return lead_ended_session(session);
}

// It ends, so that the orphan becomes init's child.
Result<std::shared_ptr<FrozenProcess>> FamilyTree::parent_of_orphan(pid_t session) {
  if (const auto known = adoptive_.find(session); known != adoptive_.end()) return known->second;
  auto maker = process_in(session);
  if (!maker) return maker.error();
  const bool is_helper = leaders_.contains(session);
  auto parent = is_helper ? maker : make_helper(*maker, 0);
  if (!parent) return parent.error();
  return adoptive_[session] = *parent;
}

Status FamilyTree::lead_ended_groups() {
  for (pid_t leader : family_.ended_leaders()) {
    const auto member = std::find_if(family_.members.begin(), family_.members.end(),
                                     [&](const FamilyMember& one) { return one.group == leader; });
    if (member == family_.members.end() || leaders_.contains(leader)) continue;
    auto maker = process_in(member->session);
    if (!maker) return maker.error();
    auto helper = make_helper(*maker, leader);
    if (!helper) return helper.error();
    if (auto led = done("setpgid", (*helper)->call(SYS_setpgid, {0, 0})); !led) return led;
  }
  return {};
}

// Those that have made others last: what a helper has made is init's when that has ended.
Status FamilyTree::end_helpers() {
  leaders_.clear();
  adoptive_.clear();
  for (; !helpers_.empty(); helpers_.pop_back()) {
    Helper& helper = helpers_.back();
    const pid_t pid = helper.process->pid();
    helper.process->main().forget();
    helper.process.reset();
    ::kill(pid, SIGKILL);
    waitid(P_PID, static_cast<id_t>(pid), nullptr, WEXITED | __WALL);  // as its tracer
    const int64_t reaped =
        helper.maker->call(SYS_wait4, {static_cast<uint64_t>(pid), 0, __WALL, 0});
    if (auto ended = done("a process that led others", reaped); !ended) return ended;
  }
  for (uint32_t adopter : std::exchange(adopters_, {}))
    processes_[adopter]->call(SYS_prctl, {PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0});
  return {};
}

// Leaders first; a session's leader is one already.
Status FamilyTree::join_groups() {
  for (const bool leads : {true, false})
    for (uint32_t i = 0; i < family_.members.size(); ++i) {
      const FamilyMember& member = family_.members[i];
      if (member.group <= 0 || (member.group == member.pid) != leads) continue;
      if (member.session == member.pid) continue;
      const auto group = static_cast<uint64_t>(member.group);
      auto joined = done(fmt::format("process group {} of {}", member.group, member.pid),
                         processes_[i]->call(SYS_setpgid, {0, group}));
      if (!joined) return joined;
    }
  return {};
}

Status FamilyTree::end_zombies() {
  for (uint32_t i = 0; i < family_.members.size(); ++i) {
    const FamilyMember& member = family_.members[i];
    if (!member.has_ended()) continue;
    FrozenProcess& process = *processes_[i];
    const int status = member.wait_status;
    if (WIFEXITED(status)) {
      process.call(SYS_exit_group, {static_cast<uint64_t>(WEXITSTATUS(status))});
    } else {
      auto scratch = process.scratch();
      if (scratch && process.write_value(*scratch, rlimit{0, 0}))
        process.call(SYS_prlimit64, {0, RLIMIT_CORE, scratch->value, 0});
      ::kill(member.pid, WTERMSIG(status));
      process.main().set_signal_mask(0);
      process.thaw();  // into the signal
    }
    processes_[i].reset();
  }
  return {};
}

}  // namespace krg
