// Files of checkpoints: what is written is read again; whatever is damaged, missing, foreign or
// interrupted is told in one sentence, and what was there before stays.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <list>
#include <map>
#include <mutex>
#include <random>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/consolidate.h"
#include "krg/checkpoint/sealed_file.h"
#include "krg/checkpoint/write_version.h"
#include "krg/runtime/unique_fd.h"
#include "testing/made_programs.h"

namespace krg {
namespace {

class CheckpointFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "krg-checkpoint-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  WriteOptions options() const {
    WriteOptions made;
    made.folder = folder_;
    return made;
  }
  Result<WrittenVersion> write(unsigned seed) const {
    return write_version(MadeSnapshot(seed), options());
  }
  CheckpointStore store() const {
    auto opened = CheckpointStore::open(folder_, false);
    EXPECT_TRUE(opened);
    return std::move(*opened);
  }
  // Empty when the version holds the memory of that seed.
  std::string fault_of(uint32_t version, unsigned seed) const {
    return fault_of(version, MadeSnapshot(seed));
  }
  std::string fault_of(uint32_t version, const MadeSnapshot& wanted) const {
    return krg::fault_of(store(), version, wanted);
  }
  std::string part(uint32_t version = 1) const { return store().part_path(version, 0); }
  std::string master(uint32_t version = 1) const { return store().master_path(version); }

  static void flip_bit(const std::string& path, uint64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<long>(at));
    const int byte = file.get();
    file.seekp(static_cast<long>(at));
    file.put(static_cast<char>(byte ^ 0x10));
  }

  // Saves and consolidates in processes that are killed meanwhile; the newest version is whole each
  // time.
  void kill_at_any_moment(MadeProgram& program, int rounds, unsigned seed) {
    ASSERT_TRUE(program.save());
    std::mt19937 random(seed);
    for (int round = 0; round < rounds; ++round) {
      program.go_on(3);
      const pid_t child = fork();
      if (child == 0) {
        program.options().keep = 1;
        static_cast<void>(program.save());
        static_cast<void>(consolidate(folder_, 0, {}));
        _exit(0);
      }
      usleep(random() % 60'000);
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
      const uint32_t newest = store().info(0)->version;
      const bool is_old = program.has(newest);
      EXPECT_EQ(fault_of(newest, is_old ? program.at(newest) : program.now()), "") << round;
      ASSERT_TRUE(program.save_all());
    }
  }

  std::string folder_;
};

TEST_F(CheckpointFiles, WhatIsWrittenIsRead) {
  auto written = write(1);
  ASSERT_TRUE(written) << written.error().message();
  EXPECT_EQ(written->info.version, 1u);
  EXPECT_EQ(written->info.page_bytes, 704 * kPage);
  EXPECT_EQ(fault_of(1, 1), "");
  EXPECT_NE(fault_of(1, 2), "");
  EXPECT_TRUE(store().verify(1));
  auto parts = store().open_parts(*store().info(1));
  ASSERT_TRUE(parts);
  const ProcessFamily& family = parts->front()->contents().family;
  EXPECT_EQ(family.serialize(), MadeSnapshot(1).family().serialize());
}

TEST_F(CheckpointFiles, VersionsCountUpAndTheNewestIsMeant) {
  ASSERT_TRUE(write(1));
  auto second = write(2);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->info.version, 2u);
  EXPECT_EQ(store().info(0)->version, 2u);
  EXPECT_EQ(fault_of(1, 1), "");
  EXPECT_EQ(fault_of(2, 2), "");
}

TEST_F(CheckpointFiles, PrunedVersionsAreWrittenOver) {
  ASSERT_TRUE(write(1));
  WriteOptions keeping = options();
  keeping.keep = 1;
  for (unsigned seed = 2; seed < 6; ++seed)
    ASSERT_TRUE(write_version(MadeSnapshot(seed, 100 * seed), keeping));
  EXPECT_EQ(*store().versions(), std::vector<uint32_t>{5});
  auto info = store().info(5);
  ASSERT_TRUE(info);
  EXPECT_TRUE(store().verify(5));
  EXPECT_EQ(info->page_bytes, 504 * kPage);
  EXPECT_FALSE(store().spare_path(0, 400 * kPage).empty());
  EXPECT_TRUE(store().spare_path(0, 40 * kPage).empty()) << "most of it would be cut off";
}

