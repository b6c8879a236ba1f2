// LatePages: the pages of one member come out of a checkpoint while it runs already: those that it
// waits for with the block that they are in, the others in the order of the files. A block is read
// and checked by a worker, once.
//
// Threads: the loop's thread. Owned by PageMoves. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/procmgr/page_moves.h"
#include "krg/runtime/worker_pool.h"

namespace krg {

using SharedParts = std::shared_ptr<const std::vector<std::unique_ptr<PartReader>>>;

class LatePages : public PageSupply {
 public:
  // `member`: index of ProcessFamily::members.
  LatePages(WorkerPool& workers, const VersionInfo& info, SharedParts parts, uint32_t member);
  ~LatePages() override;

  // All that it has, in order of address.
  std::vector<PageRange> ranges() const;

  void begin(Takers takers) override;
  void demand(RemoteAddr page) override;

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the reading that is under way
};

}  // namespace krg
