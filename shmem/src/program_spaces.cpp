// SPDX-License-Identifier: GPL-2.0-or-later
#include "program_spaces.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "krg/runtime/check.h"
#include "krg/runtime/log.h"
#include "program_maps.h"

namespace krg {

using Outcome = Userfaultfd::Outcome;

// How often the ends of address spaces are looked for that no descriptor tells of (exec, the ends
// of children).
constexpr std::chrono::seconds kAlivePeriod{1};
// A fault whose address is not known is looked at so often before it is taken for one in a mapping
// that was made longer.
constexpr std::chrono::milliseconds kStrayPeriod{1};
constexpr unsigned kStrayLooks = 3;
// Where there is no memory for page tables: after what time a program tries again.
constexpr std::chrono::milliseconds kMemoryWait{5};

uint64_t UserfaultfdGroup::join(std::function<void()> read_events) {
  members_.emplace(next_, std::move(read_events));
  return next_++;
}
void UserfaultfdGroup::leave(uint64_t token) {
  members_.erase(token);
}
void UserfaultfdGroup::read_all() {
  for (auto& [token, read_events] : members_) read_events();
}
std::shared_ptr<UserfaultfdGroup> make_userfaultfd_group() {
  return std::make_shared<UserfaultfdGroup>();
}

struct ProgramSpaces::Space {
  uint64_t id;
  Userfaultfd userfaultfd;
  pid_t pid;  // 0: a fork's child
  ProgramRanges ranges;
  ReadAhead read_ahead = {};
  UniqueFd pidfd = {};
  bool gone = false;
  EventLoop::Watch events = {}, exit = {};

  ProgramRange* range_at(RemoteAddr address) { return ranges.at(address); }
};

ProgramSpaces::ProgramSpaces(EventLoop& loop, PageFrames& frames,
                             std::shared_ptr<UserfaultfdGroup> group, bool poison_lost_pages,
                             Handlers handlers)
    : loop_(loop),
      frames_(frames),
      group_(std::move(group)),
      poison_lost_pages_(poison_lost_pages),
      handlers_(std::move(handlers)) {
  group_token_ = group_->join([this] { read_events(); });
  keep_spares();
}

ProgramSpaces::~ProgramSpaces() {
  group_->leave(group_token_);
}

// --- coming and going ---------------------------------------------------------------------------

Status ProgramSpaces::attach(UniqueFd userfaultfd, pid_t pid, RemoteAddr address, PageIndex first,
                             size_t count) {
  auto ready = Userfaultfd::set_up(std::move(userfaultfd));
  if (!ready) return ready.error();
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return errno_error("pidfd_open");
  if (Status registered = ready->register_range(address, count * kPageBytes); !registered)
    return registered;
  ProgramRanges ranges;
  ranges.add({address, first, std::vector<bool>(count)});
  Space& space = add(std::move(*ready), pid, std::move(ranges));
  space.pidfd = std::move(pidfd);
  Status watched = watch(space);
  if (!watched) end(space);
  return watched;
}

Status ProgramSpaces::extend(pid_t pid, RemoteAddr address, PageIndex first, size_t count) {
  Space* space = space_of(pid);
  if (!space) return errno_error("the process maps nothing of the set", ESRCH);
  if (Status registered = space->userfaultfd.register_range(address, count * kPageBytes);
      !registered)
    return registered;
  ++changes_;
  space->ranges.add({address, first, std::vector<bool>(count)});
  return {};
}

ProgramSpaces::Space& ProgramSpaces::add(Userfaultfd userfaultfd, pid_t pid, ProgramRanges ranges) {
  const uint64_t id = next_space_++;
  ++changes_;
  if (!alive_timer_) alive_timer_ = loop_.every(kAlivePeriod, [this] { check_alive(); });
  auto space = std::make_unique<Space>(Space{id, std::move(userfaultfd), pid, std::move(ranges)});
  return *spaces_.emplace(id, std::move(space)).first->second;
}

Status ProgramSpaces::watch(Space& space) {
  auto events = loop_.watch(space.userfaultfd.fd(), EPOLLIN, [this, id = space.id](uint32_t) {
    if (Space* found = find(id)) read_events(*found);
    if (!faults_.empty()) handlers_.faults();
  });
  if (!events) return events.error();
  space.events = std::move(*events);
  if (!space.pidfd) return {};
  auto exit = loop_.watch(space.pidfd.get(), EPOLLIN, [this, id = space.id](uint32_t) {
    Space* found = find(id);
    if (!found) return;
    found->exit.set_events(0);
    // Another process may still use the same address space (vfork).
    if (found->userfaultfd.space_is_gone()) end(*found);
  });
  if (!exit) return exit.error();
  space.exit = std::move(*exit);
  return {};
}

ProgramSpaces::Space* ProgramSpaces::find(uint64_t id) const {
  auto found = spaces_.find(id);
  return found == spaces_.end() || found->second->gone ? nullptr : found->second.get();
}

// Nothing of it is under way that the kernel has still to tell of: what was mapped where something
// else is by now has been forgotten.
ProgramSpaces::Space* ProgramSpaces::space_of(pid_t pid) {
  for (auto& [id, space] : spaces_) {
    if (space->gone || space->pid != pid) continue;
    if (insist([&] { return space->userfaultfd.look(); }) == Outcome::kSpaceGone) end(*space);
    if (!space->gone) return space.get();
  }
  return nullptr;
}

void ProgramSpaces::check_alive() {
  for (auto& [id, space] : spaces_)
    if (!space->gone && space->userfaultfd.space_is_gone()) end(*space);
}

// The space is not touched any more, and freed once nobody can be using it; its descriptor at once.
void ProgramSpaces::end(Space& space) {
  space.gone = true;
  space.ranges.clear();
  space.events.reset();
  space.userfaultfd.close();
  ++changes_;
  schedule_sweep();
}

void ProgramSpaces::schedule_sweep() {
  if (std::exchange(sweep_scheduled_, true)) return;
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) sweep();
  });
}

