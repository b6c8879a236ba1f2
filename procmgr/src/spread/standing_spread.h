// StandingSpread: a spread process all of whose threads stand still, wherever they are, to be
// captured. Its threads at home, and the originals of those elsewhere, are a FrozenProcess
// meanwhile; what the threads elsewhere are has been brought. When this goes all go on, each where
// it was.
//
// Threads: the loop's thread. Owned by who captures. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "family/family_memory.h"
#include "image/frozen_process.h"
#include "image/known_mappings.h"
#include "image/process_image.h"
#include "krg/procmgr/page_range.h"

namespace krg {

class EarlyPages;

class StandingSpread {
 public:
  virtual ~StandingSpread() = default;

  virtual const std::shared_ptr<FrozenProcess>& process() const = 0;
  // As of an ordinary process of this node: pages of the set are private memory, threads stand here
  // with the registers that they have elsewhere; in the middle of a call that has no answer yet,
  // before it. Errors: as capture_image().
  virtual Result<ProcessImage> image(int session_mount_ns, MappingTexts& before) = 0;
  // What Spreading::restore() makes it spread again by (spread_again.h).
  virtual std::string state() const = 0;
  // The descriptor that krgd has put into it.
  virtual int memory_fd() const = 0;
  // What is to be read when it has gone on, for the next take(), if that has all (early_pages.h);
  // null: nothing. `done` does not run when this goes before.
  virtual void begin_early(std::function<void(std::shared_ptr<EarlyPages>)> done) = 0;
  // Its memory, pages of all nodes included.
  struct Memory {
    // A stopped task, traced, with a copy of all of it but what was copied: the caller's to kill.
    // 0: what follows.
    pid_t copy = 0;
    std::vector<PageRange> set_pages;  // with content, is_clean: as it was in `base`; with no copy
    CopiedPages written;               // those that are not clean
  };
  // `number`: of this capture. `base`: that of an earlier one, whose pages need not be had again,
  // if all is known of them; 0: none. With less than all, the rest of its memory, which is at home
  // only, is the caller's business. `early`: what begin_early() told since the take() before, read;
  // else null. `done` does not run when this goes before.
  virtual void take(uint64_t base, uint64_t number, std::shared_ptr<EarlyPages> early,
                    std::function<void(Result<Memory>)> done) = 0;
};

}  // namespace krg
