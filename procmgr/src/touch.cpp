// SPDX-License-Identifier: GPL-2.0-or-later
#include "touch.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include "krg/runtime/unique_fd.h"
#include "krg/shmem/page_set.h"
#include "process_status.h"

namespace krg {

constexpr uint64_t kPresent = uint64_t{1} << 63, kWriteProtected = uint64_t{1} << 57;

bool touch_would_fault(pid_t tid, RemoteAddr address, size_t bytes, bool write,
                       const std::function<bool(pid_t pid, RemoteAddr at)>& is_served) {
  auto status = read_process_status(tid);
  UniqueFd map(open(fmt::format("/proc/{}/pagemap", tid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!status || !map) return false;
  const uint64_t end = address.value + bytes;
  for (uint64_t at = address.value; at < end; at = (at / kPageBytes + 1) * kPageBytes) {
    uint64_t entry = 0;
    const auto offset = static_cast<off_t>(at / kPageBytes * sizeof entry);
    if (pread(map.get(), &entry, sizeof entry, offset) != sizeof entry) continue;
    if ((entry & kPresent) && !(write && (entry & kWriteProtected))) continue;
    if (is_served(status->pid, RemoteAddr{at})) return true;
  }
  return false;
}

}  // namespace krg
