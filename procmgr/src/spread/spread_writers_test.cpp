// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_writers.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace krg {
namespace {

using namespace std::string_view_literals;

TEST(SpreadWriters, FencesAreSeen) {
  EXPECT_TRUE(has_fence("\x90\x0f\xae\xf0\xc3"sv));               // mfence
  EXPECT_TRUE(has_fence("\xf0\x48\x83\x0c\x24\x00\xc3"sv));       // lock orq $0, (%rsp)
  EXPECT_TRUE(has_fence("\xf0\x83\x0c\x24\x00"sv));               // lock orl $0, (%rsp)
  EXPECT_FALSE(has_fence("\xf0\x83\x04\x24\x01\x0f\xae\xe8"sv));  // lock addl $1; lfence
  EXPECT_FALSE(has_fence({}));
}

TEST(SpreadWriters, WordsOfAtomicInstructionsAreFound) {
  const RemoteAddr start{0x401000};
  // nop; lock cmpxchg %rcx, 0x100(%rip)
  EXPECT_EQ(atomic_words("\x90\xf0\x48\x0f\xb1\x0d\x00\x01\x00\x00"sv, start),
            std::vector<RemoteAddr>{{0x40110a}});
  // lock addl $1, -8(%rip)
  EXPECT_EQ(atomic_words("\xf0\x83\x05\xf8\xff\xff\xff\x01"sv, start),
            std::vector<RemoteAddr>{{0x401000}});
  // lock addl $0x100, 0(%rip)
  EXPECT_EQ(atomic_words("\xf0\x81\x05\x00\x00\x00\x00\x00\x01\x00\x00"sv, start),
            std::vector<RemoteAddr>{{0x40100b}});
  EXPECT_TRUE(atomic_words("\xf0\x01\x0b"sv, start).empty());      // lock add %ecx, (%rbx)
  EXPECT_TRUE(atomic_words("\xf0\x83\x05\xf8"sv, start).empty());  // cut off
}

TEST(SpreadWriters, LibrariesStacksAndSmallMappingsHaveOneWriter) {
  using Kind = ImageMapping::Kind;
  ProcessImage image;
  image.layout.start_brk = 0x600000;
  image.layout.brk = 0x680000;
  const auto add = [&](uint64_t start, uint64_t bytes, Kind kind, uint32_t file, uint32_t advice) {
    ImageMapping mapping;
    mapping.start = RemoteAddr{start};
    mapping.bytes = bytes;
    mapping.kind = kind;
    mapping.file = file;
    mapping.advice = advice;
    image.mappings.push_back(mapping);
  };
  add(0x400000, 0x2000, Kind::kFile, 0, 0);           // the program's variables
  add(0x402000, 0x1000, Kind::kAnonymous, 0, 0);      // .bss
  add(0x600000, 0x80000, Kind::kAnonymous, 0, 0);     // heap
  add(0x10000000, 0x400000, Kind::kAnonymous, 0, 0);  // a large block
  add(0x20000000, 0x1000, Kind::kFile, 1, 0);         // a library's
  add(0x20001000, 0x40000, Kind::kAnonymous, 0, 0);   // its .bss
  add(0x30000000, 0x3000, Kind::kAnonymous, 0, 0);    // small
  add(0x7ffff0000000, 0x200000, Kind::kAnonymous, 0, ImageMapping::kGrowsDown);
  std::vector<uint64_t> starts;
  for (const SpreadRange& range : one_writer_ranges(image)) starts.push_back(range.start.value);
  EXPECT_EQ(starts, (std::vector<uint64_t>{0x20000000, 0x20001000, 0x30000000, 0x7ffff0000000}));
  EXPECT_TRUE(has_one_writer(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE));
  EXPECT_TRUE(has_one_writer(8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_STACK));
  EXPECT_TRUE(has_one_writer(64 << 20, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE));
  EXPECT_FALSE(has_one_writer(8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE));
}

}  // namespace
}  // namespace krg
