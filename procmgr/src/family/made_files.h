// Open files of a family that have no path: pipes with what was in flight, files without a name,
// memory that members share. Threads: any. Errors: of the calls.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/process_family.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// Another description of what a descriptor of ours leads to.
Result<UniqueFd> open_again(int fd, int flags);

// Of a FIFO `reader` is both; none: it is quiet.
struct PipeEnds {
  UniqueFd reader, writer;
};
// A FIFO is opened where it was, and made if it is not there; it is a pipe where its folder is
// gone. Errors: ENOTSUP: something else is there; of mkfifo(2), open(2), pipe(2), write(2).
Result<PipeEnds> make_pipe(const FamilyPipe& pipe);
// `flags`: open(2)'s, of one end of it.
Result<UniqueFd> open_end(const FamilyPipe& pipe, const PipeEnds& made, int flags);

// Another description of a file without a name; the first one has it filled with its contents.
Result<UniqueFd> fill_again(int made, const FamilyFile& file);
Result<UniqueFd> share_again(int made, const FamilyFile& file);
Result<UniqueFd> make_deleted(const FamilyFile& file);
// What members share; its pages come through one of them (family_memory.h).
Result<UniqueFd> make_memory(uint64_t bytes);

}  // namespace krg
