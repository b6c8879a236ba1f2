// PageSet: a set of 4 KiB pages that programs of this node have mapped. The node's frames are a
// memfd; programs map it shared, and their faults on it (userfaultfd, modes MISSING, MINOR, WP) are
// answered by the protocol: a read fault is a get, a write fault a grab. An unpinned page that is
// mapped stays so until the protocol takes it away (ObjectMemory::protect, release).
//
// Page states and what they are in the memfd and the page tables (docs: shmem/README.md):
//   invalid   a hole; any access faults
//   shared    a page, mapped write-protected where it was touched
//   modified  a page, mapped writable where it was touched
//
// Threads: the loop's thread. Owned by who opened it (procmgr's SharedMemory).
// Source: userfaultfd(2), ioctl_userfaultfd(2), Linux 6.4 or newer (UFFDIO_CONTINUE_MODE_WP).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/types.h"
#include "krg/runtime/unique_fd.h"
#include "krg/shmem/ids.h"
#include "krg/shmem/kddm.h"
#include "krg/shmem/userfaultfd_group.h"

namespace krg {

inline constexpr size_t kPageBytes = 4096;

// The pages that hold so many bytes, and the bytes of these pages.
constexpr uint64_t page_count(uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes;
}
constexpr uint64_t whole_pages(uint64_t bytes) {
  return page_count(bytes) * kPageBytes;
}

struct PageSetOptions {
  std::shared_ptr<IoLinker> linker = {};  // none: pages start as zeros
  // Shared by all page sets that one process may map; none: one of its own.
  std::shared_ptr<UserfaultfdGroup> group = {};
  // One node manages all pages (krg/shmem/kddm.h): where they are used first without a message.
  NodeId home = kNoNode;
  // Programs of one node only use it: a page that is read is taken from the node that keeps it, so
  // that it takes memory once.
  bool one_user = false;
  // A page that was just granted to a fault is not given away before this has passed (ping-pong).
  std::chrono::microseconds hold_time{200};
  // As long is held what a program's thread comes back for because others took it in the middle of
  // its use (working_sets.h): hold_time at the least.
  std::chrono::microseconds long_hold_time{0};
  // Pages fetched ahead of sequential or strided faults, at the most.
  unsigned max_read_ahead = 1024;
  // Whether pages are also asked for to be written before they are touched.
  bool writes_ahead = true;
  // Lost pages are poisoned where the kernel can do it (6.6); false: as on an older one.
  bool poison_lost_pages = true;
};

struct PageSetStatistics {
  uint64_t read_faults = 0;
  uint64_t write_faults = 0;
  uint64_t upgrades = 0;       // write faults on a page that was mapped for reading
  uint64_t answered_here = 0;  // faults that needed no other node and no wait
  uint64_t mapped_around = 0;  // pages mapped beside the one of the fault, being here already
  uint64_t fetched_ahead = 0;  // pages asked for before their fault
  // Of those, pages that their stream of faults passed. An estimate: a touch of a page that is
  // mapped already is seen by nobody.
  uint64_t fetched_ahead_hit = 0;
  uint64_t fetched_by_phase = 0;  // pages asked for when a phase began (begin_phase)
  uint64_t delayed = 0;           // faults that waited because this node was over its memory limit
  uint64_t pages_here = 0;
};

// Pages that several nodes write at a time (multiple writers, twins and changes): for programs
// whose threads tell each other nothing by memory but what system calls, libraries' locks or pages
// of which one node at a time has the only copy order.
struct MultipleWritersOptions {
  NodeId self, home;
  std::vector<NodeId> others = {};  // at home: all other nodes that map the set
  // Elsewhere: pages may come from nodes other than the home, whose writes it has to be asked for.
  bool asks_home = false;
  // What is sent is to be given to take_writers_message() there; ordered with all other messages of
  // this node to that one, the Kddm's included.
  std::function<void(NodeId to, std::string message)> send;
  // At home: whether the page with that address of the program may have several writers.
  std::function<bool(RemoteAddr)> allows = {};
};

// Counters of this node.
struct MultipleWritersStatistics {
  uint64_t pages_begun = 0;                 // at home: pages that came to have several writers
  uint64_t pages_ended = 0;                 // of those, that have one again
  uint64_t pages_told = 0, bytes_told = 0;  // changes that were sent
};

// A program's touch of a page that waited for the page, or for the right to write it.
struct PageFault {
  RemoteAddr address;  // what was touched
  PageIndex page;
  pid_t thread = 0;  // as its own PID namespace calls it
  bool write = false;
  bool was_here = false;    // no other node was asked
  bool was_mapped = false;  // for reading
  std::chrono::nanoseconds waited{};
};

class PageSet {
 public:
  // Opens the set `set` in `kddm` with memory of its own; `pages` may be changed later. Every node
  // opens it so before it is used.
  // Errors: what memfd_create(2) and Kddm::open_set say; ENOSYS where the kernel is older than 6.4.
  static Result<std::unique_ptr<PageSet>> create(EventLoop& loop, Kddm& kddm, SetId set,
                                                 size_t pages, PageSetOptions options = {});
  // REQUIRES: no program maps the set any more, and no other node uses it.
  ~PageSet();
  PageSet(const PageSet&) = delete;
  PageSet& operator=(const PageSet&) = delete;

