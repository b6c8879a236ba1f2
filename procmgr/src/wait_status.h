// The status of wait(2) for what waitid(2) tells. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/wait.h>

namespace krg {

// `code`, `status`: si_code (CLD_*) and si_status.
inline int wait_status_of(int code, int status) {
  switch (code) {
    case CLD_EXITED:
      return W_EXITCODE(status & 0xff, 0);
    case CLD_STOPPED:
    case CLD_TRAPPED:
      return W_STOPCODE(status & 0xff);
    case CLD_CONTINUED:
      return 0xffff;
    default:
      return W_EXITCODE(0, status & 0x7f) | (code == CLD_DUMPED ? WCOREFLAG : 0);
  }
}

}  // namespace krg
