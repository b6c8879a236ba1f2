// ProgramSpaces: the address spaces that map one page set, and where. It reads their userfaultfds,
// follows forks, moves and ends of mappings, and changes what the page tables show. It knows which
// pages it has mapped where (nobody else maps any), but nothing of the protocol.
//
// Faults are collected, never answered here: take_faults(). Reading events may happen inside of any
// call that changes page tables, because the kernel refuses those while an address space is
// changing, until its events have been read.
//
// Threads: the loop's thread. Owned by the page set. Source: userfaultfd(2), pidfd_open(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "krg/shmem/ids.h"
#include "krg/shmem/page_set.h"
#include "page_frames.h"
#include "program_ranges.h"
#include "read_ahead.h"
#include "userfaultfd.h"

namespace krg {

// A page of a program, by where it is mapped.
struct ProgramPage {
  uint64_t space;
  RemoteAddr address;
};

struct ProgramFault {
  ProgramPage at;
  PageIndex page;
  uint32_t thread;  // as its own PID namespace calls it
  bool write;
  bool was_mapped;  // for reading
  RemoteAddr exact = {};
  // Of who counts faults (PageSet::on_fault).
  std::chrono::steady_clock::time_point since = {};
  bool was_here = false;
};

class ProgramSpaces {
 public:
  struct Handlers {
    std::function<void()> faults;  // there are some to take
    // A program drops [first, first + count), perhaps from the memfd, too.
    std::function<void(PageIndex first, size_t count)> removing;
    // A program has unmapped [first, first + count). May be left out.
    std::function<void(PageIndex first, size_t count)> unmapped;
    std::function<void()> idle;  // the last mapping has gone
  };
  ProgramSpaces(EventLoop& loop, PageFrames& frames, std::shared_ptr<UserfaultfdGroup> group,
                bool poison_lost_pages, Handlers handlers);
  ~ProgramSpaces();
  ProgramSpaces(const ProgramSpaces&) = delete;
  ProgramSpaces& operator=(const ProgramSpaces&) = delete;

  Status attach(UniqueFd userfaultfd, pid_t pid, RemoteAddr address, PageIndex first, size_t count);
  // As page_set.h says of attach_beside(), is_attached(), mapped_in().
  Status extend(pid_t pid, RemoteAddr address, PageIndex first, size_t count);
  bool is_attached(pid_t pid) { return space_of(pid) != nullptr; }
  std::vector<PageSet::Pages> mapped_in(RemoteAddr address, size_t bytes) const;
  size_t mapping_count() const;
  std::vector<ProgramFault> take_faults() { return std::exchange(faults_, {}); }
  // Of the space that faulted; none when it has gone.
  ReadAhead* read_ahead(uint64_t space);

  // Whether that page of the set is what belongs there.
  bool shows(ProgramPage at, PageIndex page) const;
  // Whether the page table shows it, be it only for reading.
  bool is_mapped(ProgramPage at) const;
  // How many pages from `at` on in steps of +1 or -1 page (the first one included) are mapped there
  // or not, as `mapped` says, and fit.
  unsigned run_length(ProgramPage at, int step, unsigned most, bool mapped,
                      const std::function<bool(PageIndex)>& fits) const;
  // Maps `count` pages from `at` on; their bytes are valid here. Wakes who waits for them, also
  // where they are not mapped any more: the program touches what is there now.
  void map(ProgramPage at, size_t count, bool writable);
  // Lets a program write pages that it has mapped for reading, and wakes who waits for that.
  void allow_writing(ProgramPage at, size_t count);
  // Whoever touches the page gets SIGBUS, those that wait too.
  void make_lost(ProgramPage at);
  void wake(ProgramPage at);
  // No program can write the pages once this has returned.
  void protect(PageIndex first, size_t count);
  // The pages have been punched out of the memfd: they are mapped nowhere any more.
  void forget(PageIndex first, size_t count);

  // As page_set.h says; also for processes that are not attached themselves.
  std::optional<PageSet::Location> locate(pid_t pid, RemoteAddr address) const;

 private:
  struct Space;
  template <class Call>
  Userfaultfd::Outcome insist(Call call);
  Space* find(uint64_t id) const;
  Space* space_of(pid_t pid);
  Space& add(Userfaultfd userfaultfd, pid_t pid, ProgramRanges ranges);
  Status watch(Space& space);
  void read_events();
  void read_events(Space& space);
  size_t read(Space& space, std::span<uffd_msg> messages);
  void apply(Space& space, const uffd_msg& message);
  void fault(Space& space, const uffd_msg& message);
  void look_at_strays();
  bool find_range(Space& space, const ProgramFault& fault);
  void check_alive();
  bool make_room();
  void keep_spares();
  void kill_all_of(const Space& space);
  void end(Space& space);
  void sweep();
  void schedule_sweep();
  void wake_all(ProgramPage at, size_t count);
  void wake_later(ProgramPage at, size_t count);
  Userfaultfd::Outcome write_protect(Space& space, RemoteAddr address, size_t pages);
  void send_sigbus(const Space& space);

  EventLoop& loop_;
  PageFrames& frames_;
  const std::shared_ptr<UserfaultfdGroup> group_;
  const bool poison_lost_pages_;
  const Handlers handlers_;
  uint64_t group_token_ = 0;
  // A program that forks waits until this process has taken its child's userfaultfd: kept for when
  // no other descriptor is to be had.
  static constexpr size_t kSpares = 4;
  std::vector<UniqueFd> spares_;
  uint64_t next_space_ = 1;
  std::map<uint64_t, std::unique_ptr<Space>> spaces_;
  std::vector<ProgramFault> faults_;
  // Faults at addresses that no known range covers: the kernel tells faults before the event that
  // brought the range there. How often each has been looked at.
  std::vector<std::pair<ProgramFault, unsigned>> strays_;
  EventLoop::Timer stray_timer_;
  // What could not be mapped for want of memory, from where on so many pages.
  std::vector<std::pair<ProgramPage, size_t>> short_of_memory_;
  EventLoop::Timer memory_timer_;
  uint64_t changes_ = 0;  // of any space's ranges
  bool sweep_scheduled_ = false;
  EventLoop::Timer alive_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
};

}  // namespace krg
