// NativeIpc: the semaphores, message queues and segments of this node's kernel, as they are, and
// made again. The kernel has them in a cluster of one node, or where krgd cannot serve them.
//
// What is in System V queues is looked at (MSG_COPY, msgrcv(2)); POSIX queues are emptied and
// filled again, so nobody may use them meanwhile.
//
// Threads: any. Source: sysvipc(7), mq_overview(7), ipc(5) of Linux's Documentation/admin-guide
// (sem_next_id and its kin). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <functional>
#include <vector>

#include "ipc/ipc_owners.h"
#include "krg/procmgr/saved_ipc.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// Without what is to be undone when processes end. `is_attached`: whether a segment's contents are
// had elsewhere. Errors: ENOTSUP: too much; of the calls.
Result<SavedIpc> read_native_system_v(const TakesIpc& takes,
                                      const std::function<bool(int segment)>& is_attached);

// A POSIX queue of this node's kernel.
struct NativePosixQueue {
  std::string name;  // empty: unlinked
  UniqueFd fd;       // to read and to write
  struct stat attributes {};
};
bool is_native_posix_queue(int fd);
// Those that have names.
Result<std::vector<NativePosixQueue>> native_posix_queues();
// Another description of one, to read and to write. Errors: of open(2).
Result<NativePosixQueue> native_posix_queue_of(int fd);
// REQUIRES: nobody uses it. Errors: ENOTSUP: a process is to be told of the next message.
Result<SavedPosixQueue> read_native_posix_queue(const NativePosixQueue& queue);

// Objects that have been made, which are removed when this goes before keep().
class MadeIpc {
 public:
  // All of `ipc`; what has the same names already is made anew. Errors: EEXIST: another object has
  // the identifier or key; of the calls.
  static Result<MadeIpc> make(const SavedIpc& ipc);
  MadeIpc() = default;
  MadeIpc(MadeIpc&& other) noexcept { *this = std::move(other); }
  MadeIpc& operator=(MadeIpc&& other) noexcept;
  ~MadeIpc();

  // A description of POSIX queue `index` of the SavedIpc.
  Result<UniqueFd> open_posix_queue(size_t index, int flags) const;
  // All stay; segments that had been removed are removed again.
  void keep();

 private:
  Status add(const SavedSemaphores& set);
  Status add(const SavedMessageQueue& queue);
  Status add(const SavedSegment& segment);
  Status add(const SavedPosixQueue& queue);

  std::vector<int> semaphores_, message_queues_, segments_, removed_;
  std::vector<std::string> names_;
  std::vector<UniqueFd> posix_queues_;
};

}  // namespace krg
