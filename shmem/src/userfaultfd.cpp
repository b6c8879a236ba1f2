// SPDX-License-Identifier: GPL-2.0-or-later
#include "userfaultfd.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "krg/runtime/check.h"
#include "krg/shmem/memory_abi.h"

namespace krg {
namespace {

constexpr uint64_t kNeeded =
    UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
    UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EVENT_REMAP |
    UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EXACT_ADDRESS;

Userfaultfd::Outcome outcome_of(int number) {
  switch (number) {
    case EEXIST:
      return Userfaultfd::Outcome::kMapped;
    case EFAULT:
      return Userfaultfd::Outcome::kNoFrame;
    case ENOENT:
      return Userfaultfd::Outcome::kNotServed;
    case ESRCH:
    case EBADF:
      return Userfaultfd::Outcome::kSpaceGone;
    case EAGAIN:
      return Userfaultfd::Outcome::kChanging;
    case ENOMEM:
      return Userfaultfd::Outcome::kNoMemory;
    default:
      return Userfaultfd::Outcome::kUnsupported;
  }
}

UniqueFd open_probe() {
  return UniqueFd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
}

}  // namespace

uint64_t Userfaultfd::kernel_features() {
  UniqueFd probe = open_probe();
  uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
  if (!probe || ioctl(probe.get(), UFFDIO_API, &api) != 0) return 0;
  return api.features;
}

bool Userfaultfd::may_follow_forks() {
  UniqueFd probe = open_probe();
  uffdio_api api{.api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK, .ioctls = 0};
  return probe && ioctl(probe.get(), UFFDIO_API, &api) == 0;
}

Result<Userfaultfd> Userfaultfd::set_up(UniqueFd opened) {
  const int flags = fcntl(opened.get(), F_GETFL);
  if (flags < 0 || fcntl(opened.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    return errno_error("userfaultfd");
  uffdio_api api{.api = UFFD_API, .features = kNeeded | UFFD_FEATURE_EVENT_FORK, .ioctls = 0};
  if (ioctl(opened.get(), UFFDIO_API, &api) != 0) {
    api = {.api = UFFD_API, .features = kNeeded, .ioctls = 0};
    if (ioctl(opened.get(), UFFDIO_API, &api) != 0) return errno_error("UFFDIO_API");
  }
  return Userfaultfd(std::move(opened));
}

Status Userfaultfd::register_range(RemoteAddr address, size_t bytes) {
  uffdio_register range{
      .range = {.start = address.value, .len = bytes},
      .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP,
      .ioctls = 0};
  if (ioctl(fd_.get(), UFFDIO_REGISTER, &range) != 0) return errno_error("UFFDIO_REGISTER");
  return {};
}

Result<size_t> Userfaultfd::read(std::span<uffd_msg> messages) {
  const ssize_t got = ::read(fd_.get(), messages.data(), messages.size_bytes());
  if (got > 0) return static_cast<size_t>(got) / sizeof(uffd_msg);
  if (got < 0 && (errno == EMFILE || errno == ENFILE)) return errno_error("read of a userfaultfd");
  return size_t{0};
}

Userfaultfd::Outcome Userfaultfd::map(RemoteAddr address, size_t bytes, bool writable,
                                      size_t& done_bytes) {
  done_bytes = 0;
  for (;;) {
    uffdio_continue range{.range = {.start = address.value + done_bytes, .len = bytes - done_bytes},
                          .mode = writable ? 0 : kUffdContinueWriteProtected,
                          .mapped = 0};
    if (ioctl(fd_.get(), UFFDIO_CONTINUE, &range) == 0) {
      done_bytes = bytes;
      return Outcome::kDone;
    }
    // A part of the range was mapped: EAGAIN, and what comes behind it tells why at the next try.
    if (errno != EAGAIN || range.mapped <= 0) return outcome_of(errno);
    done_bytes += static_cast<size_t>(range.mapped);
  }
}

Userfaultfd::Outcome Userfaultfd::protection(RemoteAddr address, size_t bytes, uint64_t mode) {
  uffdio_writeprotect range{.range = {.start = address.value, .len = bytes}, .mode = mode};
  return ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &range) == 0 ? Outcome::kDone : outcome_of(errno);
}

Userfaultfd::Outcome Userfaultfd::write_protect(RemoteAddr address, size_t bytes) {
  return protection(address, bytes, UFFDIO_WRITEPROTECT_MODE_WP);
}

Userfaultfd::Outcome Userfaultfd::write_unprotect(RemoteAddr address, size_t bytes, Wake wake) {
  return protection(address, bytes,
                    wake == Wake::kYes ? 0 : uint64_t{UFFDIO_WRITEPROTECT_MODE_DONTWAKE});
}

Userfaultfd::Outcome Userfaultfd::poison(RemoteAddr address, size_t bytes) {
  UffdPoisonRange range{.range = {.start = address.value, .len = bytes}, .mode = 0, .updated = 0};
  return ioctl(fd_.get(), kUffdPoisonCall, &range) == 0 ? Outcome::kDone : outcome_of(errno);
}

void Userfaultfd::wake(RemoteAddr address, size_t bytes) {
  if (!fd_) return;
  uffdio_range range{.start = address.value, .len = bytes};
  check(ioctl(fd_.get(), UFFDIO_WAKE, &range) == 0, "who waits for a page can be woken");
}

Userfaultfd::Outcome Userfaultfd::look() {
  // Nothing is registered at the last page below 2^47: ENOENT as long as there is an address space.
  return write_protect(RemoteAddr{0x7fffffffe000}, 4096);
}

}  // namespace krg
