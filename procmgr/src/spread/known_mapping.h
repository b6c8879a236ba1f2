// KnownMapping: what a spread process has mapped at an address, as its home tells a replica that
// has met it for the first time. Threads: a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "image/process_image.h"
#include "krg/runtime/result.h"
#include "spread/spread_memory.h"

namespace krg {

struct KnownMapping {
  // kNothing: or what is at home only.
  enum class Kind : uint32_t { kNothing, kPages, kFile };
  Kind kind = Kind::kNothing;
  SpreadRange range;       // kFile: `first` means nothing
  uint64_t set_pages = 0;  // the size of the set by then
  uint64_t offset = 0;     // kFile: in the file
  ImageFile file = {};
  RemoteAddr scratch{};  // a page that the process has mapped at home only

  // Error: EBADMSG.
  static Result<KnownMapping> parse(std::string_view bytes);
  std::string serialize() const;

  // A file that the process `pid` only reads at `address`, with nothing of its own in that mapping;
  // nothing else.
  static KnownMapping of_file(pid_t pid, RemoteAddr address);
};

}  // namespace krg
