// The workload through a Transport on an EventLoop, as krgd uses them.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/runtime/transport.h"
#include "timing.h"

namespace krg::perf {

class OurTransport {
 public:
  OurTransport(EventLoop& loop, Transport& transport, const Workload& work);
  // Ranks 0 and 1 together; rank 1 returns when rank 0 has all its figures.
  void run(Figures& figures);

 private:
  static constexpr HandlerId kPing = 1, kPong = 2, kRegion = 3, kStop = 4;
  void await(const bool& reached);
  void ping_pong(Samples& samples);
  void gets(Samples& samples);

  EventLoop& loop_;
  Transport& transport_;
  const Workload work_;
  const NodeId peer_;
  std::vector<std::byte> exposed_, local_, message_;
  std::unique_ptr<MemoryRegion> region_;
  RemoteRegion remote_;
  bool introduced_ = false, ponged_ = false, stopped_ = false;
};

}  // namespace krg::perf
