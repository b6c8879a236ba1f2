// The mpi transport: two-sided messages in a communicator of its own and passive-target RMA, for
// machines whose network only MPI knows well. MPI has no descriptor to wait for, so the loop polls,
// less and less often while nothing happens; and MPI reports no deaths (docs/LIMITS.md).
// Owner: krgd's main; destroyed on all nodes together, before the MpiBoot it was made from.
// Threads: the loop's thread, which must be the one that called MpiBoot::init().
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "krg/runtime/boot.h"
#include "krg/runtime/patience.h"
#include "krg/runtime/transport.h"

namespace krg {

// Collective. Errors: what MPI says.
// `patience`: outlives it; null: nobody asks for any.
Result<std::unique_ptr<Transport>> make_mpi_transport(EventLoop& loop, const MpiBoot& boot,
                                                      const Patience* patience = nullptr);

}  // namespace krg
