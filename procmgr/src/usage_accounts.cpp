// SPDX-License-Identifier: GPL-2.0-or-later
#include "usage_accounts.h"

#include <algorithm>

namespace krg {
namespace {

// How often accounts of processes that are gone are looked for.
constexpr unsigned kEndsPerSweep = 256;
constexpr pid_t kKrgdPid = 1;

void add_time(timeval& sum, const timeval& more) {
  constexpr long kMicrosecondsPerSecond = 1'000'000;
  sum.tv_sec += more.tv_sec;
  sum.tv_usec += more.tv_usec;
  sum.tv_sec += sum.tv_usec / kMicrosecondsPerSecond;
  sum.tv_usec %= kMicrosecondsPerSecond;
}

}  // namespace

void add_usage(struct rusage& sum, const struct rusage& more) {
  add_time(sum.ru_utime, more.ru_utime);
  add_time(sum.ru_stime, more.ru_stime);
  sum.ru_maxrss = std::max(sum.ru_maxrss, more.ru_maxrss);
  sum.ru_minflt += more.ru_minflt;
  sum.ru_majflt += more.ru_majflt;
  sum.ru_inblock += more.ru_inblock;
  sum.ru_oublock += more.ru_oublock;
  sum.ru_nvcsw += more.ru_nvcsw;
  sum.ru_nivcsw += more.ru_nivcsw;
}

// The process, its parent, and so on up to krgd.
std::vector<UsageAccounts::Ancestor> UsageAccounts::line_of(pid_t pid) const {
  std::vector<Ancestor> line;
  while (pid > kKrgdPid) {
    line.push_back({pid, tree_.find(pid)});
    pid = line.back().place.parent;
  }
  return line;
}

std::vector<pid_t> UsageAccounts::child_ends(pid_t shadow, const struct rusage& usage) {
  if (++ends_since_sweep_ >= kEndsPerSweep) sweep();
  const ProcessTree::Place child = tree_.find(shadow);
  // Ancestors too: when the parent is gone, its account must still find its own parent's.
  const auto ancestors = line_of(child.parent);
  for (size_t i = 0; i < ancestors.size(); ++i)
    open(ancestors[i], i + 1 < ancestors.size() ? ancestors[i + 1].place.start_time : 0);
  if (!ancestors.empty())  // else nobody asks
    add_unreaped(accounts_.at(child.parent), {shadow, child.start_time, usage});
  std::vector<pid_t> pids;
  for (const Ancestor& ancestor : ancestors) pids.push_back(ancestor.pid);
  return pids;
}

// A process that had threads elsewhere may have more to be charged for at its end.
void UsageAccounts::add_unreaped(Account& account, const Ended& child) {
  for (Ended& known : account.unreaped)
    if (known.pid == child.pid && known.start_time == child.start_time)
      return add_usage(known.usage, child.usage);
  account.unreaped.push_back(child);
}

UsageAccounts::Account& UsageAccounts::open(const Ancestor& process, uint64_t parent_start_time) {
  const auto& [pid, place] = process;
  const uint64_t start_time = place.start_time;
  auto found = accounts_.find(pid);
  if (found != accounts_.end() && found->second.start_time != start_time) {
    // The pid of a process that is gone: its parent is charged, if it is still there.
    const pid_t heir = found->second.parent;
    if (Account* account = find(heir)) settle(heir, *account);
    accounts_.erase(pid);
    found = accounts_.end();
  }
  const pid_t parent = place.parent;
  if (found == accounts_.end())
    found =
        accounts_.emplace(pid, Account{start_time, parent, parent_start_time, false, {}, {}}).first;
  found->second.parent = parent;  // it may have got another
  found->second.parent_start_time = parent_start_time;
  return found->second;
}

UsageAccounts::Account* UsageAccounts::find(pid_t pid) {
  auto found = accounts_.find(pid);
  if (found == accounts_.end() || is_gone(pid, found->second.start_time)) return nullptr;
  return &found->second;
}

bool UsageAccounts::concerns_waits_of(pid_t pid) const {
  auto found = accounts_.find(pid);
  if (found == accounts_.end()) return false;
  if (!found->second.unreaped.empty()) return true;
  return std::any_of(accounts_.begin(), accounts_.end(),
                     [&](const auto& entry) { return entry.second.parent == pid; });
}

void UsageAccounts::charge(Account& account, const struct rusage& usage) {
  add_usage(account.total, usage);
  account.has_total = true;
}

// Charges the account for the children that have been waited for meanwhile.
void UsageAccounts::settle(pid_t pid, Account& account) {
  std::erase_if(account.unreaped, [&](const Ended& child) {
    if (!is_gone(child.pid, child.start_time)) return false;
    charge(account, child.usage);
    return true;
  });
  std::vector<pid_t> gone;
  for (const auto& [child, entry] : accounts_)
    if (entry.parent == pid && entry.parent_start_time == account.start_time &&
        is_gone(child, entry.start_time))
      gone.push_back(child);
  for (pid_t child : gone) {
    Account& closed = accounts_.at(child);
    settle(child, closed);
    if (closed.has_total) charge(account, closed.total);
    accounts_.erase(child);
  }
}

std::optional<struct rusage> UsageAccounts::of_children(pid_t pid) {
  Account* account = find(pid);
  if (!account) return std::nullopt;
  settle(pid, *account);
  if (!account->has_total) return std::nullopt;
  return account->total;
}

std::optional<struct rusage> UsageAccounts::of_waited_child(pid_t pid, pid_t child) {
  Account* account = find(pid);
  if (!account) return std::nullopt;
  for (const Ended& ended : account->unreaped)
    if (ended.pid == child) return ended.usage;
  auto found = accounts_.find(child);
  if (found == accounts_.end() || found->second.parent != pid) return std::nullopt;
  settle(child, found->second);
  if (!found->second.has_total) return std::nullopt;
  return found->second.total;
}

std::optional<struct rusage> UsageAccounts::close(pid_t pid) {
  auto found = accounts_.find(pid);
  if (found == accounts_.end()) return std::nullopt;
  settle(pid, found->second);
  std::optional<struct rusage> total;
  if (found->second.has_total) total = found->second.total;
  accounts_.erase(found);
  return total;
}

// Hands the totals of processes that are gone to their parents, and drops what has no parent left.
void UsageAccounts::sweep() {
  ends_since_sweep_ = 0;
  std::vector<pid_t> living;
  for (const auto& [pid, account] : accounts_)
    if (!is_gone(pid, account.start_time)) living.push_back(pid);
  for (pid_t pid : living) settle(pid, accounts_.at(pid));
  std::erase_if(accounts_, [&](const auto& entry) {
    const auto& [pid, account] = entry;
    return is_gone(pid, account.start_time) && !accounts_.contains(account.parent);
  });
}

}  // namespace krg
