// PageSpaces: the address spaces that wait for the pages of one move: the process's own, and those
// of children that it forks meanwhile.
//
// Threads: the loop's thread, with workers for put_aside(). Owned by the PageTarget.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "alive.h"
#include "krg/runtime/event_loop.h"
#include "krg/runtime/worker_pool.h"
#include "krg/shmem/userfaultfd_group.h"
#include "page_copy.h"
#include "page_space.h"

namespace krg {

class PageSpaces {
 public:
  // Called from the loop, never inside of a call to this object.
  struct Handlers {
    std::function<void(std::vector<uint64_t> pages)> faults;  // somebody waits for them
    std::function<void()> changed;                            // of what awaits_any() says
  };

  PageSpaces(EventLoop& loop, std::shared_ptr<UserfaultfdGroup> group, Handlers handlers);
  ~PageSpaces();
  PageSpaces(const PageSpaces&) = delete;
  PageSpaces& operator=(const PageSpaces&) = delete;

  // The process's own; its faults are answered from now on. Errors: as PageSpace::create().
  Status add_first(UniqueFd userfaultfd, const PageList& pages,
                   const std::vector<PrivateMapping>& mappings);

  // As PageSpace::put(), in all spaces. Errors: the kernel cannot do it.
  Status put(uint64_t first, uint64_t count, PageSpace::Content content,
             const std::byte* bytes = nullptr);
  // The same, of many pieces, which a worker puts in where that can be; `bytes` stay until `done`
  // is called, from the loop.
  struct Run {
    uint64_t first, count;
    const std::byte* bytes;  // null: zeros
  };
  void put_aside(WorkerPool& workers, std::vector<Run> runs, std::function<void(Status)> done);
  bool awaits_any() const;
  // Whether the process itself does.
  bool first_awaits();
  // The awaited pages among this memory of the process itself, or perhaps of one of the children.
  std::vector<uint64_t> awaited(bool first, RemoteAddr address, uint64_t bytes);
  bool serves_first() const { return !spaces_.empty() && spaces_.front()->is_first; }
  // As PageSpace::put_early(), in the process's own. REQUIRES: serves_first().
  bool put_early(RemoteAddr at, const std::byte* bytes);
  // As PageSpace::fill_gaps(), in the process's own or in those of all of the children.
  void fill_gaps(bool first, RemoteAddr address, uint64_t bytes);
  // Looks which have ended; others are found to have when something is put into them.
  void find_ended();
  // Lets go of what awaits nothing any more or has ended.
  void sweep();

 private:
  struct Space {
    std::unique_ptr<PageSpace> pages;
    bool is_first;
    bool is_gone = false;
    EventLoop::Watch watch = {};
  };

  Status add(std::unique_ptr<PageSpace> pages, bool is_first);
  Status put_runs(const std::vector<Run>& runs);
  // Waits for what workers put in. Events are read after that only: an address space that has
  // changed is still said to be changing as long as the event has not been read, so that no page
  // gets to a place that has become another's.
  void finish_copies();
  void note(const PageCopy& copy);
  // Until no event is in its way any more.
  template <class Call>
  PageSpace::Outcome insist(Space& space, const Call& call);
  bool is_waiting(const Space& space) const { return !space.is_gone && space.pages->awaits_any(); }
  void read_events(Space& space);
  void read_all_events();
  void tell_later();
  void tell();

  EventLoop& loop_;
  const std::shared_ptr<UserfaultfdGroup> group_;
  const Handlers handlers_;
  const uint64_t token_;
  std::vector<std::unique_ptr<Space>> spaces_;
  std::vector<std::shared_ptr<PageCopy>> copies_;  // into the first of spaces_
  std::vector<uint64_t> faults_;
  bool will_tell_ = false;
  bool read_again_ = false;  // an address space was changing
  Alive alive_;
};

}  // namespace krg
