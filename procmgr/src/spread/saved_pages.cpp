// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/saved_pages.h"

#include <algorithm>
#include <utility>

#include "krg/shmem/page_set.h"
#include "packed_bytes.h"
#include "spread/spread_messages.h"

namespace krg {
namespace {

void append(std::vector<SpreadRange>& ranges, const SpreadRange& whole, uint64_t offset) {
  SpreadRange page = whole;
  page.start = whole.start + offset;
  page.first = PageIndex{whole.first.value + offset / kPageBytes};
  page.bytes = kPageBytes;
  if (!ranges.empty() && offset > 0 && ranges.back().end() == page.start)
    ranges.back().bytes += kPageBytes;
  else
    ranges.push_back(page);
}

}  // namespace

void PageMarks::add(PageIndex page) {
  if (marks_.size() <= page.value) marks_.resize(std::max(page.value + 1, 2 * marks_.size()));
  marks_[page.value] = true;
}

void PageMarks::add(const std::vector<bool>& pages) {
  if (marks_.size() < pages.size()) marks_.resize(pages.size());
  std::transform(pages.begin(), pages.end(), marks_.begin(), marks_.begin(),
                 [](bool a, bool b) { return a || b; });
}

std::string PageMarks::pack(const std::optional<std::vector<bool>>& written) {
  PackedWriter out;
  out.put(static_cast<uint8_t>(written.has_value()));
  const std::vector<bool> pages = written.value_or(std::vector<bool>());
  for (uint64_t first = 0; first < pages.size(); ++first) {
    PageNumbers run{first, 0};
    while (first < pages.size() && pages[first]) ++first;
    run.count = first - run.first;
    if (run.count > 0) out.put(run);
  }
  return out.take();
}

bool PageMarks::add_packed(std::string_view written) {
  PackedReader in(written);
  const bool is_known = in.get<uint8_t>() != 0;
  while (in.ok() && !in.at_end()) {
    const auto run = in.get<PageNumbers>();
    if (!in.ok()) break;
    for (uint64_t i = 0; i < run.count; ++i) add(PageIndex{run.first + i});
  }
  return is_known && in.ok();
}

void SavedPages::replace(uint64_t capture, std::vector<SpreadRange> ranges,
                         PageMarks with_content) {
  capture_ = capture;
  ranges_ = std::move(ranges);
  content_ = std::move(with_content);
}

SavedPages::Plan SavedPages::plan(const std::vector<SpreadRange>& now,
                                  const PageMarks& written) const {
  Plan plan;
  for (const SpreadRange& range : now) {
    auto before =
        std::upper_bound(ranges_.begin(), ranges_.end(), range.start,
                         [](RemoteAddr at, const SpreadRange& r) { return at < r.end(); });
    for (uint64_t offset = 0; offset < range.bytes; offset += kPageBytes) {
      const RemoteAddr at = range.start + offset;
      const PageIndex page{range.first.value + offset / kPageBytes};
      while (before != ranges_.end() && before->end() <= at) ++before;
      const bool was_there =
          before != ranges_.end() && before->start <= at &&
          before->first.value + (at.value - before->start.value) / kPageBytes == page.value;
      if (!was_there || written.has(page))
        append(plan.changed, range, offset);
      else if (content_.has(page))
        append(plan.same, range, offset);
    }
  }
  return plan;
}

}  // namespace krg