  SetId id() const;
  size_t pages() const;
  // Grows, or shrinks: pages beyond the end are dropped here, without the protocol (the caller sees
  // to it that every node does the same), and accesses to them give SIGBUS.
  Status resize(size_t pages);
  // The memfd that programs map MAP_SHARED; page i of the set is at i * kPageBytes.
  int memory() const;

  // What a program has to call userfaultfd(2) with; nothing else is to be done to the descriptor.
  // `user_mode_only`: without the privilege to serve faults that the kernel makes for a program
  // (system calls on pages that are not there then fail with EFAULT or come short).
  static int userfaultfd_flags(bool user_mode_only);
  // Whether forks are followed: a child's copy of a mapping is then served like its parent's.
  // Needs CAP_SYS_PTRACE in the initial user namespace, in this process. Where they are not, a
  // child must not touch the mapping (MADV_DONTFORK, or it maps and attaches anew).
  static bool follows_forks();
  // Sets `userfaultfd`, opened by the process `pid` (as this process sees it), up for the range
  // [address, address + count pages), which maps pages from `first` on, and serves its faults.
  // REQUIRES: no page of the range was touched before. The mapping follows mremap and is forgotten
  // when it is unmapped, or its address space goes (exit, exec).
  // Errors: EINVAL (out of the set's range), what ioctl_userfaultfd(2) says.
  Status attach(UniqueFd userfaultfd, pid_t pid, RemoteAddr address, PageIndex first, size_t count);
  // The same by a userfaultfd of the process that serves another mapping of this set already.
  // REQUIRES: is_attached(pid). Errors: ESRCH.
  Status attach_beside(pid_t pid, RemoteAddr address, PageIndex first, size_t count);
  // Whether the process `pid` has mappings that are served; no fork's child.
  bool is_attached(pid_t pid);
  // Which pages of the set are mapped in [address, address + bytes) by any program.
  struct Pages {
    PageIndex first;
    size_t count;
  };
  std::vector<Pages> mapped_in(RemoteAddr address, size_t bytes) const;
  // `unmapped` runs for pages that a program has unmapped (not when it exits), in a turn of the
  // loop of its own.
  void on_unmapped(std::function<void(Pages)> unmapped);
  // Mappings that are served now. on_idle runs each time it falls to zero.
  size_t mapping_count() const;
  void on_idle(std::function<void()> idle);

