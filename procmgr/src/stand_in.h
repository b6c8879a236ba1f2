// StandIn: carries a system call out on this node in the name of a process that executes on another
// one. A child of krgd with the sender's pid (clone3(2) set_tid), uids, gids and capabilities lives
// for the one call, so that the kernel itself checks permissions and fills in the sender of a
// signal. The memory is krgd's own (as vfork(2)): a stand-in costs 50 µs.
//
// Threads: the loop's thread, which waits for it. The call must not block.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <span>

#include "process_status.h"

namespace krg {

// In whose name a call is made.
struct Sender {
  pid_t pid = 0;
  Credentials credentials;
};

// Who makes a call now. `tid`: the calling thread. Errors: ESRCH.
Result<Sender> read_sender(pid_t tid);

struct RawCall {
  int number = 0;
  std::array<uint64_t, 6> args{};
};

// What each call returned, as the kernel says it (-errno for an error), in order. Error: the
// stand-in could not be made. When the sender's pid is taken on this node (its shadow is here), the
// calls are made from another pid of krgd's.
Result<std::vector<int64_t>> call_as(const Sender& sender, std::span<const RawCall> calls);
// One call.
Result<int64_t> call_as(const Sender& sender, const RawCall& call);

}  // namespace krg
