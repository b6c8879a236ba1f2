// FamilyTracking: what krgd knows of the processes that it has captured before, so that a further
// capture need not have the pages that were not written since.
//
// Owned by who captures families. Threads: the loop's thread. When this goes the kernel notes
// nothing any more. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>

namespace krg {

class FrozenProcess;
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
  // A number for the next capture, above those before.
  uint64_t next_capture();

  // What is known of a process since that capture; null: nothing. `image`: its own.
  const WrittenPages* since(uint64_t capture, const ProcessImage& image) const;
  // What is written from now on is written after that capture. What cannot be tracked is not.
  void begin(uint64_t capture, FrozenProcess& process, const ProcessImage& image);
  // Those that have ended are forgotten.
  void clean_up();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
