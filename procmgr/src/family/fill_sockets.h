// What was in flight in the sockets of a family that is restarted is put into those that have been
// made for it. Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>

#include "krg/procmgr/process_family.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// `end_of`: a socket of the family, or, with `other`, what stands for its peer that is none of the
// family's. Errors: ENOBUFS: they do not hold so much.
Status fill_sockets(const ProcessFamily& family,
                    const std::function<Result<UniqueFd>(uint32_t socket, bool other)>& end_of);

}  // namespace krg