void ProgramSpaces::sweep() {
  sweep_scheduled_ = false;
  std::erase_if(spaces_, [](const auto& entry) { return entry.second->gone; });
  if (spaces_.empty()) alive_timer_.reset();
  if (mapping_count() == 0 && handlers_.idle) handlers_.idle();
}

size_t ProgramSpaces::mapping_count() const {
  size_t count = 0;
  for (const auto& [id, space] : spaces_) count += space->ranges.size();
  return count;
}

ReadAhead* ProgramSpaces::read_ahead(uint64_t id) {
  Space* space = find(id);
  return space ? &space->read_ahead : nullptr;
}

// --- events -------------------------------------------------------------------------------------

// May run in the middle of anything: faults are told of later.
void ProgramSpaces::read_events() {
  for (auto& [id, space] : spaces_)
    if (!space->gone) read_events(*space);
  if (faults_.empty()) return;
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired() && !faults_.empty()) handlers_.faults();
  });
}

void ProgramSpaces::read_events(Space& space) {
  std::array<uffd_msg, 32> messages;
  size_t got = 0;
  do {
    got = read(space, messages);
    for (size_t i = 0; i < got; ++i) apply(space, messages[i]);
  } while (got == messages.size());
}

// Until a fork's event is read nothing of that program can be changed, and the loop cannot go on.
size_t ProgramSpaces::read(Space& space, std::span<uffd_msg> messages) {
  for (;;) {
    auto got = space.userfaultfd.read(messages);
    if (got) return *got;
    if (make_room()) continue;
    log_error("pages", "the fork of process {}: {}: it is killed; raise the limit of open files",
              space.pid, got.error().message());
    kill_all_of(space);
    end(space);
    return 0;
  }
}

// By what has ended, else by what is kept for this.
bool ProgramSpaces::make_room() {
  check_alive();
  keep_spares();
  if (spares_.empty()) return false;
  spares_.pop_back();
  return true;
}

void ProgramSpaces::keep_spares() {
  while (spares_.size() < kSpares) {
    UniqueFd spare(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!spare) return;
    spares_.push_back(std::move(spare));
  }
}

// Whoever has an address space that cannot be served any more. Of a fork's child the kernel does
// not tell who it is: it is one of those that map the set and are not known.
void ProgramSpaces::kill_all_of(const Space& space) {
  if (space.pidfd) {
    if (syscall(SYS_pidfd_send_signal, space.pidfd.get(), SIGKILL, nullptr, 0) != 0)
      log_warn("pages", "process {}: {}", space.pid, errno_error("").message());
    return;
  }
  for (const pid_t pid : processes_mapping(frames_.memfd())) {
    const bool is_known = std::any_of(spaces_.begin(), spaces_.end(), [pid](const auto& entry) {
      return !entry.second->gone && entry.second->pid == pid;
    });
    if (!is_known && pid != getpid()) kill(pid, SIGKILL);
  }
}