TEST_F(CheckpointFiles, CompressedPagesAreRead) {
  WriteOptions packed = options();
  packed.compress = true;
  auto written = write_version(MadeSnapshot(3), packed);
  ASSERT_TRUE(written);
  EXPECT_LT(written->stored_bytes, written->info.page_bytes * 3 / 4);
  EXPECT_EQ(fault_of(1, 3), "");
}

// ---- past the kernel's cache, or through it ----

TEST_F(CheckpointFiles, PagesOnADiskGoPastTheKernelsCache) {
  struct statfs found {};
  ASSERT_EQ(statfs(folder_.c_str(), &found), 0);
  if (found.f_type != EXT4_SUPER_MAGIC && found.f_type != XFS_SUPER_MAGIC)
    GTEST_SKIP() << folder_ << " is on no such disk";
  ASSERT_TRUE(write(1));
  const uint64_t at = check_seal(part())->bulk_offset, bytes = 704 * kPage;
  UniqueFd file(open(part().c_str(), O_RDONLY | O_CLOEXEC));
  void* mapped = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.get(), static_cast<off_t>(at));
  ASSERT_NE(mapped, MAP_FAILED);
  std::vector<unsigned char> is_there(bytes / kPage);
  ASSERT_EQ(mincore(mapped, bytes, is_there.data()), 0);
  munmap(mapped, bytes);
  EXPECT_EQ(std::count(is_there.begin(), is_there.end(), 0), 704);
  EXPECT_EQ(fault_of(1, 1), "");
}

TEST_F(CheckpointFiles, WhatIsNoDiskIsWrittenThroughIt) {
  std::string name = "/dev/shm/krg-checkpoint-XXXXXX";
  ASSERT_NE(mkdtemp(name.data()), nullptr);
  std::filesystem::remove_all(folder_);
  folder_ = name;
  MadeProgram program(options());
  for (const unsigned every : {7u, 3u}) {
    ASSERT_TRUE(program.save());
    program.go_on(every);
  }
  for (uint32_t version = 1; version <= 2; ++version)
    EXPECT_EQ(fault_of(version, program.at(version)), "") << version;
}

// Contents that lie in memory already, at addresses that no disk takes.
class OddlyPlacedSnapshot : public MadeSnapshot {
 public:
  using MadeSnapshot::MadeSnapshot;
  const std::byte* find_all(uint32_t member, std::span<const PageRange> ranges) const override {
    uint64_t bytes = 0;
    for (const PageRange& range : ranges) bytes += range.bytes;
    std::lock_guard lock(mutex_);
    auto& room = rooms_.emplace_back(bytes + 1);
    return read(member, ranges, std::span(room).subspan(1)) ? room.data() + 1 : nullptr;
  }

 private:
  mutable std::mutex mutex_;
  mutable std::list<std::vector<std::byte>> rooms_;
};

TEST_F(CheckpointFiles, PagesAreWrittenFromWhereverTheyLie) {
  ASSERT_TRUE(write_version(OddlyPlacedSnapshot(6), options()));
  EXPECT_EQ(fault_of(1, 6), "");
}

TEST_F(CheckpointFiles, Hdf5ReadsThemByTheirLinks) {
  ASSERT_TRUE(write(4));
  const hid_t file = H5Fopen(master().c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const hid_t pages = H5Dopen2(file, "parts/n0/pages", H5P_DEFAULT);
  ASSERT_GE(pages, 0);
  const hid_t space = H5Dget_space(pages);
  hsize_t shape[2];
  ASSERT_EQ(H5Sget_simple_extent_dims(space, shape, nullptr), 2);
  EXPECT_EQ(shape[0], 704u);
  EXPECT_EQ(shape[1], kPage);
  std::vector<std::byte> all(shape[0] * shape[1]), first(kPage);
  ASSERT_GE(H5Dread(pages, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, all.data()), 0);
  MadeSnapshot(4).fill(0, 0x10000, first);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), all.begin()));
  H5Sclose(space);
  H5Dclose(pages);
  H5Fclose(file);
}

