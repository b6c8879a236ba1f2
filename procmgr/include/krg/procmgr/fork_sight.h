// Whether krgd has to see each fork of the session's programs.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

namespace krg {

// The machine lets krgd serve what programs map of shared memory, while the kernel does not tell of
// forks: their children's mappings have to be served anew (SharedMemory::has_to_be_followed).
bool has_to_see_forks();

}  // namespace krg