void ProgramSpaces::apply(Space& space, const uffd_msg& message) {
  switch (message.event) {
    case UFFD_EVENT_PAGEFAULT:
      return fault(space, message);
    case UFFD_EVENT_FORK: {
      UniqueFd inherited(static_cast<int>(message.arg.fork.ufd));
      Space& child = add(Userfaultfd::of_fork(std::move(inherited)), 0, space.ranges);
      if (Status watched = watch(child); !watched)
        log_error("pages", "a fork's child: {}", watched.error().message());
      return;
    }
    case UFFD_EVENT_REMAP: {
      const auto& moved = message.arg.remap;
      const RemoteAddr from{moved.from};
      ++changes_;
      for (ProgramRange& range : space.ranges.cut(from, from + moved.len)) {
        range.address.value += moved.to - moved.from;
        space.ranges.add(std::move(range));
      }
      return;
    }
    case UFFD_EVENT_UNMAP:
      ++changes_;
      for (const ProgramRange& range : space.ranges.cut(RemoteAddr{message.arg.remove.start},
                                                        RemoteAddr{message.arg.remove.end}))
        if (handlers_.unmapped) handlers_.unmapped(range.first, range.count());
      if (space.ranges.empty()) end(space);
      return;
    case UFFD_EVENT_REMOVE:
      for (const ProgramRange& range : space.ranges.in(RemoteAddr{message.arg.remove.start},
                                                       RemoteAddr{message.arg.remove.end}))
        handlers_.removing(range.first, range.count());
      return;
    default:
      log_warn("pages", "userfaultfd event {}", message.event);
  }
}

