// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/moved_process.h"

#include <numeric>

#include "packed_bytes.h"

namespace krg {

namespace {

void put_ranges(PackedWriter& out, const std::vector<PageRange>& ranges) {
  out.put(static_cast<uint32_t>(ranges.size()));
  for (const PageRange& range : ranges) out.put(range);
}

std::vector<PageRange> get_ranges(PackedReader& in) {
  std::vector<PageRange> ranges;
  const auto count = in.get<uint32_t>();
  for (uint32_t i = 0; i < count && in.ok(); ++i) ranges.push_back(in.get<PageRange>());
  return ranges;
}

}  // namespace

uint64_t total_bytes(const std::vector<PageRange>& pages) {
  return std::accumulate(pages.begin(), pages.end(), uint64_t{0},
                         [](uint64_t sum, const PageRange& range) { return sum + range.bytes; });
}

std::string MovedProcess::serialize() const {
  PackedWriter out;
  out.put_string(image.serialize()).put(move).put(is_supplied);
  put_ranges(out, pages);
  put_ranges(out, late_pages);
  out.put_string(contents);
  return out.take();
}

Result<MovedProcess> MovedProcess::parse(std::string_view bytes) {
  PackedReader in(bytes);
  auto image = ProcessImage::parse(in.get_string());
  if (!image) return image.error();
  MovedProcess moved;
  moved.image = std::move(*image);
  moved.move = in.get<uint64_t>();
  moved.is_supplied = in.get<uint8_t>();
  moved.pages = get_ranges(in);
  moved.late_pages = get_ranges(in);
  moved.contents = in.get_string();
  const bool fits = moved.contents.size() == total_bytes(moved.pages);
  if (!in.ok() || !in.at_end() || !fits) return errno_error("moved process", EBADMSG);
  return moved;
}

}  // namespace krg
