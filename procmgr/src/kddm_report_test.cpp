// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/kddm_report.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <iterator>
#include <sstream>

#include "kddm_texts.h"
#include "loopback_nodes.h"

namespace krg {
namespace {

constexpr SetId kSet{0x1234};
constexpr unsigned kNodes = 3;

class KddmReportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (uint16_t i = 0; i < kNodes; ++i) {
      kddms_.push_back(std::make_unique<Kddm>(nodes_[i].messenger));
      reports_.push_back(std::make_unique<KddmReport>(nodes_[i], *kddms_.back()));
      ASSERT_TRUE(kddms_.back()->open_set(kSet, {.object_bytes = 64}));
    }
    for (uint64_t o = 0; o < 5; ++o) use(1, ObjectId{o}, true);
    use(2, ObjectId{0}, false);
    kddms_[1]->set_memory_limit(1 << 20);
  }
  void use(unsigned node, ObjectId object, bool write) {
    bool done = false;
    auto granted = [&](auto bytes) {
      EXPECT_TRUE(bytes);
      kddms_[node]->put(kSet, object);
      done = true;
    };
    if (write) {
      kddms_[node]->grab(kSet, object, Kddm::Touch::kFirstTouch, granted);
    } else {
      kddms_[node]->get(kSet, object, Kddm::Touch::kFirstTouch, granted);
    }
    ASSERT_TRUE(nodes_.run_until([&] { return done; }));
  }
  std::string text(unsigned node, const std::string& path) {
    Result<std::string> text = errno_error("", EINPROGRESS);
    reports_[node]->text(path, [&](Result<std::string> made) { text = std::move(made); });
    EXPECT_TRUE(nodes_.run_until([&] { return text.has_value(); }));
    return text ? *text : "";
  }
  // The lines of a text as words.
  static std::vector<std::vector<std::string>> table(const std::string& text) {
    std::vector<std::vector<std::string>> lines;
    std::istringstream all(text);
    for (std::string line; std::getline(all, line);) {
      std::istringstream words(line);
      lines.emplace_back(std::istream_iterator<std::string>(words),
                         std::istream_iterator<std::string>());
    }
    return lines;
  }

  LoopbackNodes nodes_{kNodes};
  std::vector<std::unique_ptr<Kddm>> kddms_;
  std::vector<std::unique_ptr<KddmReport>> reports_;
};

TEST_F(KddmReportTest, TheFolderHasTheTextsOfTheClusterAndOfEachSet) {
  const KddmReport& folder = *reports_[0];
  const std::string set = kddm_set_name(kSet);
  EXPECT_EQ(set, "0000000000001234");
  std::vector<std::string> names;
  for (const FsDirEntry& entry : folder.list("")) names.push_back(entry.name);
  EXPECT_EQ(names, (std::vector<std::string>{"meminfo", "setstat", set}));
  EXPECT_EQ(folder.list(set).size(), 3u);
  EXPECT_EQ(folder.type(""), S_IFDIR);
  EXPECT_EQ(folder.type("meminfo"), S_IFREG);
  EXPECT_EQ(folder.type(set), S_IFDIR);
  for (const char* file : {"/objectstates", "/setstat", "/setinfo"})
    EXPECT_EQ(folder.type(set + file), S_IFREG);
  for (const char* wrong : {"x", "1234", "0000000000001235", "0000000000001235/setinfo"})
    EXPECT_FALSE(folder.type(wrong));
  EXPECT_FALSE(folder.type(set + "/x"));
}

TEST_F(KddmReportTest, CountsAreSummedOverTheNodes) {
  const auto all = table(text(2, "setstat"));
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0][1], "objects");
  EXPECT_EQ(all[1][0], kddm_set_name(kSet));
  EXPECT_EQ(all[1][1], "6") << "five, and a copy";
  EXPECT_EQ(all[1][2], "5");
  const auto one = table(text(2, kddm_set_name(kSet) + "/setstat"));
  ASSERT_EQ(one.size(), 2 + kNodes);
  EXPECT_EQ(one[2][2], "5") << "node 1 owns them";
  EXPECT_EQ(one[3][1], "1");
  EXPECT_EQ(one[4][0], "sum");
}

TEST_F(KddmReportTest, MemoryAndStatesAreShownPerNode) {
  const auto memory = table(text(0, "meminfo"));
  ASSERT_EQ(memory.size(), 2 + kNodes);
  EXPECT_EQ(memory[2], (std::vector<std::string>{"1", "1", "5", "0", "1024"}));
  EXPECT_EQ(memory[4][2], "6");
  const std::string states = text(0, kddm_set_name(kSet) + "/objectstates");
  bool read_owner = false;
  for (const auto& line : table(states))
    if (line[0] == "READ_OWNER") {
      read_owner = true;
      EXPECT_EQ(line, (std::vector<std::string>{"READ_OWNER", "0", "1", "0"}));
    }
  EXPECT_TRUE(read_owner) << states;
  EXPECT_EQ(text(1, kddm_set_name(kSet) + "/setinfo"),
            "set: 0000000000001234\nobject_bytes: 64\nobjects_per_manager: 1\nhome: none\n"
            "nodes: 0 1 2\n");
}

TEST_F(KddmReportTest, ADeadNodeIsLeftOut) {
  nodes_.fabric().kill(NodeId{2}, LoopbackFabric::Death::kNoticed);
  nodes_.run_for(std::chrono::milliseconds(5));
  EXPECT_EQ(table(text(0, "meminfo")).size(), 2 + kNodes - 1);
}

}  // namespace
}  // namespace krg
