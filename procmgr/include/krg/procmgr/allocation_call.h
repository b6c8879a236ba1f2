// How a program with krgrun --stats tells krgd what it allocates (procmgr/sites, which includes
// this file alone): a clone3(2) that the kernel does not know, and krgd's filter stops. Its six
// arguments: kTellsAllocation; from 1 on, which call of this allocation; address; bytes; two words
// with two sites each, the lower half first: addresses in the program's file behind the calls that
// led there, the innermost first, 0: none. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <cstddef>
#include <cstdint>

namespace krg {

inline constexpr std::uint64_t kTellsAllocation = 0x6b72'6773'6974'6573;
inline constexpr std::size_t kLeastTold = 128 * 1024;  // bytes
inline constexpr std::size_t kMostSites = 12;

}  // namespace krg
