// FamilyTracking: what krgd knows of the processes that it has captured before, so that a further
// capture need not have the pages that were not written since.
//
// Owned by who captures families. Threads: the loop's thread. When this goes the kernel notes
// nothing any more. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "krg/procmgr/page_range.h"

namespace krg {

class FrozenProcess;
class PageDigests;
class PageMarks;
class WrittenPages;
struct ProcessImage;

class FamilyTracking {
 public:
  // Nothing is tracked where the kernel has no way to.
  FamilyTracking();
  ~FamilyTracking();
  FamilyTracking(const FamilyTracking&) = delete;
  FamilyTracking& operator=(const FamilyTracking&) = delete;

  bool works() const;
  // What is known of a process since that capture, to be taken, and never known again until
  // begin(); null: nothing. `image`: its own. `left_out`: what is to be left out now; pages that
  // were so in that capture and are no more are in none, so that nothing is known then.
  WrittenPages* since(uint64_t capture, const ProcessImage& image,
                      std::span<const PageRange> left_out = {});
  // What is written from now on is written after that capture. What cannot be tracked is not.
  void begin(uint64_t capture, FrozenProcess& process, const ProcessImage& image,
             std::vector<PageRange> left_out = {});

  // For pages that are saved while the process runs (live_pages.h): what watches it, which is known
  // to nobody then; null: it cannot be watched. REQUIRES: it stands.
  std::shared_ptr<WrittenPages> take_watch(FrozenProcess& process);
  // What is written since that was reset is written after that capture, as since() tells it.
  void begin_live(uint64_t capture, pid_t pid, std::shared_ptr<WrittenPages> watch,
                  std::vector<PageRange> left_out);

  // The pages with content of a file that nobody has written to since that capture; null: it is not
  // known. `file`: as fstat(2) tells now.
  const std::vector<PageRange>* file_since(uint64_t capture, const struct stat& file) const;
  void begin_file(uint64_t capture, const struct stat& file, std::vector<PageRange> pages);

  // Which pages of a file of the memory that nodes share this node had in that capture, while as
  // many nodes lived; to be taken. None: it is not known.
  std::optional<PageMarks> memory_since(uint64_t capture, uint64_t file, size_t nodes);
  void begin_memory(uint64_t capture, uint64_t file, size_t nodes, PageMarks pages);

  // What the pages were in that capture that a process had for all with whom it shares memory of
  // this kernel; null: it is not known. `now`: is filled while this capture is written.
  std::shared_ptr<const PageDigests> shared_since(uint64_t capture, pid_t pid) const;
  void begin_shared(uint64_t capture, pid_t pid, std::shared_ptr<const PageDigests> now);

  // Those that have ended are forgotten, and files that no capture of late had.
  void clean_up();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
