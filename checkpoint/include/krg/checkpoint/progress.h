// Progress: how far the writing or loading of pages is. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace krg {

struct Progress {
  std::atomic<uint64_t> done{0}, total{0};  // bytes
};
using SharedProgress = std::shared_ptr<Progress>;  // may be null

inline void add_done(const SharedProgress& progress, uint64_t bytes) {
  if (progress) progress->done += bytes;
}

}  // namespace krg
