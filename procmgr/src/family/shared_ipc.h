// What nodes share of a family's semaphores and queues (Ipc::save()), in a capture over them.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>

#include "family/family_piece.h"
#include "krg/procmgr/ipc.h"
#include "krg/procmgr/process_family.h"

namespace krg {

Ipc::Whose whose_ipc(const ProcessFamily& family,
                     const std::map<NodeId, FamilyDescription>& described);
// Behind those of kernels; files of its queues lead to them. Errors: ESTALE: to one that is not
// there.
Status add_shared_ipc(Ipc::Saved shared, ProcessFamily& family);

}  // namespace krg
