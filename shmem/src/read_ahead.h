// ReadAhead: recognises forward, backward and strided runs in the page faults of a program's
// threads, and says which pages to fetch before they fault. What is fetched ahead is mapped without
// a fault where it can be, so that the next fault of a run lies anywhere up to the first page that
// was not fetched yet. Pure: no I/O, no clock. Threads: any, one at a time.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace krg {

class ReadAhead {
 public:
  static constexpr size_t kStreams = 16;  // remembered at a time; the oldest is forgotten
  static constexpr int64_t kLongestStride = 64;
  static constexpr unsigned kFirstWindow = 4;
  static constexpr unsigned kDenseRun = 3;
  static constexpr unsigned kReadsOnly = 4;  // so many read faults in turn: not a run of writes

  // Pages first, first + stride, ...: `count` of them. Some lie before page 0 or behind the end.
  struct Plan {
    int64_t first = 0;
    int64_t stride = 0;  // 0: no run recognised
    unsigned count = 0;
    bool write = false;     // the run is one of writes
    bool is_dense = false;  // page after page, and has been for a while
    unsigned passed = 0;    // pages fetched ahead that the run has gone past since its last fault
  };

  // `most`: pages to be ahead of the fault, at the most. A run that writes what it has read, page
  // by page, is a run of writes.
  Plan on_fault(uint32_t thread, uint64_t page, bool write, unsigned most);
  // Of the run that the page belongs to; 0: none.
  int64_t stride_at(uint64_t page) const;

 private:
  struct Stream {
    uint32_t thread;
    int64_t last;        // page of its last fault
    int64_t stride = 0;  // 0: one fault so far
    unsigned run = 0;    // faults that kept the stride
    int64_t ahead = 0;   // the farthest page that was asked for
    bool writing = false;
    unsigned reads = 0;  // faults since the last one that was a write
    unsigned window = kFirstWindow;
    uint64_t used = 0;  // when, in faults
  };
  Stream* running(uint32_t thread, int64_t page);
  Stream* beginning(uint32_t thread, int64_t page);
  Stream& fresh();
  static Plan extend(Stream& stream, int64_t page, bool write, unsigned most);

  uint64_t faults_ = 0;
  std::vector<Stream> streams_;
};

}  // namespace krg
