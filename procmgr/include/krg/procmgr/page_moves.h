// PageMoves: how the pages of a moved process come from the node that has them (S) to the one where
// it runs (T), while it runs there already or before it does.
//
//   S  serve()     a stopped task keeps the memory alive; its pages are read, never changed, each
//                  once; `done` tells when the task is not needed any more
//   T  receive()   first what has to be there before the process runs, then `may_run`; pages that
//   it
//                  touches come at once (userfaultfd), with what follows them; everything else in
//                  the background; then `all_here`: nothing depends on S any more, and the
//                  userfaultfd is gone
//
// In S's place there may be a PageSupply, which has the pages of one arrival from elsewhere.
//
// Pages of zeros are told, not sent. The process may fork, unmap, move and drop its memory
// meanwhile. When S's node fails or its task dies before T has everything, T's process is killed
// (its forked children get SIGBUS where they touch what is lost); when T's process ends, S is done.
//
// Weaker than native while pages are to come: a process's memory must not be touched by krgd's own
// loop without asking awaits() first, since it would wait for itself; nor captured again
// (is_receiving()).
//
// Threads: the loop's thread. Owned by krgd's main, one per node.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/page_range.h"
#include "krg/procmgr/syscall_broker.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// Where the pages of one arrival come from that no other node has: a file, for instance.
// Threads: the loop's thread.
class PageSupply {
 public:
  // Not called inside of the supply's own functions, nor after its end.
  struct Takers {
    // Contents of pages, one range after the other. Each page once.
    std::function<void(std::span<const PageRange> ranges, std::span<const std::byte> contents)>
        pages;
    std::function<void(const Error& why)> lost;  // what has not come will not come
  };

  virtual ~PageSupply() = default;
  // Everything is wanted, in whatever order; once.
  virtual void begin(Takers takers) = 0;
  // Somebody waits for this page. REQUIRES: after begin().
  virtual void demand(RemoteAddr page) = 0;
};

class PageMoves {
 public:
  // Takes the messages; calls of `broker`'s whose arguments are to come wait for them. `aside`:
  // workers copy what comes in the background, while the loop transfers.
  PageMoves(NodeContext& node, SyscallBroker& broker, bool aside = has_processors_to_spare());
  ~PageMoves();
  PageMoves(const PageMoves&) = delete;
  PageMoves& operator=(const PageMoves&) = delete;

  // Serves the pages of `task` (what image/content_ranges.h says of it) to node `target`; the
  // number, with this node, names the move in receive() there. `done` is called once, from the
  // loop: success when T has everything; ESRCH: its process ended before (or the task did: then T's
  // process is killed); EHOSTDOWN: its node failed. Errors: of TaskMemory::open().
  Result<uint64_t> serve(NodeId target, pid_t task, std::vector<PageRange> ranges,
                         std::function<void(Status)> done);
  // The same in two steps: T may be told the number before there is a task, if it is served in the
  // same turn of the loop.
  uint64_t number_move();
  Status serve(uint64_t move, NodeId target, pid_t task, std::vector<PageRange> ranges,
               std::function<void(Status)> done);
  // Where the task comes later still: what T says until then waits for serve().
  void expect(uint64_t move, NodeId target);
  // The move is off: T gets no more pages, and its process is killed if it has not got all. `done`
  // is not called any more.
  void abandon(uint64_t move);

  struct Arrival {
    NodeId source;
    uint64_t move = 0;
    // In the place of those two.
    std::unique_ptr<PageSupply> supply = {};
    // Does not run before `may_run`; krgd may trace it. All of `ranges` is mapped in it.
    pid_t pid = 0;
    // Of the process, which itself has closed it; with no UFFDIO_API yet; one that serves faults of
    // system calls, too. None: everything comes before it runs.
    UniqueFd userfaultfd = {};
    std::vector<PageRange> ranges = {};  // the same as in serve(); sorted by address
    // Nothing comes unasked before begin(), if nothing has to be there before it runs.
    bool waits_for_begin = false;
    // Success: it may run. Error: it must not; whatever is there is of no use.
    std::function<void(Status)> may_run = {};
    // Called once after a successful may_run: success when nothing depends on S any more, which
    // includes the end of the process; an error when pages were lost (it has been killed).
    std::function<void(Status)> all_here = {};
  };
  // Callbacks are called from the loop, not in here.
  void receive(Arrival arrival);

  // A process that stands here and whose pages are to come by a supply: its userfaultfd is kept for
  // whoever calls receive() for it. Taken: once; none: it has none.
  void lend(pid_t pid, UniqueFd userfaultfd);
  UniqueFd take_lent(pid_t pid);

  // The process runs: what is left may come.
  void begin(pid_t pid);

  // Whether krgd may run on as many that its workers do not take them from its loop.
  static bool has_processors_to_spare();
  // What keeps userfaultfd from serving processes that run already: they get all before. The
  // reason, for the log. Needs CAP_SYS_PTRACE (forks are told) and Linux 6.6.
  static Status can_bring_later();

  // Whether memory that is to come is among these bytes of process `pid` (or perhaps so, of a
  // process that is not the moved one). False: touching them does not wait for this.
  bool awaits(pid_t pid, RemoteAddr address, uint64_t bytes) const;
  // Whether process `pid` runs while pages of it are to come: nothing that makes it touch its
  // memory and waits for that may be done in the loop (freezing and capturing it again).
  bool is_receiving(pid_t pid) const;
  // Has it brought at once; `done` is called from the loop when it need not be awaited any more.
  void when_here(pid_t pid, RemoteAddr address, uint64_t bytes, std::function<void()> done);

 private:
  struct Impl;
  bool delay(const SyscallBroker::Call& call, std::function<void()> resume);
  void when_touchable(pid_t tid, RemoteAddr address, size_t bytes, std::function<void()> done);
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
