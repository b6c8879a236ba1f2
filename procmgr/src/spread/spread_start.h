// SpreadStart: makes a running process a spread one. It is frozen; what it is is captured, so that
// what cannot be spread is found before anything is changed; its private memory is copied into
// pages of a page set; replicas are made on the other nodes; then the pages are mapped in its
// memory's place, and it goes on as a SpreadProcess. On any error before the last step it goes on
// as it was.
//
// Threads: the loop's thread. Shared by what is under way.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/time.h>

#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "image/frozen_process.h"
#include "krg/shmem/page_set.h"
#include "spread/spread_image.h"
#include "spread/spread_process.h"
#include "userfault_source.h"

namespace krg {

class SpreadStart : public std::enable_shared_from_this<SpreadStart> {
 public:
  // A process that is spread, and its threads' ids for SpreadProcess::begin().
  struct Spread {
    SpreadProcess::Parts parts;
    std::vector<pid_t> tids;
  };
  using Done = std::function<void(Result<Spread>)>;
  struct Request {
    NodeContext& node;
    const UserfaultSource& source;
    pid_t pid;
    std::unique_ptr<PageSet> pages;
    std::vector<NodeId> nodes;  // that have opened the set
    // Its numbers of the set's memory and of the device; -1: none.
    int memory_there, device_there;
    bool multiple_writers = false;
    WaitPolicy waiting = {};
    std::function<void()> on_gathered = {};  // SpreadProcess::Parts
    // It has been spread before, and cannot go on otherwise: on this node alone, if need be.
    bool is_spread_again = false;
  };

  SpreadStart(Request request, Done done) : request_(std::move(request)), done_(std::move(done)) {}
  void begin();
  // With a process that stands already.
  void begin(std::shared_ptr<FrozenProcess> frozen);
  // Of one that has failed: to be dropped when the other nodes have.
  std::unique_ptr<PageSet> take_pages() { return std::move(request_.pages); }
  const std::vector<NodeId>& nodes() const { return request_.nodes; }

 private:
  Status capture();
  void plan(const ImageMapping& mapping);
  Status find_one_writers();
  SpreadRange below_stack(const ImageMapping& stack) const;
  Status read_constants(const std::vector<PageRange>& contents);
  void plan_copies(const std::vector<PageRange>& contents);
  void copy_next();
  void start_replicas();
  Status convert();
  std::vector<SpreadRange> constants() const;
  Status take_descriptors(UniqueFd& userfaultfd);
  Status map_ranges(UniqueFd userfaultfd);
  Status take_timers();
  void finish();
  void fail(Error why);

  Request request_;
  Done done_;
  std::shared_ptr<FrozenProcess> process_;
  SpreadImage image_;
  std::vector<ImageThread> threads_;
  SpreadMemory memory_;
  std::vector<ImageMapping> spread_;  // mappings that become pages of the set
  std::vector<SpreadRange> copies_;   // what has contents; `protection` means nothing
  size_t next_copy_ = 0;
  PageIndex scratch_{};
  SpreadScratch mapped_scratch_;
  std::array<itimerval, 3> interval_timers_{};
  std::vector<SpreadRange> one_writer_;  // where pages are not to have several
  int memory_fd_ = -1;
};

}  // namespace krg
