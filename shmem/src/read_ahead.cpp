// SPDX-License-Identifier: GPL-2.0-or-later
#include "read_ahead.h"

#include <algorithm>
#include <cstdlib>

namespace krg {

ReadAhead::Plan ReadAhead::on_fault(uint32_t thread, uint64_t page_number, bool write,
                                    unsigned most) {
  const auto page = static_cast<int64_t>(page_number);
  ++faults_;
  if (most == 0) return {};
  if (Stream* stream = running(thread, page)) {
    stream->used = faults_;
    ++stream->run;
    return extend(*stream, page, write, most);
  }
  Stream* stream = beginning(thread, page);
  if (!stream) {
    fresh() = {.thread = thread, .last = page, .ahead = page, .used = faults_};
    return {};
  }
  stream->stride = page - stream->last;
  stream->run = 1;
  stream->last = stream->ahead = page;
  stream->used = faults_;
  stream->window = kFirstWindow;
  // Neighbours are a run at once; another stride has to be seen twice.
  return std::abs(stream->stride) == 1 ? extend(*stream, page, write, most) : Plan{};
}

int64_t ReadAhead::stride_at(uint64_t page) const {
  for (const Stream& stream : streams_)
    if (stream.last == static_cast<int64_t>(page) && stream.run > 1) return stream.stride;
  return 0;
}

// The stream that this fault goes on with: it lies some strides on, at the most one behind what was
// asked for, or is about the same page again (to write it).
ReadAhead::Stream* ReadAhead::running(uint32_t thread, int64_t page) {
  for (Stream& stream : streams_) {
    if (stream.thread != thread || stream.stride == 0) continue;
    const int64_t distance = page - stream.last;
    if (distance % stream.stride != 0) continue;
    const int64_t strides = distance / stream.stride;
    if (strides >= 0 && strides <= (stream.ahead - stream.last) / stream.stride + 1) return &stream;
  }
  return nullptr;
}

// A stream of one fault, or one that was taken for a run by mistake, near enough.
ReadAhead::Stream* ReadAhead::beginning(uint32_t thread, int64_t page) {
  for (Stream& stream : streams_)
    if (stream.thread == thread && stream.run <= 1 && page != stream.last &&
        std::abs(page - stream.last) <= kLongestStride)
      return &stream;
  return nullptr;
}

ReadAhead::Stream& ReadAhead::fresh() {
  if (streams_.size() < kStreams) return streams_.emplace_back();
  return *std::min_element(streams_.begin(), streams_.end(),
                           [](const Stream& a, const Stream& b) { return a.used < b.used; });
}

// Keeps a window's length ahead of the fault, and asks for more when half of it is used up.
ReadAhead::Plan ReadAhead::extend(Stream& stream, int64_t page, bool write, unsigned most) {
  const int64_t was_ahead = (stream.ahead - stream.last) / stream.stride;
  const int64_t advanced = (page - stream.last) / stream.stride;
  Plan plan{.stride = stream.stride};
  plan.passed = static_cast<unsigned>(std::min(was_ahead, advanced));
  stream.reads = write ? 0 : stream.reads + 1;
  const bool turned = write && !stream.writing;
  stream.writing = write || (stream.writing && stream.reads < kReadsOnly);
  plan.write = stream.writing;
  plan.is_dense = std::abs(stream.stride) == 1 && stream.run >= kDenseRun;
  // What was fetched ahead for reading counts for nothing when the run turns to writing.
  const int64_t still_ahead = turned ? 0 : std::max<int64_t>(0, was_ahead - advanced);
  stream.last = page;
  if (still_ahead == 0) stream.ahead = page;
  if (still_ahead > std::min(stream.window, most) / 2) return plan;
  if (stream.run > 1 && stream.window < most) stream.window *= 2;
  plan.first = stream.ahead + stream.stride;
  plan.count =
      static_cast<unsigned>(std::max<int64_t>(0, std::min(stream.window, most) - still_ahead));
  stream.ahead += plan.count * stream.stride;
  return plan;
}

}  // namespace krg