TEST_F(CheckpointFiles, CutOffFilesAreRefused) {
  for (const bool cut_master : {false, true}) {
    ASSERT_TRUE(write(1));
    const uint32_t version = *store().versions()->rbegin();
    const std::string path = cut_master ? master(version) : part(version);
    const auto size = std::filesystem::file_size(path);
    for (const uint64_t left : {size - 1, size / 2, uint64_t{5000}, uint64_t{100}, uint64_t{0}}) {
      std::filesystem::resize_file(path, left);
      const std::string fault = fault_of(version, 1);
      EXPECT_NE(fault.find(path), std::string::npos) << left << ": " << fault;
    }
  }
}

// Every byte that means something: a flipped bit is found, whichever it is.
TEST_F(CheckpointFiles, FlippedBitsAreFound) {
  ASSERT_TRUE(write(1));
  std::mt19937_64 random(20240607);
  for (const std::string& path : {part(), master()}) {
    auto seal = check_seal(path);
    ASSERT_TRUE(seal);
    const std::string text = [&] {
      std::ifstream file(path, std::ios::binary);
      std::string first(kSealBytes, '\0');
      file.read(first.data(), kSealBytes);
      return first.substr(0, first.find('\0'));
    }();
    std::vector<uint64_t> places;
    for (uint64_t at = 0; at < text.size(); ++at) places.push_back(at);
    for (int i = 0; i < 200; ++i)
      places.push_back(kSealBytes + random() % (seal->file_bytes - kSealBytes));
    for (const uint64_t at : places) {
      flip_bit(path, at);
      EXPECT_NE(fault_of(1, 1), "") << path << " at " << at;
      flip_bit(path, at);
    }
  }
  EXPECT_EQ(fault_of(1, 1), "");
}

TEST_F(CheckpointFiles, ForeignAndNewerFilesAreTold) {
  ASSERT_TRUE(write(1));
  std::ofstream(master(), std::ios::binary) << "\x89HDF\r\n\x1a\n and more";
  EXPECT_NE(fault_of(1, 1).find("no checkpoint file"), std::string::npos) << fault_of(1, 1);
  ASSERT_TRUE(write(1));
  std::fstream file(part(2), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<long>(std::strlen("krg-checkpoint\nformat ")));
  file << "9";
  file.close();
  EXPECT_NE(fault_of(2, 1).find("newer version"), std::string::npos) << fault_of(2, 1);
}

TEST_F(CheckpointFiles, MissingAndExchangedPartsAreTold) {
  ASSERT_TRUE(write(1));
  ASSERT_TRUE(write(2));
  std::filesystem::rename(part(1), folder_ + "/kept");
  EXPECT_NE(fault_of(1, 1).find("No such file"), std::string::npos) << fault_of(1, 1);
  std::filesystem::copy_file(part(2), part(1));
  EXPECT_NE(fault_of(1, 1).find("another checkpoint"), std::string::npos) << fault_of(1, 1);
  EXPECT_NE(fault_of(7, 1).find("no version 7"), std::string::npos);
}

TEST_F(CheckpointFiles, OneWriterAtATime) {
  CheckpointStore first = store();
  ASSERT_TRUE(first.lock());
  auto second = write(1);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().errno_or(0), EBUSY);
}

