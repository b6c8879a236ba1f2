// UserfaultSource: how the session's processes come to a userfaultfd that krgd can serve. The first
// that is to be had: the device (userfaultfd for any process, whatever its privileges), or
// userfaultfd(2), which asks for the privilege of the process that calls it.
//
// Threads: the loop's thread. Source: userfaultfd(2), Linux Documentation, userfaultfd.rst.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class UserfaultSource {
 public:
  // Errors: ENOTSUP with the reason, where shared memory cannot be coherent for programs that know
  // nothing of it: faults of system calls could not be served.
  static Result<UserfaultSource> find();

  // To be given to the process, for ioctl USERFAULTFD_IOC_NEW; -1: it calls userfaultfd(2).
  int device() const { return device_.get(); }

 private:
  UserfaultSource() = default;
  UniqueFd device_;
};

}  // namespace krg
