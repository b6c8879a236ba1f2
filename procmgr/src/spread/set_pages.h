// SetPages: copies of single pages of a spread process's set, in whatever order they come, until a
// capture has them. Pages that were copied too early can be replaced. Threads: one at a time.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "family/family_memory.h"
#include "spread/spread_memory.h"

namespace krg {

uint64_t bytes_of(const std::vector<SpreadRange>& ranges);

class SetPages {
 public:
  // Room for so many bytes. Errors: ENOMEM.
  static Result<SetPages> make(uint64_t most);

  // REQUIRES: it has none of that address. Errors: ENOSPC.
  Status add(RemoteAddr at, std::span<const std::byte> page);
  // Forgets all others, whose room is free again. `ranges`: sorted by address.
  void keep(const std::vector<SpreadRange>& ranges);
  uint64_t bytes() const;
  // Gives them up.
  CopiedPages sorted();

 private:
  using Place = std::pair<uint64_t, uint64_t>;  // address, offset in `bytes_`

  PageBuffer bytes_;
  uint64_t room_ = 0, used_ = 0;
  std::vector<Place> places_;
  std::vector<uint64_t> free_;  // offsets below `used_`, the lowest last
};

}  // namespace krg
