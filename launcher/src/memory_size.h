// How much memory each node of a cluster has for KDDM objects: the option --mem-per-node, and how
// it reaches every krgd. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <string>

#include "krg/runtime/result.h"

namespace krg {

// In krgd's environment: bytes.
inline constexpr const char* kMemoryPerNodeVariable = "KRG_MEM_PER_NODE";

// As srun takes it: a number with K, M, G or T behind it; without one, megabytes. At least 1 MiB.
Result<uint64_t> parse_memory_size(const std::string& text);
// Likewise --balance.
inline constexpr const char* kBalanceVariable = "KRG_BALANCE";
void set_balance(bool balance);
// Likewise --share-files: a folder's absolute path; empty: none.
inline constexpr const char* kShareFilesVariable = "KRG_SHARE_FILES";
Result<std::string> parse_shared_folder(const std::string& text);
void set_shared_files(const std::string& folder);
// Sets the variable for what this process starts from now on; 0 takes it out.
void set_memory_per_node(uint64_t bytes);

}  // namespace krg
