// SPDX-License-Identifier: GPL-2.0-or-later
#include "huge_pages.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <memory>

#include "krg/runtime/log.h"
#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

constexpr int kCollapse = 25;  // MADV_COLLAPSE
constexpr uint64_t kHugePage = 2u << 20;

}  // namespace

void keep_huge(NodeContext& node, int pidfd, const std::vector<PageRange>& ranges) {
  std::vector<iovec> huge;
  for (const PageRange& range : ranges) {
    const uint64_t start = (range.start.value + kHugePage - 1) / kHugePage * kHugePage;
    const uint64_t end = range.end().value / kHugePage * kHugePage;
    if (range.is_huge && start < end) huge.push_back({reinterpret_cast<void*>(start), end - start});
  }
  if (huge.empty()) return;
  auto process = std::make_shared<UniqueFd>(fcntl(pidfd, F_DUPFD_CLOEXEC, 0));
  node.workers.submit(
      [process, huge = std::move(huge)] {
        for (const iovec& pages : huge)
          if (syscall(SYS_process_madvise, process->get(), &pages, 1, kCollapse, 0) < 0)
            log_debug("pages", "huge pages: {}", errno_error("").message());
      },
      {});
}

}  // namespace krg
