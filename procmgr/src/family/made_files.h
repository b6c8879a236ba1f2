// Open files of a family that have no path: pipes with what was in flight, files without a name,
// memory that members share. Threads: any. Errors: of the calls.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/process_family.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// Another description of what a descriptor of ours leads to.
Result<UniqueFd> open_again(int fd, int flags);

struct PipeEnds {
  UniqueFd reader, writer;
};
Result<PipeEnds> make_pipe(const FamilyPipe& pipe);

// Another description of a file without a name; the first one has it filled with its contents.
Result<UniqueFd> fill_again(int made, const FamilyFile& file);
Result<UniqueFd> share_again(int made, const FamilyFile& file);
Result<UniqueFd> make_deleted(const FamilyFile& file);
// What members share; its pages come through one of them (family_memory.h).
Result<UniqueFd> make_memory(uint64_t bytes);

}  // namespace krg
