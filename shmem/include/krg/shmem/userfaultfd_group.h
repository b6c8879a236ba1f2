// UserfaultfdGroup: all userfaultfds of this node's that one process may have. A process that
// changes its address space waits in the kernel until each of them has read its event, one after
// the other, and until then the kernel refuses calls on any of them (EAGAIN): who insists on such a
// call has everybody read.
//
// Threads: the loop's thread. Owned by all its members (NodeContext::page_sets).
// Source: ioctl_userfaultfd(2). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

namespace krg {

class UserfaultfdGroup {
 public:
  // `read_events` reads what there is and answers no faults: it may run in the middle of anything.
  // It neither joins nor leaves. Returns a token for leave().
  uint64_t join(std::function<void()> read_events);
  void leave(uint64_t token);
  void read_all();

 private:
  uint64_t next_ = 1;
  std::map<uint64_t, std::function<void()>> members_;
};

std::shared_ptr<UserfaultfdGroup> make_userfaultfd_group();

}  // namespace krg