  // read(2) and write(2) of the set as a file, by krgd: any range inside of it, coherent, page by
  // page. `done` of a part of one page runs before krgd or another node changes it. Errors in the
  // completion: EINVAL (out of the set's range), EOWNERDEAD (a page was lost with its node).
  void read(uint64_t offset, size_t bytes, std::function<void(Result<std::string>)> done);
  void write(uint64_t offset, std::string_view bytes, std::function<void(Status)> done);
  using Use = std::function<void(PageIndex, std::span<const std::byte>)>;
  // Calls `use` for each of the pages that exists, on whatever node it is, as it is at that moment.
  // Errors: as of write(), ECANCELED (the set was closed). REQUIRES: the set is not destroyed
  // before `done`.
  void visit(PageIndex first, size_t count, Use use, std::function<void(Status)> done);
  // Replaces a word of the set, atomically for programs of all nodes; `done` gets what it was.
  // REQUIRES: offset % 4 == 0. Errors: as of write().
  void update(uint64_t offset, std::function<uint32_t(uint32_t)> change,
              std::function<void(Result<uint32_t>)> done);
  // By page of the set, perhaps shorter: which may have been written, or discarded, by this node
  // since the call before; none at the first call. What its programs write from now on counts anew:
  // they lose the right to write all pages, whose next writes fault. REQUIRES: a page has one
  // writer (allow_multiple_writers()).
  std::optional<std::vector<bool>> take_written();
  // The pages that exist and that this node owns, in order: each page that exists is one node's,
  // where no node's program runs and no node's owned() fails. Errors: EAGAIN: one is on its way, or
  // has been asked for here; EOWNERDEAD: one was lost with its node.
  Result<std::vector<PageIndex>> owned() const;
  // Calls `use` for each of these, as it is now, while programs go on: before it changes. `done`
  // runs later, when it has for all; it gets ECANCELED where this is called again before. REQUIRES:
  // owned() told of them in this turn of the loop, after take_written(); the set is not destroyed
  // before `done`.
  void use_before_change(std::vector<PageIndex> pages, Use use, std::function<void(Status)> done);
  // Pages become zeros on all nodes: what madvise(MADV_REMOVE) and fallocate(FALLOC_FL_PUNCH_HOLE)
  // ask for. (A program's own MADV_REMOVE is seen too late to be coherent.)
  void discard(PageIndex first, size_t count, std::function<void()> done);

  // Whoever used the page here waits for others to change it now: it need not be held for them
  // (hold_time) any more.
  void let_go(PageIndex page);

  // The program's thread has used what it touched and waits for others now: nothing is held for it.
  void waits(pid_t thread);
  // The thread has told others something, and may go on: what it touched is held for hold_time from
  // now on at the most.
  void wakes(pid_t thread);
  // The program's thread (as its own PID namespace calls it) begins something that it may have done
  // before and that touches much the same pages each time: a parallel region, or what comes behind
  // one of its barriers. Those that it had to wait for then are fetched now, all together.
  void begin_phase(pid_t thread, uint64_t phase);

  // `served` runs for each fault that has been answered from now on.
  void on_fault(std::function<void(const PageFault&)> served);

  // Every node that maps the set allows it, before its first page is touched. Then publish(to) has
  // to be called before anything is sent to `to` that a thread there may learn from (elsewhere than
  // at home: before anything is sent to any node).
  void allow_multiple_writers(MultipleWritersOptions options);
  void publish(NodeId to);
  void take_writers_message(NodeId from, std::string_view message);
  bool allows_multiple_writers() const;
  MultipleWritersStatistics multiple_writers() const;

  // Programs that touch a page that was lost with a node get SIGBUS.
  PageSetStatistics statistics() const;

  // Where `address` of `pid` lies in the set, if it maps it there: for futexes.
  struct Location {
    PageIndex page;
    size_t offset;  // bytes into the page
  };
  std::optional<Location> locate(pid_t pid, RemoteAddr address) const;

 private:
  PageSet();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