// Killed before each step: what was complete before stays the newest, or the new version is whole.
TEST_F(CheckpointFiles, AWriterMayBeKilledAtAnyStep) {
  ASSERT_TRUE(write(1));
  const std::vector<std::string> steps = {"tables", "pages", "seal", "commit",
                                          "prune",  "tidy",  "end"};
  for (const std::string& step : steps) {
    const uint32_t before = store().info(0)->version;
    const pid_t child = fork();
    if (child == 0) {
      WriteOptions dying = options();
      dying.keep = 2;
      dying.on_step = [&](const std::string& now) {
        if (now == step) _exit(42);
      };
      static_cast<void>(write_version(MadeSnapshot(before + 1), dying));
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_EQ(WEXITSTATUS(status), 42) << step;
    const uint32_t newest = store().info(0)->version;
    const bool is_committed = step == "prune" || step == "tidy" || step == "end";
    EXPECT_EQ(newest, is_committed ? before + 1 : before) << step;
    EXPECT_EQ(fault_of(newest, newest), "") << step;
  }
  // Nothing of the interrupted ones is left when the next one is written.
  auto next = write(store().info(0)->version + 1);
  ASSERT_TRUE(next);
  EXPECT_EQ(fault_of(0, next->info.version), "");
}

// Killed at any moment, also in the middle of a step.
TEST_F(CheckpointFiles, AWriterMayBeKilledAtAnyMoment) {
  ASSERT_TRUE(write(1));
  std::mt19937 random(7);
  for (int round = 0; round < 25; ++round) {
    const uint32_t before = store().info(0)->version;
    const pid_t child = fork();
    if (child == 0) {
      WriteOptions keeping = options();
      keeping.keep = 2;
      static_cast<void>(write_version(MadeSnapshot(before + 1), keeping));
      _exit(0);
    }
    usleep(random() % 40'000);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const uint32_t newest = store().info(0)->version;
    EXPECT_TRUE(newest == before || newest == before + 1);
    EXPECT_EQ(fault_of(newest, newest), "") << "round " << round;
  }
}

// ---- increments ----

TEST_F(CheckpointFiles, AFurtherVersionHasWhatWasWrittenSince) {
  MadeProgram program(options());
  ASSERT_TRUE(program.save());
  uint64_t total = 0;
  for (const unsigned every : {7u, 3u, 100u, 1u, 5u}) {
    program.go_on(every);
    auto written = program.save();
    ASSERT_TRUE(written) << written.error().message();
    EXPECT_LE(written->info.page_bytes, (704 / every + 3) * kPage);
    EXPECT_EQ(written->info.memory_bytes, 704 * kPage);
    total += written->info.page_bytes;
  }
  EXPECT_GT(total, 704 * kPage);
  for (uint32_t version = 1; version <= 6; ++version) {
    EXPECT_EQ(fault_of(version, program.at(version)), "") << version;
    EXPECT_TRUE(store().verify(version));
  }
  EXPECT_EQ(store().info(5)->needs, std::vector<uint32_t>{}) << "all of it was written";
  EXPECT_EQ(store().info(4)->needs, (std::vector<uint32_t>{1, 2, 3}));
}

TEST_F(CheckpointFiles, PrunedVersionsLeaveWhatNewerOnesNeed) {
  MadeProgram program(options());
  program.options().keep = 1;
  for (const unsigned every : {2u, 2u, 50u, 50u}) {
    ASSERT_TRUE(program.save());
    program.go_on(every);
  }
  auto last = program.save();
  ASSERT_TRUE(last);
  EXPECT_EQ(*store().versions(), std::vector<uint32_t>{5});
  EXPECT_EQ(fault_of(5, program.now()), "");
  EXPECT_FALSE(std::filesystem::exists(part(2))) << "all of its pages are in version 3, too";
  EXPECT_TRUE(std::filesystem::exists(part(1)));
}

TEST_F(CheckpointFiles, AVersionWithoutWhatItNeedsIsTold) {
  MadeProgram program(options());
  ASSERT_TRUE(program.save());
  program.go_on(9);
  ASSERT_TRUE(program.save());
  std::filesystem::rename(part(1), folder_ + "/kept");
  EXPECT_NE(fault_of(2, program.now()).find("No such file"), std::string::npos);
  // As large, by the same number, but another one's.
  std::filesystem::rename(folder_ + "/kept", part(1));
  flip_bit(part(1), check_seal(part(1))->bulk_offset + 5000);
  EXPECT_NE(fault_of(2, program.now()).find("damaged"), std::string::npos);
  std::filesystem::create_directory(folder_ + "/other");
  WriteOptions elsewhere = options();
  elsewhere.folder = folder_ + "/other";
  ASSERT_TRUE(write_version(MadeSnapshot(1), elsewhere));
  std::filesystem::copy_file(folder_ + "/other/v1.n0.h5", part(1),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_NE(fault_of(2, program.now()).find("another checkpoint"), std::string::npos);
  // Nothing goes on from a version that is not what it was.
  std::filesystem::copy_file(folder_ + "/other/v1.h5", master(2),
                             std::filesystem::copy_options::overwrite_existing);
  program.go_on(9);
  auto refused = program.save();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().errno_or(0), ESTALE);
}

TEST_F(CheckpointFiles, AConsolidatedVersionNeedsNoOther) {
  for (const bool compress : {false, true}) {
    MadeProgram program(options());
    program.options().compress = compress;
    ASSERT_TRUE(program.save());
    const uint32_t first = store().info(0)->version;
    for (int i = 0; i < 4; ++i) {
      program.go_on(6);
      ASSERT_TRUE(program.save());
    }
    const auto shortened = consolidate(folder_, first + 3, {.compress = compress});
    ASSERT_TRUE(shortened) << shortened.error().message();
    EXPECT_TRUE(store().info(first + 3)->needs.empty());
    EXPECT_EQ(store().info(first + 3)->page_bytes, 704 * kPage);
    for (uint32_t version = first; version <= first + 4; ++version)
      EXPECT_EQ(fault_of(version, program.at(version)), "") << version;
    // The next version goes on from the last as if nothing had been.
    ASSERT_TRUE(consolidate(folder_, 0, {}));
    program.options().keep = 1;
    program.go_on(10);
    ASSERT_TRUE(program.save());
    EXPECT_EQ(fault_of(0, program.now()), "");
    EXPECT_EQ(store().info(0)->needs, std::vector<uint32_t>{first + 4});
  }
}

TEST_F(CheckpointFiles, AStoppedConsolidationLeavesAllAsItWas) {
  MadeProgram program(options());
  ASSERT_TRUE(program.save());
  program.go_on(6);
  ASSERT_TRUE(program.save());
  ConsolidateOptions stopped;
  stopped.is_stopped = [] { return true; };
  auto done = consolidate(folder_, 2, stopped);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().errno_or(0), ECANCELED);
  EXPECT_EQ(store().info(2)->needs, std::vector<uint32_t>{1});
  EXPECT_EQ(fault_of(2, program.now()), "");
  EXPECT_FALSE(std::filesystem::exists(part(2) + ".tmp"));
}

TEST_F(CheckpointFiles, IncrementsAndConsolidationsMayBeKilledAtAnyStep) {
  MadeProgram program(options());
  ASSERT_TRUE(program.save());
  for (const std::string step :
       {"tables", "pages", "seal", "commit", "prune", "tidy", "end", "merge", "merge pages",
        "merge seal", "merge replace", "merge end"}) {
    program.go_on(4);
    const uint32_t before = store().info(0)->version;
    const auto die = [&](const std::string& now) {
      if (now == step) _exit(42);
    };
    const pid_t child = fork();
    if (child == 0) {
      program.options().on_step = die;
      program.options().keep = 1;
      static_cast<void>(program.save());
      ConsolidateOptions dying;
      dying.on_step = die;
      static_cast<void>(consolidate(folder_, 0, dying));
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_EQ(WEXITSTATUS(status), 42) << step;
    const uint32_t newest = store().info(0)->version;
    if (newest == before) {
      EXPECT_EQ(fault_of(before, program.at(before)), "") << step;
    } else {
      EXPECT_EQ(fault_of(newest, program.now()), "") << step;
    }
    ASSERT_TRUE(store().verify(newest)) << step;
    // What the child knew of its version died with it: the next one has all pages.
    ASSERT_TRUE(program.save_all()) << step;
    EXPECT_EQ(fault_of(0, program.now()), "") << step;
  }
}

TEST_F(CheckpointFiles, IncrementsAndConsolidationsMayBeKilledAtAnyMoment) {
  MadeProgram program(options());
  kill_at_any_moment(program, 20, 11);
}

// ---- several nodes ----

TEST_F(CheckpointFiles, PartsOfTwoNodesAreOneVersion) {
  MadeProgram program(options(), true);
  for (const unsigned every : {7u, 3u, 2u, 5u}) {
    ASSERT_TRUE(program.save());
    program.go_on(every);
  }
  ASSERT_TRUE(program.save());
  EXPECT_EQ(store().info(0)->nodes, (std::vector<uint32_t>{0, 1}));
  for (uint32_t version = 1; version <= 5; ++version)
    EXPECT_EQ(fault_of(version, program.at(version)), "") << version;
  const auto info = store().info(5);
  auto family = merged_family(*info, *store().open_parts(*info));
  ASSERT_TRUE(family);
  EXPECT_EQ(family->members[0].image + family->members[1].image, "firstsecond");
  EXPECT_EQ(family->pipes[0].contents, "in flight");
  ASSERT_TRUE(consolidate(folder_, 4, {}));
  EXPECT_TRUE(store().info(4)->needs.empty());
  CheckpointStore pruning = store();
  ASSERT_TRUE(pruning.lock());
  ASSERT_TRUE(pruning.prune(2));
  EXPECT_EQ(fault_of(4, program.at(4)), "");
  EXPECT_EQ(fault_of(5, program.at(5)), "");
}

TEST_F(CheckpointFiles, APartOfAnotherNodeThatIsMissingIsTold) {
  MadeProgram program(options(), true);
  ASSERT_TRUE(program.save());
  std::filesystem::rename(store().part_path(1, 1), folder_ + "/aside");
  EXPECT_NE(fault_of(1, program.now()).find("v1.n1.h5"), std::string::npos);
  // The other node's, by its name.
  std::filesystem::copy_file(store().part_path(1, 0), store().part_path(1, 1));
  EXPECT_NE(fault_of(1, program.now()).find("another checkpoint"), std::string::npos);
}

TEST_F(CheckpointFiles, AVersionOfTwoNodesMayBeKilledAtAnyMoment) {
  MadeProgram program(options(), true);
  kill_at_any_moment(program, 15, 13);
}

// One node's disk is full: nothing is left of what the others wrote.
TEST_F(CheckpointFiles, APartThatFailsLeavesNothingOfItsVersion) {
  {
    auto version = NewVersion::open(options());
    ASSERT_TRUE(version);
    const MadeSnapshot all(1);
    ASSERT_TRUE(write_part(NodesPages(all, 0), (*version)->order_for(0)));
    EXPECT_TRUE(std::filesystem::exists(store().part_path(1, 0)));
  }
  EXPECT_FALSE(std::filesystem::exists(store().part_path(1, 0)));
}

// As on a full disk: a file may not grow any more.
TEST_F(CheckpointFiles, AFullDiskLeavesWhatWasThere) {
  ASSERT_TRUE(write(1));
  for (const rlim_t most : {rlim_t{6000}, rlim_t{100'000}, rlim_t{2'000'000}}) {
    const pid_t child = fork();
    if (child == 0) {
      signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{most, most};
      setrlimit(RLIMIT_FSIZE, &limit);
      auto failed = write(2);
      _exit(!failed && !failed.error().message().empty() ? 42 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 42) << most;
    EXPECT_EQ(fault_of(0, 1), "");
    EXPECT_EQ(*store().versions(), std::vector<uint32_t>{1});
    EXPECT_FALSE(std::filesystem::exists(part(2)));
  }
}

}  // namespace
}  // namespace krg
