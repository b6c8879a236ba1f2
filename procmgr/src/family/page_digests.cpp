// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/page_digests.h"

#include <xxhash.h>

#include <algorithm>

#include "family/family_memory.h"

namespace krg {
namespace {

constexpr uint64_t kPage = 4096;

std::array<uint64_t, 2> digest_of(const std::byte* page) {
  const XXH128_hash_t digest = XXH3_128bits(page, kPage);
  return {digest.low64, digest.high64};
}

}  // namespace

std::vector<PageRange> PageDigests::take(const CopiedPages& pages, const PageDigests* before) {
  static const std::vector<Page> kNone;
  const std::vector<Page>& known = before ? before->pages_ : kNone;
  auto next = known.begin();
  std::vector<PageRange> marked;
  pages_.clear();
  for (size_t i = 0; i < pages.ranges.size(); ++i) {
    const PageRange& range = pages.ranges[i];
    bool is_first = true;
    for (uint64_t done = 0; done < range.bytes; done += kPage) {
      const uint64_t address = range.start.value + done;
      const Page& page =
          pages_.emplace_back(address, digest_of(pages.bytes.get() + pages.offsets[i] + done));
      next = std::lower_bound(next, known.end(), address,
                              [](const Page& one, uint64_t at) { return one.address < at; });
      const bool is_clean = next != known.end() && *next == page;
      if (std::exchange(is_first, false) || marked.back().is_clean != is_clean)
        marked.push_back({.start = {address}, .bytes = 0, .is_clean = is_clean});
      marked.back().bytes += kPage;
    }
  }
  return marked;
}

}  // namespace krg
