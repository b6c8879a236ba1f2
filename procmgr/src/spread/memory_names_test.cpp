// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/memory_names.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "krg/shmem/page_set.h"

namespace krg {

// Variables of this program; names that its symbol table has.
extern "C" {
long krg_test_initialized[4] = {1, 2, 3, 4};
char krg_test_zeros[10 * kPageBytes];
}

namespace {

template <class T>
uint64_t address_of(const T* pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}

TEST(MemoryNames, StaticDataIsItsVariables) {
  MemoryNames names = MemoryNames::of_process(getpid());
  EXPECT_EQ(names.word_at(address_of(&krg_test_initialized[0])),
            "krg_test_initialized of memory_names_test");
  EXPECT_EQ(names.word_at(address_of(&krg_test_initialized[2])),
            "krg_test_initialized+16 of memory_names_test");
  EXPECT_EQ(names.region_at(address_of(&krg_test_initialized[2])),
            "krg_test_initialized of memory_names_test");
  EXPECT_EQ(names.region_at(address_of(krg_test_zeros + 5 * kPageBytes)),
            "krg_test_zeros of memory_names_test");
}

void some_function() {}

TEST(MemoryNames, FunctionsAreInTheirFile) {
  MemoryNames names = MemoryNames::of_process(getpid());
  const auto address = reinterpret_cast<uint64_t>(&some_function);
  EXPECT_NE(names.word_at(address).find("some_function"), std::string::npos);
  auto found = names.in_file(address);
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->path.ends_with("/memory_names_test")) << found->path;
  EXPECT_LT(found->address, address) << "the program's own address, not where it is mapped";
  EXPECT_FALSE(names.in_file(16));
}

TEST(MemoryNames, OtherMemoryIsItsMapping) {
  const int here = 0;
  MemoryNames names = MemoryNames::of_process(getpid());
  EXPECT_EQ(names.region_at(address_of(&here)), "[stack]");
  EXPECT_EQ(names.region_at(16), "memory that is unmapped");
}

TEST(MemoryNames, WhatIsAddedTakesTheOldNamesPlace) {
  MemoryNames names;
  names.add(RemoteAddr{0x1000}, 0x3000, "old");
  names.add(RemoteAddr{0x2000}, 0x1000, "new");
  EXPECT_EQ(names.region_at(0x1fff), "old");
  EXPECT_EQ(names.region_at(0x2000), "new");
  EXPECT_EQ(names.region_at(0x3000), "old");
  EXPECT_EQ(names.word_at(0x2010), "new at +0x10");
}

// What a program has told of its allocations.
TEST(MemoryNames, AllocatedMemoryIsCalledByWhereThatWas) {
  MemoryNames names = MemoryNames::of_process(getpid());
  const uint64_t start = uint64_t{1} << 46;
  const auto site = names.in_file(address_of(reinterpret_cast<const char*>(&some_function)));
  ASSERT_TRUE(site);
  names.add({.start = RemoteAddr{start + 16},
             .bytes = 2 * kPageBytes,
             .goes_on = false,
             .sites = {site->address + 1, 77}});
  names.add(
      {.start = RemoteAddr{start + 16}, .bytes = 2 * kPageBytes, .goes_on = true, .sites = {78}});
  EXPECT_EQ(names.sites_at(start + kPageBytes), (std::vector<uint64_t>{site->address + 1, 77, 78}));
  const std::string name = names.region_at(start);
  EXPECT_EQ(name.rfind("allocated in ", 0), 0u) << name;
  EXPECT_NE(name.find("some_function"), std::string::npos) << name;
  EXPECT_TRUE(name.ends_with(" of memory_names_test")) << name;
  EXPECT_EQ(names.word_at(start + 0x20), name + " at +0x20");
  // Unmapped or mapped anew.
  names.add(RemoteAddr{start}, kPageBytes, "a mapping");
  EXPECT_EQ(names.region_at(start), "a mapping");
  EXPECT_TRUE(names.sites_at(start).empty());
}

}  // namespace
}  // namespace krg
