// Parts whose first pages are written while the program runs: what is read is its memory when it
// stood, and whoever is killed meanwhile leaves what was there before.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/live_part.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/consolidate.h"
#include "testing/made_programs.h"

namespace krg {
namespace {

// Its pages as they are before it stands, a range at a time.
class MadeLive : public LiveSource {
 public:
  explicit MadeLive(const MadeSnapshot& program) : program_(program), pages_(*program.pages()) {}
  std::vector<pid_t> members() const override { return {301, 302}; }
  uint64_t bytes() const override {
    uint64_t bytes = 0;
    for (const FamilySnapshot::Pages& pages : pages_) bytes += pages.range.bytes;
    return bytes;
  }
  std::vector<LivePages::Pages> next(uint64_t) override {
    if (next_ == pages_.size()) return {};
    const FamilySnapshot::Pages& pages = pages_[next_++];
    return {{pages.member, pages.range}};
  }
  void read(uint32_t member, std::span<const PageRange> ranges,
            std::span<std::byte> into) override {
    EXPECT_TRUE(program_.read(member, ranges, into));
  }

 private:
  const MadeSnapshot& program_;
  std::vector<FamilySnapshot::Pages> pages_;
  size_t next_ = 0;
};

class LiveParts : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "krg-live-part-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    options_.folder = folder_;
    options_.compress = GetParam();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // `every`: which pages are written between the two.
  Result<WrittenVersion> save(unsigned seed, unsigned every) {
    MadeSnapshot before(seed, kPages);
    now_ = before;
    now_.touch(every, seed + 1000);
    auto version = NewVersion::open(options_);
    if (!version) return version.error();
    PartOrder order = (*version)->order_for(0);
    MadeLive source(before);
    auto live = LivePart::write(source, order);
    if (!live) return live.error();
    order.live = *live;
    auto part = write_part(now_, order);
    if (!part) return part.error();
    auto written = (*version)->commit(now_.family(), {*part});
    if (!written) return written;
    if (auto tidied = (*version)->tidy(); !tidied) return tidied.error();
    return written;
  }
  CheckpointStore store() const { return std::move(*CheckpointStore::open(folder_, false)); }
  // Empty when the newest version is that program's memory.
  std::string fault_of(const MadeSnapshot& wanted) const {
    const CheckpointStore here = store();
    if (auto whole = here.verify(0); !whole) return whole.error().message();
    return krg::fault_of(here, 0, wanted);
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  static constexpr uint64_t kPages = 1500;
  std::string folder_;
  WriteOptions options_;
  MadeSnapshot now_{0};
};

INSTANTIATE_TEST_SUITE_P(Ways, LiveParts, ::testing::Bool(),
                         [](const auto& way) { return way.param ? "Compressed" : "AsTheyAre"; });

TEST_P(LiveParts, TheyHaveWhatWasWrittenSince) {
  for (const unsigned every : {2u, 7u, 400u, 100'000u}) {
    auto written = save(every, every);
    ASSERT_TRUE(written) << written.error().message();
    EXPECT_EQ(written->info.memory_bytes, (kPages + 4) * kPage);
    EXPECT_TRUE(written->info.needs.empty());
    EXPECT_EQ(fault_of(now_), "") << every;
  }
}

TEST_P(LiveParts, OneOfWhichNothingStayedIsNotUsed) {
  auto written = save(1, 1);
  ASSERT_TRUE(written) << written.error().message();
  EXPECT_EQ(written->info.page_bytes, (kPages + 4) * kPage);
  EXPECT_EQ(fault_of(now_), "");
  EXPECT_EQ(names(), (std::vector<std::string>{"v1.h5", "v1.n0.h5"}));
}

TEST_P(LiveParts, FurtherVersionsGoOnFromThem) {
  auto written = save(1, 9);
  ASSERT_TRUE(written) << written.error().message();
  for (unsigned seed = 5; seed < 8; ++seed) {
    options_.base = {written->info.version, written->info.id};
    now_.touch(seed, seed);
    written = write_version(now_, options_);
    ASSERT_TRUE(written) << written.error().message();
    EXPECT_EQ(fault_of(now_), "") << seed;
  }
  ASSERT_TRUE(consolidate(folder_, 0, {}));
  EXPECT_EQ(fault_of(now_), "");
}

TEST_P(LiveParts, TheyAreWrittenOverOldOnes) {
  options_.keep = 1;
  for (unsigned seed = 1; seed < 5; ++seed) {
    auto written = save(seed, 3 + seed);
    ASSERT_TRUE(written) << written.error().message();
    EXPECT_EQ(fault_of(now_), "") << seed;
  }
  EXPECT_EQ(names(), (std::vector<std::string>{"spare.n0.h5", "v4.h5", "v4.n0.h5"}));
}

TEST_P(LiveParts, TheirWriterMayBeKilledAtAnyStep) {
  ASSERT_TRUE(save(1, 4));
  MadeSnapshot last = now_;
  unsigned seed = 1;
  for (const std::string step :
       {"live", "live pages", "tables", "pages", "seal", "commit", "prune", "tidy", "end"}) {
    ++seed;
    const pid_t child = fork();
    if (child == 0) {
      options_.keep = 1;
      options_.on_step = [&](const std::string& now) {
        if (now == step) _exit(42);
      };
      static_cast<void>(save(seed, 4));
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_EQ(WEXITSTATUS(status), 42) << step;
    MadeSnapshot next(seed, kPages);
    next.touch(4, seed + 1000);
    if (step == "prune" || step == "tidy" || step == "end") last = next;
    EXPECT_EQ(fault_of(last), "") << step;
  }
  ASSERT_TRUE(save(99, 4));
  EXPECT_EQ(fault_of(now_), "");
  for (const std::string& name : names()) EXPECT_FALSE(name.ends_with(".tmp")) << name;
}

TEST_P(LiveParts, TheirWriterMayBeKilledAtAnyMoment) {
  ASSERT_TRUE(save(1, 4));
  MadeSnapshot last = now_;
  for (unsigned round = 0; round < 15; ++round) {
    MadeSnapshot next(round + 2, kPages);
    next.touch(4, round + 1002);
    const uint32_t before = store().info(0)->version;
    const pid_t child = fork();
    if (child == 0) {
      options_.keep = 1;
      static_cast<void>(save(round + 2, 4));
      _exit(0);
    }
    usleep(round * 2'500);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    if (store().info(0)->version != before) last = next;
    EXPECT_EQ(fault_of(last), "") << round;
  }
}

}  // namespace
}  // namespace krg
