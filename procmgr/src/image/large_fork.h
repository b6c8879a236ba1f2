// LargeFork: a fork whose child is to run elsewhere, of a process with much memory. fork(2) copies
// an entry for each page, 20 ms and more for each GiB, and the child's first instruction would wait
// for that. So the child is made without the large parts of the memory; where they are is told in
// its image, and what they have is copied (as fork(2) makes copies) while the child begins on its
// node. The forker stands still until both is done: nothing changes its memory meanwhile.
//
// What the forker itself has kept from its children, or has wiped in them, makes no such child: the
// mappings and pages of the child show it.
//
// The child here is never to run: it becomes a shadow, or is killed unseen, and the forker makes
// its call again (call_again()).
//
// Threads: the loop's thread, which is the tracer. Shared by who moves the child and by the
// copying; when the last owner goes the forker goes on. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "image/frozen_process.h"
#include "image/image_capture.h"
#include "image/known_mappings.h"
#include "krg/procmgr/page_range.h"

namespace krg {

class LargeFork : public std::enable_shared_from_this<LargeFork> {
 public:
  struct Part {
    uint64_t start = 0, end = 0;
  };
  using Made = std::function<void(Result<std::shared_ptr<LargeFork>>)>;

  // Whether the process has one thread, and so much memory of its own that its forks are worth it.
  static bool is_worth_it(pid_t forker);
  // `fork`: a fork(2), or a clone(2) like one, without a stack of its own. `known`: the forker's
  // mappings as they were read before; asked later. Errors: EPERM (it has a tracer): `fork` was not
  // taken. Later, to `made`, and the forker makes its call again: ENOTSUP: there is no such child
  // of it; ESRCH: it died.
  static Status begin(ChildReaper& reaper, SyscallBroker::Call& fork,
                      std::function<MappingTexts&()> known, Made made);
  ~LargeFork();
  LargeFork(const LargeFork&) = delete;
  LargeFork& operator=(const LargeFork&) = delete;

  // Stands at its first instruction.
  const std::shared_ptr<FrozenProcess>& child() const { return child_; }
  // What the child would have in memory had it been made whole. REQUIRES: once.
  ImageMemory take_memory() { return std::move(memory_); }
  // Which of the pages that it would have have content. REQUIRES: once.
  std::vector<PageRange> take_pages() { return std::move(pages_); }
  // The child's memory, wherever that is now. Errors: of FrozenProcess::read().
  Status read(RemoteAddr from, std::span<char> to) const;

  // Makes a task that keeps all of that memory, and stays stopped until it is killed
  // (FrozenProcess::clone_page_source()); `done` gets it, from the loop where that takes long.
  // Errors: of clone(2); ESRCH. REQUIRES: once; nothing is read any more.
  void copy_memory(std::function<void(Result<pid_t>)> done);

  // There is to be no such child: it ends, nobody being told, and the forker makes its call again
  // as soon as no memory is being copied.
  void call_again();

 private:
  class Stopping;
  struct Arguments;
  struct Word {
    uint64_t at = 0;
    uint32_t child_has = 0;
  };
  using PieceUse = std::function<Status(const Part& piece, bool is_withheld)>;

  LargeFork(ChildReaper& reaper, std::shared_ptr<FrozenProcess> forker, int held_signal)
      : reaper_(reaper), forker_(std::move(forker)), held_signal_(held_signal) {}
  Status make_child(MappingTexts& known);
  Status find_withheld();
  bool is_gain() const;
  Status withhold();
  Status advise(const Part& part, int advice);
  Status give_back();
  Status clone_child();
  void take_words(const Arguments& arguments);
  Status compare_child();
  void add_page_of(const Word& word, const std::vector<PageRange>& of_child);
  Status for_each_piece(Part all, const PieceUse& use) const;
  void copy_words(pid_t source) const;
  Result<pid_t> begin_copy();
  Result<pid_t> end_copy(pid_t between, const TraceStop& stop);
  void drop_between(pid_t between);
  void make_call_again();
  void end_child();

  ChildReaper& reaper_;
  std::shared_ptr<FrozenProcess> forker_, child_;
  const int held_signal_;
  ImageMemory memory_;
  std::vector<PageRange> pages_;
  std::vector<Part> withheld_;  // in the order of their addresses
  std::vector<Word> words_;     // where the kernel writes ids for clone(2)
  bool is_copying_ = false, is_off_ = false;
};

}  // namespace krg
