// The workload by libfabric alone: both sides spin on their completion queues.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <string>

#include "krg/runtime/boot.h"
#include "timing.h"

namespace krg::perf {

// Whether a program over the bare library could block: what its completion queue is opened for.
// Either way it spins here.
enum class Waiting { kNever, kByDescriptor };

// Two endpoints of the provider on the given address, connected to each other.
class BareLibfabric {
 public:
  // Collective over ranks 0 and 1. Exits with a message when libfabric refuses something.
  BareLibfabric(const MpiBoot& boot, const std::string& provider, const std::string& address,
                Waiting waiting);
  ~BareLibfabric();
  void run(const Workload& work, Figures& figures);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg::perf
