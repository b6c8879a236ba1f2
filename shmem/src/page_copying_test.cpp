// Pages as they were at one moment, had while programs on several nodes write on.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

#include "krg/shmem/page_set.h"
#include "testing/page_programs.h"

namespace krg {
namespace {

constexpr size_t kWordsPerPage = kPageBytes / sizeof(uint64_t);

class PageCopyingTest : public PagePrograms {};

// Two nodes tell what they own; what is written, given away, discarded or cut off afterwards is had
// before that.
TEST_F(PageCopyingTest, PagesAreHadAsTheyWereWhileProgramsGoOn) {
  make(2, 450);
  const auto run = [this](unsigned node, const std::function<void(uint64_t*)>& work) {
    start(node, [this, node, work](Program& self) {
      uint64_t* memory = self.map(0, sets_[node]->pages());
      if (!memory) return 2;
      work(memory);
      return 0;
    });
    expect_success();
  };
  run(0, [](uint64_t* memory) {
    for (size_t page = 0; page < 400; ++page) memory[page * kWordsPerPage] = 1000 + page;
  });
  run(1, [](uint64_t* memory) {
    for (size_t page = 200; page < 300; ++page) memory[page * kWordsPerPage] += 1000;
    for (size_t page = 440; page < 450; ++page) memory[page * kWordsPerPage] = 1000 + page;
  });
  std::map<uint64_t, uint64_t> seen;
  int ended = 0;
  std::vector<std::vector<PageIndex>> owned;
  for (auto& set : sets_) {
    static_cast<void>(set->take_written());
    auto pages = set->owned();
    ASSERT_TRUE(pages) << pages.error().message();
    owned.push_back(*pages);
    set->use_before_change(
        std::move(*pages),
        [&](PageIndex page, std::span<const std::byte> bytes) {
          uint64_t word = 0;
          std::memcpy(&word, bytes.data(), sizeof word);
          EXPECT_TRUE(seen.emplace(page.value, word).second) << page.value;
        },
        [&](const Status& done) { ended += done ? 1 : 100; });
  }
  ASSERT_EQ(owned.size(), 2u);
  const size_t count = owned[0].size() + owned[1].size();
  EXPECT_GE(count, 410u) << "and what was fetched ahead";
  EXPECT_GE(owned[1].size(), 110u);
  sets_[0]->discard({100}, 3, [] {});
  for (auto& set : sets_) ASSERT_TRUE(set->resize(445));
  run(1, [](uint64_t* memory) {
    for (size_t page = 0; page < 445; ++page) memory[page * kWordsPerPage] = 7;
  });
  run(0, [](uint64_t* memory) {
    for (size_t page = 0; page < 445; ++page) memory[page * kWordsPerPage] += 7;
  });
  while (ended < 2) loop_->run_once(std::chrono::milliseconds(10));
  EXPECT_EQ(ended, 2);
  EXPECT_EQ(seen.size(), count);
  for (uint64_t page = 0; page < 450; ++page) {
    const bool is_written = page < 400 || page >= 440;
    const uint64_t word = 1000 + page + (page >= 200 && page < 300 ? 1000 : 0);
    EXPECT_EQ(seen[page], is_written ? word : 0) << page;
  }
}

}  // namespace
}  // namespace krg
