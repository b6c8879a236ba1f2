// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_watches.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include <algorithm>

namespace krg {
namespace {

bool has(const FamilyMember& member, uint32_t file) {
  return std::any_of(member.fds.begin(), member.fds.end(),
                     [file](const FamilyFd& fd) { return fd.file == file; });
}

bool has_by_number(const FamilyMember& member, const FamilyWatch& watch) {
  return std::any_of(member.fds.begin(), member.fds.end(), [&](const FamilyFd& fd) {
    return fd.file == watch.file && fd.number == watch.number;
  });
}

// The root, when the epoll instance is nobody's any more.
uint32_t watcher_of(const ProcessFamily& family, uint32_t epoll, const FamilyWatch& watch) {
  uint32_t any = 0;
  for (auto i = static_cast<uint32_t>(family.members.size()); i-- > 0;) {
    const FamilyMember& member = family.members[i];
    if (!member.has_ended() && has(member, epoll)) any = i;
  }
  for (uint32_t i = 0; i < family.members.size(); ++i) {
    const FamilyMember& member = family.members[i];
    if (!member.has_ended() && has(member, epoll) && has_by_number(member, watch)) return i;
  }
  return any;
}

}  // namespace

// The number is the file's for the moment; what it is to be comes afterwards.
Status add_watches(const ProcessFamily& family, int first_slot,
                   const std::function<FrozenProcess&(uint32_t member)>& process) {
  const auto first = static_cast<uint64_t>(first_slot);
  for (uint32_t epoll = 0; epoll < family.files.size(); ++epoll)
    for (const FamilyWatch& watch : family.files[epoll].watches) {
      FrozenProcess& watcher = process(watcher_of(family, epoll, watch));
      const auto number = static_cast<uint64_t>(watch.number);
      int64_t result = watcher.call(SYS_dup3, {first + watch.file, number, 0});
      auto scratch = watcher.scratch();
      if (!scratch) return scratch.error();
      epoll_event event{};
      event.events = watch.events;
      event.data.u64 = watch.data;
      if (auto put = watcher.write_value(*scratch, event); !put) return put;
      if (result >= 0)
        result =
            watcher.call(SYS_epoll_ctl, {first + epoll, EPOLL_CTL_ADD, number, scratch->value});
      // A standard stream may be what cannot be waited for by now: it is ready at any time.
      if (result == -EPERM && family.files[watch.file].kind == FamilyFile::Kind::kStandard)
        continue;
      if (result < 0)
        return errno_error(fmt::format("an epoll instance that watches descriptor {}, {}", number,
                                       family.files[watch.file].path),
                           static_cast<int>(-result));
    }
  return {};
}

int after_watched_numbers(const ProcessFamily& family) {
  int after = 0;
  for (const FamilyFile& file : family.files)
    for (const FamilyWatch& watch : file.watches) after = std::max(after, watch.number + 1);
  return after;
}

bool may_go_with_events(const ProcessFamily& family, const FamilyMember& member) {
  return std::all_of(member.fds.begin(), member.fds.end(), [&](const FamilyFd& fd) {
    const FamilyFile& file = family.files[fd.file];
    const auto owners =
        std::count_if(family.members.begin(), family.members.end(),
                      [&](const FamilyMember& other) { return has(other, fd.file); });
    return file.kind != FamilyFile::Kind::kEvent ||
           (owners == 1 && file.pipe <= static_cast<uint32_t>(EventKind::kPoll) &&
            std::all_of(file.watches.begin(), file.watches.end(),
                        [&](const FamilyWatch& watch) { return has_by_number(member, watch); }));
  });
}

}  // namespace krg
