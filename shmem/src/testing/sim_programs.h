// SimPrograms: a node's program in the simulator of pages with several writers: its page table, and
// its threads' touches, carried out on the page set's own frames. It stands in for ProgramSpaces
// and the kernel (sim_programs.cpp defines ProgramSpaces anew, and what kind of instruction a
// thread waits at); all else of the page set is the real one.
//
// Threads run whenever the real ones may: `run_some` is called where krgd is about to change a page
// table, has just done so, or sends something. They only touch memory there; faults come later.
//
// Owned by the cluster and the page set. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <random>
#include <vector>

#include "krg/shmem/userfaultfd_group.h"
#include "page_frames.h"
#include "program_spaces.h"

namespace krg {

class SimPrograms : public UserfaultfdGroup {
 public:
  SimPrograms(size_t pages, unsigned first_thread, unsigned threads, std::mt19937_64& random)
      : first_thread_(first_thread), table_(pages), waits_(threads), random_(random) {}

  // A thread touches a byte: null when it has to wait for the page; else where it is.
  std::byte* touch(unsigned thread, PageIndex page, size_t byte, bool write);
  static PageIndex page_at(RemoteAddr at) { return {(at.value - kStart) / kPageBytes}; }
  bool is_waiting(unsigned thread) const { return waits_[thread - first_thread_].is_waiting; }
  bool has_faults() const { return !faults_.empty(); }
  // The kernel tells of faults that it has not told of yet.
  void tell_faults();

  // What other threads do meanwhile. None: nothing.
  std::function<void()> run_some = {};
  // Of so many write faults that are asked about one is by an atomic instruction; 0: none.
  unsigned atomic_one_in = 0;
  unsigned runs_one_in = 0;  // and one by a thread that does not stand still yet

 private:
  friend class ProgramSpaces;
  static constexpr uint64_t kStart = 1u << 30;  // where it maps page 0
  enum class Entry : uint8_t { kNone, kRead, kWrite };
  struct Wait {
    bool is_waiting = false;
    PageIndex page{};
  };
  void meanwhile() const {
    if (run_some) run_some();
  }
  void wake(PageIndex page);

  const unsigned first_thread_;
  std::vector<Entry> table_;
  std::vector<Wait> waits_;
  std::mt19937_64& random_;
  std::deque<ProgramFault> faults_;
  // The page set's.
  PageFrames* frames_ = nullptr;
  std::function<void(const ProgramFault&)> take_fault_;
};

}  // namespace krg
