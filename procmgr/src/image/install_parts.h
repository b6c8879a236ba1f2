// The parts of ImageInstaller: what a process that has just execed is had do to become the one of
// an image. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "image/frozen_process.h"
#include "image/process_image.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class SharedMemory;

// An error of a call that the process made for krgd, when `result` is one.
Status done_by_call(const char* what, int64_t result);
// The process's descriptor `from` becomes `to`, whatever was there before; `flags`: dup3(2)'s.
// Errors: dup3(2)'s; `from` is closed all the same.
Status move_descriptor(FrozenProcess& process, uint64_t from, uint64_t to, int flags);

// Unmaps all that the process has, and maps what the image has. `first_file`: the number that the
// process has for the image's first file; the others follow. Errors: ENOTSUP, EAGAIN: another
// kernel's vdso that cannot be led to this one's, or not now.
Status install_memory(FrozenProcess& process, const ProcessImage& image, int first_file);
// A userfaultfd of the process's memory, which it has no descriptor of then; no UFFDIO_API yet.
// `device`: the process's descriptor of /dev/userfaultfd; -1: it calls userfaultfd(2).
Result<UniqueFd> open_userfaultfd(FrozenProcess& process, int device);
// That descriptor; negative where the process may not open it.
int open_userfaultfd_device(FrozenProcess& process);
// Where the kernel tells nobody of forks: serves what a fork's child, frozen before its first
// instruction, has of that memory. What cannot be served is unmapped: touching it would show what
// nobody keeps coherent.
Status follow_fork(FrozenProcess& child, SharedMemory& shared);
struct SharedUse {
  uint64_t file = 0;
  bool writes = false;
  bool operator==(const SharedUse&) const = default;
};
std::vector<SharedUse> shared_memories(const ProcessImage& image);
// The memory that other nodes share. `uses`: all that shared_memories() names and more; the process
// has descriptors of them, in their order, from `first` on; `device`: its userfaultfd's source, or
// -1.
Status install_shared_memory(FrozenProcess& process, const ProcessImage& image,
                             SharedMemory& shared, const std::vector<SharedUse>& uses, int first,
                             int device);
// A copy of a descriptor that the process has. Errors: of pidfd_getfd(2).
Result<UniqueFd> take_descriptor(pid_t pid, int number);
// PR_SET_MM_MAP, signal actions, settings. `program`: its descriptor of the image's program; -1: it
// runs that already.
Status install_settings(FrozenProcess& process, const ProcessImage& image, int program = -1);
// What BodySpawner gives a body before its exec, where it differs: working directory, limits,
// priority, ids, ignored signals and the like.
Status install_attributes(FrozenProcess& process, const ProcessImage& image);
// Makes the other threads, and gives each what does not touch the image's memory.
Status install_threads(FrozenProcess& process, const ProcessImage& image);
// The same of a fork's child of the process that the image is of: the kernel chooses the threads'
// ids, which the image has then.
Status copy_threads(FrozenProcess& process, ProcessImage& image);
// The capabilities that it is to have (it may have had more, to choose its threads' ids).
Status install_capabilities(FrozenProcess& process, const ProcessImage& image);
Status install_timers(FrozenProcess& process, const ProcessImage& image);

// What comes last: rseq, sleeps, waiting signals; registers, which take effect when it is let go.
Status finish_threads(FrozenProcess& process, const ProcessImage& image);
Status start_timers(FrozenProcess& process, const ProcessImage& image);
// For the process, not one of its threads.
Status queue_signals(FrozenProcess& process, const std::vector<ImageSignal>& signals);

}  // namespace krg
