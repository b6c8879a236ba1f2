// TransportMeter: what the bare transport does between two ranks, to compare with in the same run:
// round trips that bring data, one-sided gets and puts. Rank 0 measures, rank 1 serves.
//
// Threads: the loop's thread; each measurement runs the loop.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "krg/runtime/transport.h"
#include "require.h"

namespace krg::perf {

class TransportMeter {
 public:
  // On both ranks. Takes the transport's handlers 200 to 202.
  explicit TransportMeter(Transport& transport);

  // Rank 1: tells rank 0 where its memory is. Rank 0: waits for that.
  void introduce();
  void await(const bool& reached);

  // Median µs of a message that one of 4 KiB answers; with so long a rest before each.
  double round_trip_us(uint32_t pause_us);
  // µs for so many bytes: by messages of 256 KiB one at a time; by one-sided operations of 1 MiB,
  // two under way at a time.
  double messages_us(size_t bytes);
  double gets_us(size_t bytes);
  // The same into a new memfd, mapped here, as a page set has it.
  double gets_into_new_memory_us(size_t bytes);
  double puts_us(size_t bytes);

 private:
  using Start = std::function<void(Completion)>;
  void ask_for(uint64_t bytes);
  double one_sided_us(size_t bytes, const Start& start);

  Transport& transport_;
  std::vector<std::byte> exposed_, local_;
  std::unique_ptr<MemoryRegion> region_;
  RemoteRegion remote_;
  bool introduced_ = false, ponged_ = false;
};

void print_row(const char* what, double ours, double bare, const char* unit);

}  // namespace krg::perf
