// PageSpace: an address space that waits for pages of a move: a process that runs before they are
// all there, or a child that it forked meanwhile. It puts pages in, gives zeros where there never
// was anything, and follows what the process does to its mappings.
//
// Owned by the PageTarget. Threads: the loop's thread. Source: ioctl_userfaultfd(2); UFFDIO_POISON
// and the events of forks make Linux 6.6 and CAP_SYS_PTRACE the least.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/userfaultfd.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "content_ranges.h"
#include "krg/runtime/event_loop.h"
#include "krg/runtime/unique_fd.h"
#include "page_list.h"
#include "page_placements.h"

namespace krg {

class PageSpace {
 public:
  enum class Outcome {
    kDone,
    kChanging,  // events have to be read first
    kGone,      // the address space has ended
    kFailed,    // the kernel cannot do it
  };
  struct Events {
    std::vector<uint64_t> faults;                      // pages that somebody waits for
    std::vector<std::unique_ptr<PageSpace>> children;  // forked
  };

  // Whether this process may serve processes that run already.
  static Status can_serve();
  // Registers the mappings that have pages that may come later. Takes a userfaultfd without
  // UFFDIO_API. `mappings`: the process's, in order. Errors: what ioctl(2) says.
  static Result<std::unique_ptr<PageSpace>> create(UniqueFd userfaultfd, const PageList& pages,
                                                   const std::vector<PrivateMapping>& mappings);

  int fd() const { return fd_.get(); }
  bool awaits_any() const { return awaited_.any(); }
  // The page that it awaits there; none: it does not.
  std::optional<uint64_t> awaited_at(RemoteAddr address) const;

  enum class Content {
    kBytes,
    kZeros,
    kPoison,  // SIGBUS for whoever touches it
  };
  // Pages in a row, and where they belong; no bytes: zeros.
  struct Piece {
    uint64_t first, count;
    RemoteAddr at;
    const std::byte* bytes;
  };
  // Fills `count` pages from `at` on. `done`: how many were filled, whatever was the matter with
  // the next. Returns 0 or what the kernel said. Threads: any.
  static int fill(int fd, RemoteAddr at, uint64_t count, Content content, const std::byte* bytes,
                  uint64_t& done);
  // Those of the pages that it awaits; `bytes`: null, or of all of the pages.
  std::vector<Piece> awaited_pieces(uint64_t first, uint64_t count, const std::byte* bytes) const;
  // They have been put in by fill().
  void note_put(uint64_t first, uint64_t count);
  // Puts in those of the pages that it awaits; `bytes` of all of them, for kBytes. After another
  // outcome than kDone those that were not put in are awaited still.
  Outcome put(uint64_t first, uint64_t count, Content content, const std::byte* bytes = nullptr);
  // Puts a page in that must be there before the process runs. False: nothing is served there, or
  // it is there; it can be written without anybody's waiting.
  bool put_early(RemoteAddr at, const std::byte* bytes);
  // Gives zeros where nothing is to come: nobody waits who touches that memory then.
  Outcome fill_gaps(RemoteAddr address, uint64_t bytes);
  // Reads what has happened; answers faults where nothing is to come.
  Outcome read_events(Events& events);
  bool is_gone();

 private:
  PageSpace(UniqueFd fd, PageBits awaited, PagePlacements placements)
      : fd_(std::move(fd)), awaited_(std::move(awaited)), placements_(std::move(placements)) {}
  Status register_ranges(const PageList& pages, const std::vector<PrivateMapping>& mappings);
  Status register_range(RemoteAddr start, RemoteAddr end);
  Outcome put_run(uint64_t first, uint64_t count, RemoteAddr at, Content content,
                  const std::byte* bytes);
  void skip(uint64_t page, RemoteAddr at, int error);
  void apply(const uffd_msg& message, Events& events);
  Outcome fault(RemoteAddr page, Events& events);
  void drop(RemoteAddr start, RemoteAddr end);

  UniqueFd fd_;
  PageBits awaited_;
  PagePlacements placements_;
  std::vector<RemoteAddr> unanswered_;  // faults
};

}  // namespace krg
