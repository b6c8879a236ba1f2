// MultipleWriters: pages of a page set that several nodes write at a time. Such a page belongs to
// the set's home, which has it pinned for writing (to the KDDM protocol it is the only one that has
// it); other nodes have copies of it beside. Whoever has a copy knows what the home had when both
// were the same (the twin). Before a node tells another anything that a program might learn from
// (publish), it sends the bytes in which its copy differs from the twin; the home passes on what
// came from others likewise. So a program that synchronises its threads finds what they have
// written before; one whose threads write bytes of a page without that finds all bytes of it later.
//
// A page becomes so when two nodes have written it within one phase several times, no fault has
// shown an atomic instruction on it, and no place in it was seen to be touched by both in one phase
// (contested_pages.h). It has one writer again, for good, when an atomic instruction's fault meets
// it or krgd itself uses it (futexes).
//
// Threads: the loop's thread. Owned by the page set.
// Source: Carter et al., Munin (SOSP 1991); Keleher et al., TreadMarks (USENIX 1994).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "contested_pages.h"
#include "faulting_instruction.h"
#include "krg/runtime/event_loop.h"
#include "krg/shmem/page_set.h"
#include "page_frames.h"
#include "page_holder.h"
#include "program_spaces.h"

namespace krg {

class MultipleWriters {
 public:
  struct Parts {
    EventLoop& loop;
    PageFrames& frames;
    std::shared_ptr<PageHolder>& holder;
    ProgramSpaces& spaces;
    // A fault is to be served anew.
    std::function<void(const ProgramFault&)> serve;
    // The faults that wait for the page, which are not waited for there any more.
    std::function<std::vector<ProgramFault>(PageIndex)> take_waiting;
    std::function<void(const ProgramFault&)> told;  // it has been served
    // Returns whether there is memory for a page that has come.
    std::function<bool(PageIndex)> make_room;
  };
  explicit MultipleWriters(Parts parts) : parts_(std::move(parts)) {}
  ~MultipleWriters();

  void allow(MultipleWritersOptions options);
  bool is_on() const { return options_.has_value(); }
  // Whether the page is one of those, here.
  bool has(PageIndex page) const { return pages_.contains(page.value); }
  // False: the fault is the protocol's, as any.
  bool serves(const ProgramFault& fault);
  // What the protocol's faults tell. REQUIRES: is_on().
  void on_fault(const ProgramFault& fault);
  void begin_phase(uint32_t thread, uint64_t phase);
  // krgd is about to use the pages by the protocol.
  void reclaim(PageIndex first, size_t count, bool for_good);

  // `to`, or the home if this node is another, hears of all that was written here by now before it
  // hears what is sent next.
  void publish(NodeId to);
  // A page of the protocol's leaves: a program elsewhere may learn from it.
  void on_page_leaves();
  // Runs `then` when this node knows all that whoever the pages came from knew: at once where that
  // is so anyway. `is_fresh`: the page came after what was asked for last.
  void acquire(std::function<void()> then);
  void on_page_came(PageIndex page);
  bool is_fresh(PageIndex page) const {
    return fresh_.contains(page.value) || settling_.contains(page.value);
  }

  void take_message(NodeId from, std::string_view message);
  const MultipleWritersStatistics& statistics() const { return statistics_; }

 private:
  static constexpr size_t kPage = 4096;
  struct alignas(8) Twin {
    std::array<std::byte, kPage> bytes;
  };
  struct Page {
    bool is_here = false;     // elsewhere: a copy of it; at home: pinned
    bool is_asked = false;    // elsewhere: for a copy
    bool is_leaving = false;  // at home
    bool is_scanned = false;  // it may differ from a twin
    unsigned still = 0;       // times that it did not
    size_t left_to_answer = 0;
    std::map<NodeId, std::unique_ptr<Twin>> twins = {};  // elsewhere: the home's alone
    std::unique_ptr<Twin> coming = {};  // elsewhere: a copy that there is no memory for yet
    std::vector<ProgramFault> waiting = {};
  };
  enum class Kind : uint8_t {
    kNominate,  // to home: it is contested; payload: words
    kRefuse,    // to home: it is not to become one, or to stop being one
    kBecome,    // from home; payload: its bytes, for who is likely to use it
    kFetch,     // to home
    kCopy,      // from home; payload: its bytes
    kChanges,   // both ways; payload: page, changes, ...
    kStop,      // from home: it has one writer again
    kLeft,      // to home: the last changes
    kAcquire,   // to home
    kFlush,     // from home
    kFlushed,   // to home
    kAcquired,  // from home
  };
  struct Header {
    uint8_t version = 1;
    Kind kind = Kind::kNominate;
    uint8_t flag = 0;
    uint8_t unused[5] = {};
    uint64_t page = 0;
    uint64_t number = 0;  // an address, or what is acquired
  };

  bool is_home() const { return options_->self == options_->home; }
  void send(NodeId to, Kind kind, PageIndex page, std::string_view payload = {},
            uint64_t number = 0, bool flag = false) const;
  StandsAt look_at_instruction(const ProgramFault& fault);
  void handle(const ProgramFault& fault, Page& page);
  void show(const ProgramFault& fault);
  void scan(PageIndex index, Page& page);
  void make_still(const std::vector<PageIndex>& pages);
  void drop(PageIndex index, const Page& page);
  void send_changes(NodeId to, std::string& changes);

  void consider(NodeId from, PageIndex page, RemoteAddr address, ContestedPages::Touches touched);
  void begin(PageIndex page);
  void begun(PageIndex page, const Status& kept);
  void leave(PageIndex page);
  void left(PageIndex page);
  void give_copy(NodeId to, PageIndex index, Page& page, Kind kind);
  void begin_flush(NodeId from, uint64_t number);

  void become(PageIndex page, std::string_view bytes);
  void take_copy(PageIndex index, std::string_view bytes);
  bool place_copy(PageIndex index);
  void look_for_memory();
  void stop(PageIndex page);
  bool take_changes_from(NodeId from, std::string_view payload);
  void begin_acquire();

  const Parts parts_;
  std::optional<MultipleWritersOptions> options_;
  MultipleWritersStatistics statistics_;
  ContestedPages contested_;
  std::optional<uint64_t> phase_;
  std::set<uint32_t> in_phase_;  // threads
  std::unordered_map<uint64_t, Page> pages_;
  std::vector<std::pair<PageIndex, Page*>> scanned_;  // is_scanned
  // At home: who has said that a page is contested, and what it had touched in which phase.
  struct Nomination {
    uint64_t phase;
    ContestedPages::Touches touched;
  };
  std::unordered_map<uint64_t, std::map<NodeId, Nomination>> nominated_;
  struct Flush {
    NodeId from;
    uint64_t number;
    size_t left;
  };
  std::map<uint64_t, Flush> flushes_;  // at home, under way
  uint64_t next_flush_ = 1;
  // Pages that came since the last question to the home, before it.
  std::unordered_set<uint64_t> fresh_, settling_;
  std::vector<std::function<void()>> to_acquire_, acquiring_;
  std::deque<PageIndex> without_room_;  // what is coming, or was
  std::chrono::steady_clock::time_point without_room_since_;
  EventLoop::Timer room_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace krg
