// SPDX-License-Identifier: GPL-2.0-or-later
#include "userfault_source.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "krg/shmem/page_set.h"

namespace krg {

Result<UserfaultSource> UserfaultSource::find() {
  UserfaultSource source;
  source.device_ = UniqueFd(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (!source.device_) {
    UniqueFd own(static_cast<int>(syscall(SYS_userfaultfd, PageSet::userfaultfd_flags(false))));
    if (!own) return errno_error("no userfaultfd that serves system calls", ENOTSUP);
  }
  return source;
}

}  // namespace krg
