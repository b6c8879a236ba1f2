// Which memory of a spread process may have several writers (krgrun --multiple-writers,
// krg/shmem/page_set.h): the program's own variables, its heap and its large blocks. Not where the
// C library and other libraries keep locks of their own (their variables, thread arenas), nor
// stacks, where OpenMP's reductions lie. Pure, but for wants_multiple_writers().
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <string_view>
#include <vector>

#include "image/process_image.h"
#include "spread/spread_memory.h"

namespace krg {

// KRG_MULTIPLE_WRITERS is in its environment.
bool asks_for_multiple_writers(pid_t pid);
// It asks for them, and its program has no memory fence of its own: who
// has one (OpenMP's flush) tells others something by memory that only looks shared by chance.
bool wants_multiple_writers(pid_t pid);
// Whether there is one: mfence, or what compilers put in its place (lock or of 0 on the stack).
bool has_fence(std::string_view code);
// What atomic instructions (lock prefix) change whose operand's address is in the instruction;
// other addresses may be among them.
std::vector<RemoteAddr> atomic_words(std::string_view code, RemoteAddr start);
// Of the memory that it has when it is spread, what is always to have one writer, but for such
// words; `first` and `protection` mean nothing.
std::vector<SpreadRange> one_writer_ranges(const ProcessImage& image);
// Whether that goes for memory that mmap(2) maps so.
bool has_one_writer(uint64_t bytes, uint64_t protection, uint64_t flags);

}  // namespace krg
