// PageHolder: what this node may do with each page of a page set, and the operations on the KDDM
// set that get it the right to do more. A page that a program asked for is held for a while before
// others get it, so that who asked can use it. It is the set's ObjectMemory: the protocol takes
// rights away through it.
//
// Threads: the loop's thread. Owned by the page set; Kddm shares it while the set is open.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "krg/shmem/kddm.h"
#include "page_copying.h"
#include "page_frames.h"
#include "scarce_memory.h"

namespace krg {

// In this order: more includes less.
enum class PageAccess : uint8_t { kNone, kRead, kWrite };

class PageHolder : public ScarceMemory {
 public:
  enum class Why : uint8_t { kAhead, kFault };
  struct Handlers {
    // An operation on the page has ended; access() says what it brought. If it was for a fault,
    // shown() has to follow.
    std::function<void(PageIndex, Status)> answered;
    // Take the right to write away from all programs, before this returns.
    std::function<void(PageIndex first, size_t count)> protect;
    // The pages' frames have been punched.
    std::function<void(PageIndex first, size_t count)> released;
    // Pages may be read here, perhaps without anybody's having asked to be told. May be left out.
    std::function<void(PageIndex first, size_t count)> readable = {};
  };
  // How long a page is held from when it was shown.
  struct Times {
    std::chrono::microseconds usual, most;
  };
  PageHolder(EventLoop& loop, Kddm& kddm, SetId set, PageFrames& frames, Times times,
             Handlers handlers);

  PageAccess access(PageIndex page) const { return access_[page.value]; }
  size_t pages_here() const { return pages_here_; }
  // Asks for more than there is, unless an operation on the page is under way. `answered` may run
  // inside of this call.
  void ask(PageIndex page, PageAccess access, Why why);
  // The page has been mapped for the fault that asked for it: the time that it is held begins, the
  // longer one for who is likely to need it for more than a touch.
  void shown(PageIndex page, bool for_long);
  // Nobody here has a use for the page just now: what is left of that time is not needed, but for
  // what a thread takes to be woken.
  void let_go(PageIndex page);
  // From now on it is held for the usual time at the most.
  void shorten(PageIndex page);
  // It has been used.
  void was_used(PageIndex page);
  // This node has the page to write, and no operation of anybody gets it, until give_up().
  void keep(PageIndex page, std::function<void(Status)> done);
  void give_up(PageIndex page);
  bool is_asked(PageIndex page) const { return asked_.contains(page.value); }
  // Grows, or shrinks: what lies beyond a smaller end is gone. A node that has grown before this
  // one makes it grow, too, when it uses a page behind the end.
  Status resize(size_t pages);
  // As page_set.h says of it; what this node wrote without the program's having asked for it is
  // told by note_written().
  std::optional<std::vector<bool>> take_written();
  void note_written(PageIndex first, size_t count);
  // As page_set.h says of it. REQUIRES: the pages are here, and this node owns them.
  void use_before_change(std::vector<PageIndex> pages, PageCopying::Use use,
                         std::function<void(Status)> done);
  // The set closes: no more callbacks.
  void stop();

  std::span<std::byte> place(ObjectId object) override;
  bool make_room(ObjectId first, size_t count) override;
  void install(ObjectId first, size_t count, std::span<const std::byte> bytes) override;
  void readable(ObjectId first, size_t count) override;
  void protect(ObjectId object) override;
  void release(ObjectId object) override;
  void settle() override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Asked {
    bool get = false, grab = false;  // under way
    bool hold = false;
  };
  struct Held {
    Clock::time_point since = {};
    Clock::time_point until = Clock::time_point::max();  // not shown yet
  };
  void granted(PageIndex page, PageAccess access, Status outcome);
  void hold_until(PageIndex page, Held& held, Clock::time_point until);
  void hold_no_longer(PageIndex page, Held& held, Clock::time_point than);
  size_t protect_run(PageIndex page);
  void set_access(PageIndex page, PageAccess access);
  void end_hold(PageIndex page);
  void end_due_holds();
  void arm();

  EventLoop& loop_;
  Kddm& kddm_;
  const SetId set_;
  PageFrames& frames_;
  const Times times_;
  const Handlers handlers_;
  std::vector<PageAccess> access_;
  size_t pages_here_ = 0;
  std::optional<std::vector<bool>> written_;  // by page, perhaps shorter; none: nobody asked yet
  PageCopying copying_;
  std::unordered_map<uint64_t, Asked> asked_;
  std::unordered_map<uint64_t, Held> held_;               // pinned meanwhile
  std::unordered_set<uint64_t> kept_;                     // pinned until give_up()
  std::set<std::pair<Clock::time_point, uint64_t>> due_;  // some of them have ended already
  EventLoop::Timer timer_;
  std::vector<PageIndex> releases_;  // until settle()
  // A run of protect() from page to page: where it would go on, and how far ahead it protects.
  PageIndex next_protected_{0};
  size_t protect_window_ = 1;
  std::shared_ptr<bool> open_ = std::make_shared<bool>(true);
};

}  // namespace krg
