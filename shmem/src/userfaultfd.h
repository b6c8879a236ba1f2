// Userfaultfd: one userfaultfd of a program, as the process that serves it uses it. Each call says
// how it ended as a word of its own, because most of what the kernel refuses here is no failure but
// a race with the program, to be answered by whoever knows the pages' states.
//
// Threads: one at a time. Owned by the address space it serves (program_spaces.h).
// Source: ioctl_userfaultfd(2); Linux 6.4 or newer.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/userfaultfd.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class Userfaultfd {
 public:
  enum class Outcome : uint8_t {
    kDone,
    kMapped,      // EEXIST: a page is mapped there already
    kNoFrame,     // EFAULT: the memfd has a hole there
    kNotServed,   // ENOENT: the range is not registered (any more)
    kSpaceGone,   // ESRCH: the address space has ended; EBADF: it is served no more (close())
    kChanging,    // EAGAIN: it is changing; its events have to be read first
    kNoMemory,    // ENOMEM: just now, for its page tables
    kUnsupported  // EINVAL, ENOTTY: this kernel does not have it
  };
  enum class Wake : bool { kNo, kYes };

  // What this kernel offers (UFFD_FEATURE_...), 0 where it has no userfaultfd for us.
  static uint64_t kernel_features();
  // Whether this process may have forks told (UFFD_FEATURE_EVENT_FORK).
  static bool may_follow_forks();

  // Takes a descriptor on which UFFDIO_API has not been called yet, and sets it up with all that
  // page sets need. Errors: what ioctl(2) says.
  static Result<Userfaultfd> set_up(UniqueFd opened);
  // Takes the descriptor that a fork event brought: it is set up already.
  static Userfaultfd of_fork(UniqueFd inherited) { return Userfaultfd(std::move(inherited)); }

  int fd() const { return fd_.get(); }
  // It is served no more: each call says kSpaceGone from now on, and there is nothing to read.
  void close() { fd_.reset(); }

  // For missing pages, minor faults and write protection. Errors: what ioctl(2) says.
  Status register_range(RemoteAddr address, size_t bytes);
  // Fills `messages` from the front with what is there; never blocks. Errors: EMFILE, ENFILE: the
  // first one is a fork, whose child's descriptor finds no room.
  Result<size_t> read(std::span<uffd_msg> messages);

  // Maps frames of the memfd from `address` on, and wakes who waits for them. `done_bytes` is what
  // was mapped before the outcome other than kDone came.
  Outcome map(RemoteAddr address, size_t bytes, bool writable, size_t& done_bytes);
  // Takes the right to write away (or gives it back, waking who waits for it).
  Outcome write_protect(RemoteAddr address, size_t bytes);
  Outcome write_unprotect(RemoteAddr address, size_t bytes, Wake wake = Wake::kYes);
  // Whoever touches the page from now on gets SIGBUS, those that wait for it too. Linux 6.6.
  Outcome poison(RemoteAddr address, size_t bytes);
  void wake(RemoteAddr address, size_t bytes);
  // Changes nothing: kSpaceGone when the address space has ended, kChanging while it is changing.
  Outcome look();
  bool space_is_gone() { return look() == Outcome::kSpaceGone; }

 private:
  explicit Userfaultfd(UniqueFd fd) : fd_(std::move(fd)) {}
  Outcome protection(RemoteAddr address, size_t bytes, uint64_t mode);

  UniqueFd fd_;
};

}  // namespace krg