void ProgramSpaces::fault(Space& space, const uffd_msg& message) {
  const auto& fault = message.arg.pagefault;
  const RemoteAddr address{fault.address & ~uint64_t{kPageBytes - 1}};
  ProgramFault told{.at = {space.id, address},
                    .page = {},
                    .thread = fault.feat.ptid,
                    .write = (fault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0,
                    .was_mapped = (fault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0,
                    .exact = RemoteAddr{fault.address}};
  if (const ProgramRange* range = space.range_at(address)) {
    told.page = range->page_at(address);
    faults_.push_back(told);
    return;
  }
  strays_.emplace_back(told, 0);
  if (!stray_timer_) stray_timer_ = loop_.every(kStrayPeriod, [this] { look_at_strays(); });
}

// None of them may be forgotten: its thread waits until it is woken.
void ProgramSpaces::look_at_strays() {
  for (auto& [id, space] : spaces_)
    if (!space->gone) read_events(*space);
  std::vector<std::pair<ProgramFault, unsigned>> kept;
  for (auto& [fault, looks] : std::exchange(strays_, {})) {
    Space* space = find(fault.at.space);
    if (!space) continue;
    const ProgramRange* range = space->range_at(fault.at.address);
    if (!range && ++looks < kStrayLooks) {
      kept.emplace_back(fault, looks);
    } else if (range || find_range(*space, fault)) {
      fault.page = space->range_at(fault.at.address)->page_at(fault.at.address);
      faults_.push_back(fault);
    } else {
      wake(fault.at);
    }
  }
  strays_.insert(strays_.end(), kept.begin(), kept.end());
  if (strays_.empty()) stray_timer_.reset();
  if (!faults_.empty()) handlers_.faults();
}

// mremap can make a mapping longer where it is, which the kernel does not tell.
bool ProgramSpaces::find_range(Space& space, const ProgramFault& fault) {
  const RemoteAddr address = fault.at.address;
  const ProgramRange* lower = space.ranges.below(address);
  std::optional<uint64_t> offset;
  if (space.pid != 0) {
    offset = offset_in_mapped_file(space.pid, address, frames_.memfd());
    if (!offset) return false;
  } else if (lower) {
    offset = lower->page_at(address).value * kPageBytes;
  }
  if (!offset) return false;
  ++changes_;
  const PageIndex page{*offset / kPageBytes};
  if (lower && page.value < frames_.pages() && lower->page_at(address) == page)
    space.ranges.lengthen(lower->address, lower->index_of(address) + 1);
  else
    space.ranges.add({address, page, std::vector<bool>(1)});
  return true;
}

// Calls the kernel until it does not refuse because of changes under way.
template <class Call>
Outcome ProgramSpaces::insist(Call call) {
  for (;;) {
    const Outcome outcome = call();
    if (outcome != Outcome::kChanging) return outcome;
    group_->read_all();
    sched_yield();
  }
}

// --- page tables --------------------------------------------------------------------------------

bool ProgramSpaces::shows(ProgramPage at, PageIndex page) const {
  Space* space = find(at.space);
  const ProgramRange* range = space ? space->range_at(at.address) : nullptr;
  return range && range->page_at(at.address) == page;
}

bool ProgramSpaces::is_mapped(ProgramPage at) const {
  Space* space = find(at.space);
  const ProgramRange* range = space ? space->range_at(at.address) : nullptr;
  return range && range->mapped[range->index_of(at.address)];
}

unsigned ProgramSpaces::run_length(ProgramPage at, int step, unsigned most, bool mapped,
                                   const std::function<bool(PageIndex)>& fits) const {
  Space* space = find(at.space);
  const ProgramRange* range = space ? space->range_at(at.address) : nullptr;
  if (!range) return 0;
  const size_t start = range->index_of(at.address);
  unsigned length = 1;
  while (length < most) {
    const auto index = static_cast<int64_t>(start) + step * static_cast<int64_t>(length);
    if (index < 0 || static_cast<size_t>(index) >= range->count()) break;
    const auto i = static_cast<size_t>(index);
    if (range->mapped[i] != mapped || !fits(PageIndex{range->first.value + i})) break;
    ++length;
  }
  return length;
}

void ProgramSpaces::map(ProgramPage at, size_t count, bool writable) {
  loop_.serve_first();
  size_t together = count;
  std::optional<PageIndex> allocated;
  while (count > 0) {
    Space* space = find(at.space);
    ProgramRange* range = space ? space->range_at(at.address) : nullptr;
    if (!range) return wake_all(at, count);
    const size_t index = range->index_of(at.address);
    const size_t pages = std::min({count, range->count() - index, together});
    size_t mapped_bytes = 0;
    const Outcome outcome =
        space->userfaultfd.map(at.address, pages * kPageBytes, writable, mapped_bytes);
    const size_t mapped = mapped_bytes / kPageBytes;
    for (size_t i = 0; i < mapped; ++i) range->mapped[index + i] = true;
    at.address = at.address + mapped_bytes;
    count -= mapped;
    switch (outcome) {
      case Outcome::kDone:
        break;
      case Outcome::kMapped:
        range->mapped[index + mapped] = true;
        if (writable) {
          allow_writing(at, 1);
        } else {
          space->userfaultfd.wake(at.address, kPageBytes);
        }
        at.address = at.address + kPageBytes;
        --count;
        break;
      case Outcome::kNoFrame: {
        // Nobody has written it since its first touch, or a program punched it: zeros.
        const PageIndex page = range->page_at(at.address);
        if (std::exchange(allocated, page) != page) {
          if (!frames_.allocate(page, pages - mapped)) return wake_later(at, count);
          break;
        }
        wake(at);  // something else is mapped there by now
        at.address = at.address + kPageBytes;
        --count;
        break;
      }
      case Outcome::kNoMemory:
        return wake_later(at, count);
      case Outcome::kChanging:
        group_->read_all();
        sched_yield();
        break;
      case Outcome::kSpaceGone:
        return end(*space);
      case Outcome::kNotServed:
      case Outcome::kUnsupported:
        if (pages - mapped > 1) {  // what mprotect has split is mapped piece by piece
          together = 1;
          break;
        }
        wake(at);
        at.address = at.address + kPageBytes;
        --count;
        break;
    }
  }
}

void ProgramSpaces::allow_writing(ProgramPage at, size_t count) {
  loop_.serve_first();
  const Outcome outcome = insist([&] {
    Space* space = find(at.space);
    return space ? space->userfaultfd.write_unprotect(at.address, count * kPageBytes)
                 : Outcome::kNotServed;
  });
  Space* space = find(at.space);
  if (space && outcome == Outcome::kSpaceGone) return end(*space);
  if (outcome == Outcome::kNoMemory) return wake_later(at, count);
  if (outcome != Outcome::kDone) wake_all(at, count);
}

// There is no memory for page tables or frames: who is woken then touches the page again, which is
// another fault. Meanwhile the kernel takes memory from a program.
void ProgramSpaces::wake_later(ProgramPage at, size_t count) {
  short_of_memory_.emplace_back(at, count);
  if (!memory_timer_)
    memory_timer_ = loop_.after(kMemoryWait, [this] {
      memory_timer_.reset();
      for (const auto& [start, pages] : std::exchange(short_of_memory_, {})) wake_all(start, pages);
    });
}

void ProgramSpaces::wake_all(ProgramPage at, size_t count) {
  if (Space* space = find(at.space)) space->userfaultfd.wake(at.address, count * kPageBytes);
}

void ProgramSpaces::wake(ProgramPage at) {
  if (Space* space = find(at.space)) space->userfaultfd.wake(at.address, kPageBytes);
}

void ProgramSpaces::make_lost(ProgramPage at) {
  const Outcome outcome = insist([&] {
    Space* space = find(at.space);
    if (!space) return Outcome::kNotServed;
    // What is left of a write protection keeps poison out.
    const Outcome cleared =
        space->userfaultfd.write_unprotect(at.address, kPageBytes, Userfaultfd::Wake::kNo);
    if (cleared != Outcome::kDone) return cleared;
    return poison_lost_pages_ ? space->userfaultfd.poison(at.address, kPageBytes)
                              : Outcome::kUnsupported;
  });
  Space* space = find(at.space);
  if (!space) return;
  if (outcome == Outcome::kSpaceGone) return end(*space);
  if (outcome == Outcome::kNoMemory) return wake_later(at, 1);
  if (outcome == Outcome::kUnsupported) return send_sigbus(*space);
  space->userfaultfd.wake(at.address, kPageBytes);
}

// Before Linux 6.6 only a signal can tell a program. As the kernel's own SIGBUS would, it kills a
// program that does not want to hear of it.
void ProgramSpaces::send_sigbus(const Space& space) {
  const pid_t pid = space.pid;
  if (pid == 0 || !space.pidfd) return;
  const int number = accepts_signal(pid, SIGBUS) ? SIGBUS : SIGKILL;
  if (syscall(SYS_pidfd_send_signal, space.pidfd.get(), number, nullptr, 0) != 0)
    log_warn("pages", "signal {} to process {}: {}", number, pid, errno_error("").message());
}

void ProgramSpaces::protect(PageIndex first, size_t count) {
  uint64_t seen;
  do {
    seen = changes_;  // ranges that come, move or go meanwhile: look at all of them again
    for (auto at = spaces_.begin(); at != spaces_.end(); ++at) {
      Space& space = *at->second;
      for (const RemoteAddr start : space.ranges.with_pages(first, count)) {
        const ProgramRange* range = space.ranges.at(start);
        if (!range) continue;
        const auto [page, pages] = range->mapped_among(first, count);
        if (pages == 0) continue;
        const RemoteAddr address = range->address_of(page);
        const Outcome outcome = write_protect(space, address, pages);
        if (outcome == Outcome::kSpaceGone) end(space);
        check(outcome != Outcome::kUnsupported, "a page can be write-protected");
      }
    }
  } while (seen != changes_);
}

// This cannot wait for its turn: copies of the pages are about to leave. The kernel needs memory
// for it but to split a huge page.
Outcome ProgramSpaces::write_protect(Space& space, RemoteAddr address, size_t pages) {
  for (unsigned waits = 0;;) {
    const Outcome outcome =
        insist([&] { return space.userfaultfd.write_protect(address, pages * kPageBytes); });
    if (outcome != Outcome::kNoMemory) return outcome;
    wait_for_memory(waits, "there is memory to write-protect pages");
  }
}

void ProgramSpaces::forget(PageIndex first, size_t count) {
  for (auto& [id, space] : spaces_)
    for (const RemoteAddr start : space->ranges.with_pages(first, count)) {
      ProgramRange& range = *space->ranges.at(start);
      const uint64_t end = std::min(first.value + count, range.first.value + range.count());
      for (uint64_t page = std::max(first, range.first).value; page < end; ++page)
        range.mapped[page - range.first.value] = false;
    }
}

std::vector<PageSet::Pages> ProgramSpaces::mapped_in(RemoteAddr address, size_t bytes) const {
  std::vector<PageSet::Pages> found;
  for (const auto& [id, space] : spaces_)
    for (const ProgramRange& range : space->ranges.in(address, address + bytes))
      found.push_back({range.first, range.count()});
  return found;
}

std::optional<PageSet::Location> ProgramSpaces::locate(pid_t pid, RemoteAddr address) const {
  for (const auto& [id, space] : spaces_)
    if (ProgramRange* range = space->pid == pid ? space->range_at(address) : nullptr)
      return PageSet::Location{range->page_at(address), address.value % kPageBytes};
  auto offset = offset_in_mapped_file(pid, address, frames_.memfd());
  if (!offset) return std::nullopt;
  return PageSet::Location{{*offset / kPageBytes}, *offset % kPageBytes};
}

}  // namespace krg
