// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_space.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "krg/runtime/check.h"
#include "krg/runtime/log.h"
#include "krg/shmem/memory_abi.h"

namespace krg {
namespace {

using Outcome = PageSpace::Outcome;

constexpr uint64_t kFeatures = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
                               UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | kUffdPoison;

void wake(int fd, RemoteAddr page) {
  uffdio_range range{.start = page.value, .len = kMovedPageBytes};
  ioctl(fd, UFFDIO_WAKE, &range);  // who waits there may have died
}

Status set_up(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return errno_error("userfaultfd");
  uffdio_api api{.api = UFFD_API, .features = kFeatures, .ioctls = 0};
  if (ioctl(fd, UFFDIO_API, &api) != 0) return errno_error("UFFDIO_API");
  return {};
}

}  // namespace

Status PageSpace::can_serve() {
  UniqueFd probe(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
  if (!probe) return errno_error("userfaultfd", ENOTSUP);
  if (Status able = set_up(probe.get()); !able)
    return errno_error("forks of a process whose pages come later take CAP_SYS_PTRACE, Linux 6.6",
                       ENOTSUP);
  return {};
}

Result<std::unique_ptr<PageSpace>> PageSpace::create(UniqueFd userfaultfd, const PageList& pages,
                                                     const std::vector<PrivateMapping>& mappings) {
  if (Status ready = set_up(userfaultfd.get()); !ready) return ready.error();
  PageBits awaited(pages.count(), true);
  for (uint64_t page = 0; page < pages.first_later(); ++page) awaited.clear(page);
  PagePlacements placements;
  for (size_t i = 0; i < pages.ranges().size(); ++i) {
    const PageRange& range = pages.ranges()[i];
    if (!range.comes_first)
      placements.add({range.start, pages.first_of(i), range.bytes / kMovedPageBytes});
  }
  auto space = std::unique_ptr<PageSpace>(
      new PageSpace(std::move(userfaultfd), std::move(awaited), std::move(placements)));
  if (Status registered = space->register_ranges(pages, mappings); !registered)
    return registered.error();
  return space;
}

// Mappings as a whole: a call that moves one (mremap) fails where the kernel has it in pieces.
Status PageSpace::register_ranges(const PageList& pages,
                                  const std::vector<PrivateMapping>& mappings) {
  auto mapping = mappings.begin();
  uint64_t registered_to = 0;
  for (const PageRange& range : pages.ranges()) {
    if (range.comes_first || range.end().value <= registered_to) continue;
    while (mapping != mappings.end() && mapping->end <= range.start.value) ++mapping;
    RemoteAddr start = range.start, end = range.end();
    if (mapping != mappings.end() && mapping->start <= start.value && end.value <= mapping->end) {
      start = {mapping->start};
      end = {mapping->end};
    }
    if (Status registered = register_range(start, end); !registered) return registered;
    registered_to = end.value;
  }
  return {};
}

Status PageSpace::register_range(RemoteAddr start, RemoteAddr end) {
  uffdio_register range{.range = {.start = start.value, .len = end.value - start.value},
                        .mode = UFFDIO_REGISTER_MODE_MISSING,
                        .ioctls = 0};
  if (ioctl(fd_.get(), UFFDIO_REGISTER, &range) != 0) return errno_error("UFFDIO_REGISTER");
  return {};
}

std::optional<uint64_t> PageSpace::awaited_at(RemoteAddr address) const {
  auto page = placements_.page_at(address);
  return page && awaited_.test(*page) ? page : std::nullopt;
}

bool PageSpace::is_gone() {
  // Never registered: ENOENT as long as there is an address space.
  uint64_t done = 0;
  return fill(fd_.get(), RemoteAddr{0x7fffffffe000}, 1, Content::kZeros, nullptr, done) == ESRCH;
}

int PageSpace::fill(int fd, RemoteAddr at, uint64_t count, Content content, const std::byte* bytes,
                    uint64_t& done) {
  const uint64_t length = count * kMovedPageBytes;
  const uffdio_range range{.start = at.value, .len = length};
  int64_t filled = 0;
  int failed = 0;
  switch (content) {
    case Content::kBytes: {
      const auto from = reinterpret_cast<uint64_t>(bytes);
      uffdio_copy call{.dst = at.value, .src = from, .len = length, .mode = 0, .copy = 0};
      failed = ioctl(fd, UFFDIO_COPY, &call);
      filled = call.copy;
      break;
    }
    case Content::kZeros: {
      uffdio_zeropage call{.range = range, .mode = 0, .zeropage = 0};
      failed = ioctl(fd, UFFDIO_ZEROPAGE, &call);
      filled = call.zeropage;
      break;
    }
    case Content::kPoison: {
      UffdPoisonRange call{.range = range, .mode = 0, .updated = 0};
      failed = ioctl(fd, kUffdPoisonCall, &call);
      filled = call.updated;
      break;
    }
  }
  done = filled > 0 ? static_cast<uint64_t>(filled) / kMovedPageBytes : 0;
  return failed == 0 ? 0 : errno;
}

// --- pages --------------------------------------------------------------------------------------

std::vector<PageSpace::Piece> PageSpace::awaited_pieces(uint64_t first, uint64_t count,
                                                        const std::byte* bytes) const {
  std::vector<Piece> pieces;
  const uint64_t end = first + count;
  for (uint64_t page = awaited_.next(first); page < end; page = awaited_.next(page)) {
    auto place = placements_.piece_from(page);
    check(place.has_value(), "a page that is awaited has a place");
    const uint64_t run = awaited_.run(page, std::min(end - page, place->count));
    const std::byte* from = bytes ? bytes + (page - first) * kMovedPageBytes : nullptr;
    pieces.push_back({.first = page, .count = run, .at = place->at, .bytes = from});
    page += run;
  }
  return pieces;
}

void PageSpace::note_put(uint64_t first, uint64_t count) {
  for (uint64_t page = first; page < first + count; ++page) awaited_.clear(page);
}

Outcome PageSpace::put(uint64_t first, uint64_t count, Content content, const std::byte* bytes) {
  for (const Piece& piece : awaited_pieces(first, count, bytes))
    if (Outcome outcome = put_run(piece.first, piece.count, piece.at, content, piece.bytes);
        outcome != Outcome::kDone)
      return outcome;
  return Outcome::kDone;
}

Outcome PageSpace::put_run(uint64_t first, uint64_t count, RemoteAddr at, Content content,
                           const std::byte* bytes) {
  for (uint64_t i = 0, most = count; i < count;) {
    uint64_t done = 0;
    const uint64_t wanted = std::min(most, count - i);
    const RemoteAddr to = at + i * kMovedPageBytes;
    const int error =
        fill(fd_.get(), to, wanted, content, bytes ? bytes + i * kMovedPageBytes : nullptr, done);
    note_put(first + i, done);
    i += done;
    if (error == 0 || (error == EAGAIN && done > 0)) continue;
    if (error == EAGAIN) return Outcome::kChanging;
    if (error == ESRCH) return Outcome::kGone;
    if (error == EEXIST || (error == ENOENT && wanted == 1)) {
      skip(first + i++, to, error);
      most = count;
    } else if (error == ENOENT) {
      most = wanted / 2;  // the kernel takes no run across the bounds of mappings
    } else {
      log_error("pages", "a page at {:#x}: {}", to.value, errno_error("", error).message());
      return Outcome::kFailed;
    }
  }
  return Outcome::kDone;
}

// It is there (EEXIST), or its mapping has gone, of which an event tells (ENOENT).
void PageSpace::skip(uint64_t page, RemoteAddr at, int error) {
  awaited_.clear(page);
  if (error == EEXIST) wake(fd_.get(), at);
}

bool PageSpace::put_early(RemoteAddr at, const std::byte* bytes) {
  uint64_t done = 0;
  return fill(fd_.get(), at, 1, Content::kBytes, bytes, done) == 0;
}

Outcome PageSpace::fill_gaps(RemoteAddr address, uint64_t bytes) {
  const uint64_t end = address.value + bytes;
  for (uint64_t at = address.value / kMovedPageBytes * kMovedPageBytes; at < end;
       at += kMovedPageBytes) {
    uint64_t done = 0;
    if (awaited_at({at})) continue;
    const int error = fill(fd_.get(), {at}, 1, Content::kZeros, nullptr, done);
    if (error == EAGAIN) return Outcome::kChanging;
    if (error == ESRCH) return Outcome::kGone;
  }
  return Outcome::kDone;
}

// --- events -------------------------------------------------------------------------------------

Outcome PageSpace::read_events(Events& events) {
  std::array<uffd_msg, 16> messages;
  size_t count;
  do {
    const ssize_t got = ::read(fd_.get(), messages.data(), sizeof messages);
    count = got > 0 ? static_cast<size_t>(got) / sizeof(uffd_msg) : 0;
    for (size_t i = 0; i < count; ++i) apply(messages[i], events);
  } while (count == messages.size());
  while (!unanswered_.empty()) {
    if (Outcome outcome = fault(unanswered_.back(), events); outcome != Outcome::kDone)
      return outcome;
    unanswered_.pop_back();
  }
  return Outcome::kDone;
}

void PageSpace::apply(const uffd_msg& message, Events& events) {
  switch (message.event) {
    case UFFD_EVENT_PAGEFAULT:
      return unanswered_.push_back({message.arg.pagefault.address & ~(kMovedPageBytes - 1)});
    case UFFD_EVENT_FORK: {
      UniqueFd inherited(static_cast<int>(message.arg.fork.ufd));
      fcntl(inherited.get(), F_SETFL, O_NONBLOCK);
      fcntl(inherited.get(), F_SETFD, FD_CLOEXEC);
      return events.children.push_back(
          std::unique_ptr<PageSpace>(new PageSpace(std::move(inherited), awaited_, placements_)));
    }
    case UFFD_EVENT_REMAP: {
      const auto& moved = message.arg.remap;
      for (auto piece :
           placements_.cut(RemoteAddr{moved.from}, RemoteAddr{moved.from} + moved.len)) {
        piece.at.value += moved.to - moved.from;
        placements_.add(piece);
      }
      return;
    }
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP:
      return drop(RemoteAddr{message.arg.remove.start}, RemoteAddr{message.arg.remove.end});
    default:
      log_warn("pages", "userfaultfd event {}", message.event);
  }
}

// What was to come there is not wanted any more; what is touched there later is zeros.
void PageSpace::drop(RemoteAddr start, RemoteAddr end) {
  for (const auto& piece : placements_.cut(start, end))
    for (uint64_t page = piece.first; page < piece.first + piece.count; ++page)
      awaited_.clear(page);
}

Outcome PageSpace::fault(RemoteAddr page, Events& events) {
  if (auto awaited = awaited_at(page)) {
    events.faults.push_back(*awaited);
    return Outcome::kDone;
  }
  // Nothing ever was there, or has been dropped; or it has come since.
  uint64_t done = 0;
  switch (fill(fd_.get(), page, 1, Content::kZeros, nullptr, done)) {
    case EAGAIN:
      return Outcome::kChanging;
    case ESRCH:
      return Outcome::kGone;
    default:
      wake(fd_.get(), page);
      return Outcome::kDone;
  }
}

}  // namespace krg
