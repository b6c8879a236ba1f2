// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/capability_table.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "krg/procmgr/process_table.h"
#include "krg/runtime/unique_fd.h"
#include "slack_tag.h"

namespace krg {
namespace {

constexpr pid_t kInit = 1;  // krgd itself

}  // namespace

struct CapabilityTable::Impl {
  // What a tag stands for; all that a descendant's sets depend on.
  struct Inheritance {
    CapabilitySet effective, permitted;
    auto operator<=>(const Inheritance&) const = default;
    CapabilitySets sets() const { return CapabilitySets{{}, {}, effective, permitted}.at_fork(); }
  };
  // A process whose own sets differ from what its tag says. Goes away with the process (pidfd).
  struct Entry {
    CapabilitySets sets;
    uint64_t start_time;
    UniqueFd pidfd;
    EventLoop::Watch watch;  // after pidfd: ends before it is closed
  };

  explicit Impl(EventLoop& event_loop) : loop(event_loop) {
    CapabilitySets initial = initial_capabilities();
    tags.push_back({initial.inheritable_effective, initial.inheritable_permitted});
  }

  const Entry* find(pid_t pid) const {
    auto it = entries.find(pid);
    if (it == entries.end() || it->second.start_time != process_start_time(pid)) return nullptr;
    return &it->second;
  }
  Result<unsigned> tag_for(const CapabilitySets& sets);
  // `write_tag` does it for the whole process.
  Status set(pid_t pid, const CapabilitySets& sets, Status (*write_tag)(pid_t, unsigned));
  // Of a process with the tag that belongs to these sets.
  Status remember(pid_t pid, const CapabilitySets& sets);
  Status add_entry(pid_t pid, const CapabilitySets& sets);

  EventLoop& loop;
  uint64_t version = 0;
  std::vector<Inheritance> tags;  // by tag; [0] is what a process without tag has
  std::unordered_map<pid_t, Entry> entries;
  std::map<std::pair<pid_t, Capability>, unsigned> uses;
  std::map<Capability, std::string> refused;
};

Result<unsigned> CapabilityTable::Impl::tag_for(const CapabilitySets& sets) {
  const Inheritance wanted{sets.inheritable_effective, sets.inheritable_permitted};
  auto it = std::find(tags.begin(), tags.end(), wanted);
  if (it != tags.end()) return static_cast<unsigned>(it - tags.begin());
  if (tags.size() > kMaxSlackTag)
    return errno_error("too many different inheritable capabilities", ENOSPC);
  tags.push_back(wanted);
  return static_cast<unsigned>(tags.size() - 1);
}

Status CapabilityTable::Impl::set(pid_t pid, const CapabilitySets& sets,
                                  Status (*write_tag)(pid_t, unsigned)) {
  if (pid <= kInit) return errno_error("the session's init keeps its capabilities", EPERM);
  ++version;
  Result<unsigned> tag = tag_for(sets);
  if (!tag) return tag.error();
  if (Status tagged = write_tag(pid, *tag); !tagged) return tagged;
  return remember(pid, sets);
}

Status CapabilityTable::Impl::remember(pid_t pid, const CapabilitySets& sets) {
  if (sets != sets.at_fork()) return add_entry(pid, sets);
  entries.erase(pid);
  return {};
}

Status CapabilityTable::Impl::add_entry(pid_t pid, const CapabilitySets& sets) {
  if (find(pid)) {
    entries.at(pid).sets = sets;
    return {};
  }
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return errno_error(fmt::format("process {}", pid));
  uint64_t start_time = process_start_time(pid);
  Result<EventLoop::Watch> watch =
      loop.watch(pidfd.get(), EPOLLIN, [this, pid, start_time](uint32_t) {
        auto it = entries.find(pid);
        if (it != entries.end() && it->second.start_time == start_time) entries.erase(it);
      });
  if (!watch) return watch.error();
  entries.erase(pid);  // of a process that has gone
  entries.emplace(pid, Entry{sets, start_time, std::move(pidfd), *std::move(watch)});
  return {};
}

CapabilityTable::CapabilityTable(EventLoop& loop) : impl_(std::make_unique<Impl>(loop)) {}
CapabilityTable::~CapabilityTable() = default;

bool CapabilityTable::any_distant_fork() const {
  auto spreads = [](const auto& tag) { return tag.sets().effective.has(Capability::kDistantFork); };
  if (std::any_of(impl_->tags.begin(), impl_->tags.end(), spreads)) return true;
  return std::any_of(impl_->entries.begin(), impl_->entries.end(), [](const auto& entry) {
    return entry.second.sets.effective.has(Capability::kDistantFork);
  });
}

uint64_t CapabilityTable::version() const {
  return impl_->version;
}

Result<CapabilitySets> CapabilityTable::of(pid_t pid) const {
  if (const Impl::Entry* entry = impl_->find(pid)) return entry->sets;
  Result<unsigned> tag = read_slack_tag(pid);
  if (!tag) return tag.error();
  return impl_->tags[*tag < impl_->tags.size() ? *tag : 0].sets();
}

Status CapabilityTable::adopt(pid_t pid, const CapabilitySets& sets) {
  return impl_->set(pid, sets, write_slack_tag_of_still);
}

Status CapabilityTable::adopt_marked(pid_t pid, const CapabilitySets& sets) {
  ++impl_->version;
  return impl_->remember(pid, sets);
}

Result<uint64_t> CapabilityTable::slack_for(const CapabilitySets& sets) {
  Result<unsigned> tag = impl_->tag_for(sets);
  return tag ? Result<uint64_t>(slack_ns_of(*tag)) : tag.error();
}

Status CapabilityTable::change(pid_t pid, const CapabilityChange& change) {
  Result<CapabilitySets> old = of(pid);
  if (!old) return old.error();
  CapabilitySet in_use;
  for (auto it = impl_->uses.lower_bound({pid, Capability{}});
       it != impl_->uses.end() && it->first.first == pid; ++it)
    in_use = in_use | capability_set({it->first.second});
  Result<CapabilitySets> sets = change_capabilities(*old, change, in_use);
  if (!sets) return sets.error();
  if (Status allowed = check_refused(*sets); !allowed) return allowed;
  return impl_->set(pid, *sets, write_slack_tag);
}

void CapabilityTable::refuse(Capability capability, std::string why) {
  impl_->refused[capability] = std::move(why);
}

Status CapabilityTable::check_refused(const CapabilitySets& sets) const {
  for (const auto& [capability, why] : impl_->refused)
    if (sets.effective.has(capability) || sets.inheritable_effective.has(capability))
      return errno_error(fmt::format("{}: {}", capability_name(capability), why), ENOSYS);
  return {};
}

CapabilityTable::Use::Use(CapabilityTable& table, pid_t pid, Capability capability)
    : table_(&table), pid_(pid), capability_(capability) {
  ++table_->impl_->uses[{pid, capability}];
}

CapabilityTable::Use::Use(Use&& other) noexcept
    : table_(std::exchange(other.table_, nullptr)),
      pid_(other.pid_),
      capability_(other.capability_) {}

CapabilityTable::Use::~Use() {
  if (!table_) return;
  auto it = table_->impl_->uses.find({pid_, capability_});
  if (--it->second == 0) table_->impl_->uses.erase(it);
}

}  // namespace krg
