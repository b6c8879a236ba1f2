// What programs do with their mappings of a page set, and what krgd does with its pages.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <thread>

#include "testing/page_programs.h"

namespace krg {
namespace {

constexpr size_t kWordsPerPage = kPageBytes / sizeof(uint64_t);

class PageSetMappingTest : public PagePrograms {
 protected:
  // Writes numbers into all pages from node 0: page p has p + 100 at its beginning.
  void fill(size_t pages) {
    start(0, [pages](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      for (uint64_t page = 0; page < pages; ++page) memory[page * kWordsPerPage] = page + 100;
      return 0;
    });
    expect_success();
  }
  std::string read_file(unsigned node, uint64_t offset, size_t bytes) {
    std::string got;
    bool done = false;
    sets_[node]->read(offset, bytes, [&](Result<std::string> result) {
      EXPECT_TRUE(result) << result.error().message();
      if (result) got = std::move(*result);
      done = true;
    });
    run_until([&] { return done; });
    return got;
  }
  void write_file(unsigned node, uint64_t offset, std::string_view bytes) {
    bool done = false;
    sets_[node]->write(offset, bytes, [&](Status result) {
      EXPECT_TRUE(result) << result.error().message();
      done = true;
    });
    run_until([&] { return done; });
  }
};

TEST_F(PageSetMappingTest, AProgramMayMapPagesTwiceAndReadOnly) {
  make(2, 8);
  fill(8);
  for (unsigned node = 0; node < 2; ++node)
    start(node, [](Program& self) {
      uint64_t* whole = self.map();
      uint64_t* part = self.map(4, 4);
      const auto* readable = static_cast<volatile uint64_t*>(self.map(6, 2, PROT_READ));
      if (!whole || !part || !readable) return 2;
      if (part[kWordsPerPage] != 105 || readable[0] != 106) return 3;
      for (int i = 0; i < 1'000; ++i) {
        std::atomic_ref(whole[6 * kWordsPerPage + 1]).fetch_add(1);
        std::atomic_ref(part[2 * kWordsPerPage + 1]).fetch_add(1);
        if (readable[1] < 2u * static_cast<unsigned>(i)) return 4;
      }
      return 0;
    });
  expect_success();
  uint64_t value;
  std::memcpy(&value, read_file(0, 6 * kPageBytes + 8, 8).data(), sizeof value);
  EXPECT_EQ(value, 4'000u);
}

TEST_F(PageSetMappingTest, MovedCutAndGrownMappingsAreFollowed) {
  make(2, 16);
  fill(16);
  start(1, [this](Program& self) {
    uint64_t* memory = self.map(0, 8);
    if (!memory || memory[kWordsPerPage] != 101) return 2;
    memory[2 * kWordsPerPage] = 1;
    // Elsewhere and longer; then a hole in the middle.
    void* target = mmap(nullptr, 64 * kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void* moved =
        mremap(memory, 8 * kPageBytes, 12 * kPageBytes, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    if (moved != target) return 3;
    memory = static_cast<uint64_t*>(moved);
    for (uint64_t page = 0; page < 12; ++page)
      if (memory[page * kWordsPerPage] != (page == 2 ? 1 : page + 100)) return 4;
    if (munmap(memory + 3 * kWordsPerPage, 2 * kPageBytes) != 0) return 5;
    memory[7 * kWordsPerPage] = 2;
    control_->words[0] = 1;
    control_->await(1, 1);
    if (memory[0] != 77 || memory[5 * kWordsPerPage] != 78) return 6;
    return 0;
  });
  run_until([&] { return control_->words[0] == 1; });
  EXPECT_EQ(sets_[1]->mapping_count(), 2u);
  uint64_t value = 77;
  write_file(0, 0, {reinterpret_cast<char*>(&value), sizeof value});
  value = 78;
  write_file(0, 5 * kPageBytes, {reinterpret_cast<char*>(&value), sizeof value});
  control_->words[1] = 1;
  expect_success();
  std::memcpy(&value, read_file(0, 7 * kPageBytes, 8).data(), sizeof value);
  EXPECT_EQ(value, 2u);
}

// One thread maps pages where another one has just unmapped others, which is told later.
TEST_F(PageSetMappingTest, AnAddressIsUsedAgainBeforeItsEndIsTold) {
  make(1, 32);
  const Child& child = start(0, [this](Program& self) {
    uint64_t* memory = self.map(0, 1) ? self.map_beside(8, 4) : nullptr;
    if (!memory) return 2;
    memory[0] = 8;
    control_->words[1] = reinterpret_cast<uint64_t>(memory);
    std::thread other([&] {
      control_->await(0, 1);
      munmap(memory, 4 * kPageBytes);
    });
    control_->await(0, 1);
    while (mmap(memory, 4 * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
                self.memory(), 16 * kPageBytes) == MAP_FAILED)
      sched_yield();
    control_->words[2] = 1;
    other.join();
    control_->words[3] = 1;
    control_->await(4, 1);
    const bool is_fresh = memory[0] == 0;
    memory[0] = 16;
    return is_fresh ? 0 : 3;
  });
  run_until([&] { return control_->words[1] != 0; });
  control_->words[0] = 1;
  control_->await(2, 1);
  Status attached =
      sets_[0]->attach_beside(child.pid, RemoteAddr{control_->words[1]}, PageIndex{16}, 4);
  EXPECT_TRUE(attached) << attached.error().message();
  run_until([&] { return control_->words[3] == 1; });
  EXPECT_EQ(sets_[0]->mapping_count(), 2u);
  control_->words[4] = 1;
  expect_success();
  EXPECT_EQ(read_file(0, 8 * kPageBytes, 1), "\x08");
  EXPECT_EQ(read_file(0, 16 * kPageBytes, 1), "\x10");
}

// Pages that are mapped together lie in mappings of which the kernel knows more than one.
TEST_F(PageSetMappingTest, PartsWithOtherRightsAreMappedToo) {
  make(2, 32);
  fill(32);
  for (unsigned node : {0u, 1u})
    start(node, [](Program& self) {
      uint64_t* memory = self.map();
      if (!memory || mprotect(memory + 5 * kWordsPerPage, kPageBytes, PROT_READ) != 0) return 2;
      if (mprotect(memory + 20 * kWordsPerPage, 4 * kPageBytes, PROT_READ) != 0) return 3;
      for (uint64_t page = 0; page < 32; ++page)
        if (memory[page * kWordsPerPage] != page + 100) return 4;
      std::atomic_ref(memory[4 * kWordsPerPage + 1]).fetch_add(1);
      std::atomic_ref(memory[6 * kWordsPerPage + 1]).fetch_add(1);
      return 0;
    });
  expect_success();
}

// In a child: reads a word again and again, wherever the mapping lies just then, until told to end.
// Touching what is not mapped gives SIGSEGV, as natively, and is tried again.
thread_local std::jmp_buf segv_return;
void read_moving(const std::atomic<uint64_t*>& memory, const std::atomic<bool>& ends,
                 std::atomic<uint64_t>& wrong) {
  for (std::atomic<uint64_t> turn = 0; !ends; ++turn) {
    if (setjmp(segv_return) != 0) continue;
    const uint64_t page = turn % 8;
    if (memory.load()[page * kWordsPerPage] != page + 100) ++wrong;
  }
}

TEST_F(PageSetMappingTest, NoTouchIsForgottenWhileMappingsMove) {
  make(2, 8);
  fill(8);
  start(1, [](Program& self) {
    struct sigaction action {};
    action.sa_handler = [](int) { std::longjmp(segv_return, 1); };
    action.sa_flags = SA_NODEFER;
    sigaction(SIGSEGV, &action, nullptr);
    uint64_t* first = self.map();
    if (!first) return 2;
    void* room = mmap(nullptr, 8 * kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    auto* second = static_cast<uint64_t*>(room);
    std::atomic<uint64_t*> memory = first;
    std::atomic<bool> ends = false;
    std::atomic<uint64_t> wrong = 0;
    std::vector<std::thread> readers;
    for (int i = 0; i < 3; ++i) readers.emplace_back([&] { read_moving(memory, ends, wrong); });
    for (int i = 0; i < 200; ++i) {
      memory = second;  // some are early there, some late here
      if (mremap(first, 8 * kPageBytes, 8 * kPageBytes, MREMAP_MAYMOVE | MREMAP_FIXED, second) !=
          second)
        return 3;
      std::swap(first, second);
      if (madvise(first, 8 * kPageBytes, MADV_DONTNEED) != 0) return 4;
      usleep(500);
    }
    ends = true;
    for (auto& reader : readers) reader.join();
    return wrong == 0 ? 0 : 5;
  });
  expect_success();
}

TEST_F(PageSetMappingTest, DroppingPagesLosesNothing) {
  make(2, 8);
  fill(8);
  for (unsigned node : {1u, 0u})
    start(node, [](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      memory[kWordsPerPage + 1] = 5;
      if (memory[2 * kWordsPerPage] != 102) return 3;
      for (int i = 0; i < 20; ++i) {
        if (madvise(memory, 8 * kPageBytes, MADV_DONTNEED) != 0) return 4;
        if (memory[kWordsPerPage + 1] != 5 || memory[2 * kWordsPerPage] != 102) return 5;
        std::atomic_ref(memory[3 * kWordsPerPage + 1]).fetch_add(1);
      }
      return 0;
    });
  expect_success();
  uint64_t value;
  std::memcpy(&value, read_file(0, 3 * kPageBytes + 8, 8).data(), sizeof value);
  EXPECT_EQ(value, 40u);
}

// What a program punches out of the memory reads as zeros here, and the pages go on being coherent.
TEST_F(PageSetMappingTest, APunchedPageIsOnePageAgain) {
  make(2, 4);
  fill(4);
  start(1, [](Program& self) {
    uint64_t* memory = self.map();
    if (!memory) return 2;
    if (memory[0] != 100) return 3;  // a copy
    memory[kWordsPerPage + 1] = 5;   // the only one
    if (madvise(memory, 2 * kPageBytes, MADV_REMOVE) != 0) return 4;
    if (memory[kWordsPerPage] != 0 || memory[kWordsPerPage + 1] != 0) return 5;
    memory[kWordsPerPage] = 6;
    memory[0] = 7;
    return 0;
  });
  expect_success();
  uint64_t values[2];
  std::memcpy(&values[0], read_file(0, 0, 8).data(), 8);
  std::memcpy(&values[1], read_file(0, kPageBytes, 8).data(), 8);
  EXPECT_EQ(values[0], 7u);
  EXPECT_EQ(values[1], 6u);
}

TEST_F(PageSetMappingTest, SystemCallsFindThePagesThatTheyUse) {
  if (user_mode_only_)
    GTEST_SKIP() << "lacks userfaultfd_kernel_faults: system calls cannot be served";
  make(2, 4);
  fill(4);
  start(1, [](Program& self) {
    auto* memory = reinterpret_cast<char*>(self.map());
    int ends[2];
    if (!memory || pipe(ends) != 0) return 2;
    if (write(ends[1], memory + kPageBytes - 8, 16) != 16) return 3;
    if (::read(ends[0], memory + 3 * kPageBytes - 8, 16) != 16) return 4;
    uint64_t value;
    std::memcpy(&value, memory + 3 * kPageBytes, sizeof value);
    return value == 101 ? 0 : 5;
  });
  expect_success();
}

TEST_F(PageSetMappingTest, EndsOfAddressSpacesAreNoticed) {
  make(1, 2);
  unsigned idle = 0;
  sets_[0]->on_idle([&] { ++idle; });
  start(0, [](Program& self) {
    uint64_t* memory = self.map();
    if (!memory) return 2;
    memory[0] = 1;
    execl("/bin/sh", "sh", "-c", "sleep 3", nullptr);
    return 3;
  });
  run_until([&] { return idle == 1; });
  EXPECT_EQ(sets_[0]->mapping_count(), 0u);
  EXPECT_FALSE(children_[0]->ended);
}

TEST_F(PageSetMappingTest, BytesAreReadAndWrittenAsOfAFile) {
  make(3, 300);
  std::string text;
  for (int i = 0; i < 90'000; ++i) text += std::to_string(i);
  write_file(0, 1'234, text);
  EXPECT_EQ(read_file(1, 1'234, text.size()), text);
  write_file(2, 5'000, "Hello");
  EXPECT_EQ(read_file(1, 4'999, 7), text.substr(3'765, 1) + "Hello" + text.substr(3'771, 1));
  EXPECT_EQ(read_file(1, 299 * kPageBytes, kPageBytes), std::string(kPageBytes, '\0'));
  int answer = 0;
  sets_[0]->read(299 * kPageBytes, kPageBytes + 1,
                 [&](auto result) { answer = result ? -1 : result.error().errno_or(-2); });
  EXPECT_EQ(answer, EINVAL);
  bool discarded = false;
  sets_[1]->discard(PageIndex{0}, 3, [&] { discarded = true; });
  run_until([&] { return discarded; });
  EXPECT_EQ(read_file(2, 0, 3 * kPageBytes), std::string(3 * kPageBytes, '\0'));
  EXPECT_EQ(read_file(2, 3 * kPageBytes, 9), text.substr(3 * kPageBytes - 1'234, 9));
}

TEST_F(PageSetMappingTest, SizesChangeUnderPrograms) {
  make(2, 4);
  fill(4);
  start(1, [this](Program& self) {
    uint64_t* memory = self.map();
    if (!memory) return 2;
    if (memory[3 * kWordsPerPage] != 103) return 3;
    control_->words[0] = 1;
    control_->await(1, 1);  // shrunk to 2, grown to 600
    if (memory[kWordsPerPage] != 101 || memory[3 * kWordsPerPage] != 0) return 4;
    uint64_t* more = self.map(4, 596);
    if (!more) return 5;
    more[595 * kWordsPerPage] = 9;
    return 0;
  });
  run_until([&] { return control_->words[0] == 1; });
  for (size_t pages : {2u, 600u})
    for (auto& set : sets_) ASSERT_TRUE(set->resize(pages));
  control_->words[1] = 1;
  expect_success();
  EXPECT_EQ(sets_[0]->pages(), 600u);
  EXPECT_EQ(read_file(0, 599 * kPageBytes, 1)[0], 9);
}

class FailingLinker : public IoLinker {
 public:
  void first_touch(ObjectId object, std::span<std::byte>,
                   std::function<void(Status)> done) override {
    done(object.value == 1 ? Status(errno_error("store", EIO)) : Status());
  }
};

class LostPagesTest : public PageSetMappingTest, public ::testing::WithParamInterface<bool> {};

TEST_P(LostPagesTest, WhoTouchesOneGetsSigbus) {
  make(2, 3, {.linker = std::make_shared<FailingLinker>(), .poison_lost_pages = GetParam()});
  for (unsigned node = 0; node < 2; ++node)
    start(node, [](Program& self) {
      uint64_t* memory = self.map();
      if (!memory) return 2;
      for (int again = 0; again < 2; ++again)
        if (!gives_sigbus(memory + kWordsPerPage)) return 3;
      return gives_sigbus(memory) || gives_sigbus(memory + 2 * kWordsPerPage) ? 4 : 0;
    });
  expect_success();
}

TEST_P(LostPagesTest, WhoDoesNotWantToHearOfItDies) {
  make(1, 3, {.linker = std::make_shared<FailingLinker>(), .poison_lost_pages = GetParam()});
  start(0, [](Program& self) {
    uint64_t* memory = self.map();
    signal(SIGBUS, SIG_IGN);
    if (memory) memory[kWordsPerPage] = 1;
    return 2;
  });
  run_to_end();
  EXPECT_TRUE(WIFSIGNALED(children_[0]->status));
}

INSTANTIATE_TEST_SUITE_P(Kernels, LostPagesTest, ::testing::Bool(), [](const auto& with) {
  return with.param ? "ThatPoisonPages" : "BeforeLinux66";
});

TEST_F(PageSetMappingTest, PagesBehindTheEndGiveSigbus) {
  make(1, 4);
  start(0, [this](Program& self) {
    uint64_t* memory = self.map();
    if (!memory) return 2;
    control_->words[0] = 1;
    control_->await(1, 1);
    return gives_sigbus(memory + 2 * kWordsPerPage) && !gives_sigbus(memory) ? 0 : 3;
  });
  run_until([&] { return control_->words[0] == 1; });
  ASSERT_TRUE(sets_[0]->resize(2));
  control_->words[1] = 1;
  expect_success();
}

TEST_F(PageSetMappingTest, AddressesAreLocated) {
  make(1, 8);
  auto& child = start(0, [this](Program& self) {
    uint64_t* memory = self.map(2, 4);
    if (!memory) return 2;
    control_->words[1] = reinterpret_cast<uint64_t>(memory);
    control_->words[2] = reinterpret_cast<uint64_t>(
        mmap(nullptr, 2 * kPageBytes, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    control_->words[0] = 1;
    control_->await(3, 1);
    return 0;
  });
  run_until([&] { return control_->words[0] == 1; });
  const RemoteAddr mapped{control_->words[1]};
  auto found = sets_[0]->locate(child.pid, mapped + 3 * kPageBytes + 20);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->page, PageIndex{5});
  EXPECT_EQ(found->offset, 20u);
  EXPECT_FALSE(sets_[0]->locate(child.pid, RemoteAddr{control_->words[2]}));
  EXPECT_FALSE(sets_[0]->locate(getpid(), mapped));
  control_->words[3] = 1;
  expect_success();
}

TEST_F(PageSetMappingTest, RefusesRangesOutsideOfTheSet) {
  make(1, 8);
  auto attach = [&](size_t first, size_t count) {
    UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, PageSet::userfaultfd_flags(true))));
    Status attached =
        sets_[0]->attach(std::move(fd), getpid(), RemoteAddr{1u << 20}, PageIndex{first}, count);
    return attached ? 0 : attached.error().errno_or(-1);
  };
  EXPECT_EQ(attach(0, 9), EINVAL);
  EXPECT_EQ(attach(9, 1), EINVAL);
  EXPECT_EQ(attach(0, 0), EINVAL);
  EXPECT_EQ(sets_[0]->mapping_count(), 0u);
}

}  // namespace
}  // namespace krg
