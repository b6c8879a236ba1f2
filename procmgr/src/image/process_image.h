// ProcessImage: what a frozen process is, without the contents of its pages and its descriptors,
// which travel beside it (content_ranges.h, descriptors.h): enough to make the same process on
// another node and let it go on where it stood. Taken by capture_image(), made a process again by
// ImageInstaller.
//
// Not in it: NUMA policy, cgroup, keyrings, timer slack (it carries our tags), membarrier
// registrations, MCL_FUTURE. Threads: a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/time.h>
#include <sys/user.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "krg/procmgr/exec_spec.h"
#include "krg/runtime/types.h"

namespace krg {

// A file that is mapped: by its path, and what tells that another node's file of that path is the
// same. (Nodes may have their own disks: device and inode say nothing there.)
struct ImageFile {
  std::string path;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  // As modified_ns: a shared mapping may write it. What is in it is the file's.
  static constexpr int64_t kMayChange = -1;
  auto operator<=>(const ImageFile&) const = default;
};

struct ImageMapping {
  // kKernel: [vdso], [vvar], …; kShared: memory that nodes share (krg/procmgr/shared_memory.h).
  enum class Kind : uint32_t { kAnonymous, kFile, kKernel, kShared };
  enum Advice : uint32_t {  // madvise(2), mlock(2)
    kGrowsDown = 1,
    kLocked = 2,
    kNoReserve = 4,
    kDontFork = 8,
    kWipeOnFork = 16,
    kHugePages = 32,
    kNoHugePages = 64,
    kMergeable = 128,
    kDontDump = 256,
    kShared = 512,  // of a file, and not to be written: others cannot notice
    kSequential = 1024,
    kRandom = 2048,
    kDroppable = 4096,  // MAP_DROPPABLE
    kMayWrite = 8192,   // kShared: mprotect may let it write
  };

  RemoteAddr start;
  uint64_t bytes = 0;
  Kind kind = Kind::kAnonymous;
  uint32_t protection = 0;  // PROT_*
  uint32_t advice = 0;      // bits of Advice
  uint32_t file = 0;        // kFile: index of ProcessImage::files
  uint64_t offset = 0;      // in the file
  // kShared: the shared file; as long as it is being captured, the inode of its memory here.
  uint64_t shared_file = 0;
  std::string name;  // kKernel: "[vdso]"

  RemoteAddr end() const { return start + bytes; }
  bool operator==(const ImageMapping&) const = default;
};

// Where the kernel believes the parts of a program to be (struct prctl_mm_map).
struct ImageLayout {
  uint64_t start_code = 0, end_code = 0, start_data = 0, end_data = 0, start_brk = 0, brk = 0,
           start_stack = 0, arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
  bool operator==(const ImageLayout&) const = default;
};

// Everything but the signal's number is as the kernel has it (struct kernel_sigaction).
struct ImageSignalAction {
  uint64_t signal = 0, handler = 0, flags = 0, restorer = 0, mask = 0;
  bool operator==(const ImageSignalAction&) const = default;
};

// A signal that waits; the bytes of its siginfo_t.
struct ImageSignal {
  std::array<char, 128> info{};
  int number() const;
  bool operator==(const ImageSignal&) const = default;
};

struct ImageTimer {  // timer_create(2)
  int32_t id = 0, clock = 0, signal = 0, notify = 0;
  int32_t thread = 0;  // SIGEV_THREAD_ID
  int32_t overrun = 0;
  uint64_t value = 0;  // sigev_value
  int64_t left_ns = 0, interval_ns = 0;
  bool operator==(const ImageTimer&) const = default;
};

struct ImageThread {
  pid_t tid = 0;
  // In the middle of a system call: rax is -ERESTART*, orig_rax its number; the kernel restarts it.
  user_regs_struct registers{};
  std::string extended_state;  // NT_X86_XSTATE
  uint64_t signal_mask = 0;
  uint64_t alternate_stack = 0, alternate_stack_bytes = 0;
  int32_t alternate_stack_flags = 0;
  int32_t nice = 0, policy = 0, realtime_priority = 0;
  uint64_t robust_list = 0, robust_list_bytes = 0;
  uint64_t tid_address = 0;  // set_tid_address(2)
  uint64_t rseq = 0;
  uint32_t rseq_bytes = 0, rseq_signature = 0;
  std::string name;
  // Places among its node's processors (processor_numbers.h); none: it may run on all.
  std::vector<uint32_t> processors;
  // prctl(2): PR_GET_TSC, PR_MCE_KILL_GET, PR_GET_PDEATHSIG (told by the parent's end at its home,
  // to the shadow, which passes it on), PR_GET_SPECULATION_CTRL.
  int32_t counter_access = 1, memory_errors = 2, parent_end_signal = 0;
  std::array<int32_t, 2> speculation{};
  std::vector<ImageSignal> pending;
  // A sleep in progress, relative, whose rest the kernel has told: it goes on with that.
  int64_t sleep_left_ns = -1;
};

struct ProcessImage {
  ExecSpec spec;  // attributes, cwd, groups; path: the program (not argv and environment)
  uint32_t dumpable = 1, is_subreaper = 0, no_huge_pages = 0;
  uint32_t merges_pages = 0, no_new_code = 0;  // PR_GET_MEMORY_MERGE, PR_GET_MDWE
  int32_t stop_signal = 0;                     // it was stopped by job control
  ImageLayout layout;
  std::string auxv;
  std::vector<ImageFile> files;  // the first: the program
  std::vector<ImageMapping> mappings;
  std::string vdso;                               // its bytes; empty: it has none
  std::vector<ImageSignalAction> signal_actions;  // those that are not the default
  std::vector<ImageSignal> pending;               // for the process, not one of its threads
  std::array<itimerval, 3> interval_timers{};     // ITIMER_REAL, …
  std::vector<ImageTimer> timers;
  std::vector<ImageThread> threads;  // the first: the main thread

  // Error: EBADMSG.
  static Result<ProcessImage> parse(std::string_view bytes);
  std::string serialize() const;
};

}  // namespace krg
