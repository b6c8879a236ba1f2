// Programs that there are not, with memory that a seed says, for tests of the files of checkpoints.
// Threads: a value each. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/load_pages.h"
#include "krg/checkpoint/write_version.h"

namespace krg {

inline constexpr uint64_t kPage = kCheckpointPage;

// A family of two processes with memory that a seed says.
class MadeSnapshot : public PageSnapshot {
 public:
  explicit MadeSnapshot(unsigned seed, uint64_t pages = 700) : seed_(seed) {
    family_.command = "a program";
    family_.members.resize(2);
    family_.members[0].pid = 301;
    family_.members[1].pid = 302;
    family_.members[1].parent = 301;
    family_.members[0].name = "first";
    family_.files.emplace_back().path = "/etc/passwd";
    family_.members[0].fds.push_back({.number = 3, .file = 0});
    pages_ = {{0, {.start = {0x10000}, .bytes = kPage}},
              {0, {.start = {0x400000}, .bytes = pages * kPage}},
              {1, {.start = {0x10000}, .bytes = 3 * kPage}}};
  }
  const ProcessFamily& family() const override { return family_; }
  Result<std::vector<FamilySnapshot::Pages>> pages() const override { return pages_; }
  Status read(uint32_t member, std::span<const PageRange> ranges,
              std::span<std::byte> into) const override {
    for (const PageRange& range : ranges)
      for (uint64_t at = range.start.value; at < range.end().value; at += kPage) {
        fill(member, at, into.first(kPage));
        into = into.subspan(kPage);
      }
    return into.empty() ? Status() : text_error("more was asked for");
  }
  void touch_none() {
    for (FamilySnapshot::Pages& pages : pages_) pages.range.is_clean = 0;
  }
  // From now on the pages whose number is a multiple of `every` have that seed; all others are as
  // they were, and are said to be clean.
  void touch(unsigned every, unsigned seed) {
    std::vector<FamilySnapshot::Pages> split;
    for (const FamilySnapshot::Pages& pages : pages_)
      for (uint64_t at = pages.range.start.value; at < pages.range.end().value; at += kPage) {
        const bool is_touched = at / kPage % every == 0;
        if (is_touched) seeds_[{pages.member, at}] = seed;
        FamilySnapshot::Pages one{pages.member, {.start = {at}, .bytes = kPage}};
        one.range.is_clean = !is_touched;
        const bool joins = !split.empty() && split.back().member == one.member &&
                           split.back().range.end().value == at &&
                           split.back().range.is_clean == one.range.is_clean;
        joins ? void(split.back().range.bytes += kPage) : split.push_back(one);
      }
    pages_ = std::move(split);
  }
  void fill(uint32_t member, uint64_t address, std::span<std::byte> page) const {
    const auto touched = seeds_.find({member, address});
    const unsigned seed = touched == seeds_.end() ? seed_ : touched->second;
    std::mt19937_64 random(seed * 1'000'003 + member * 7919 + address);
    for (size_t i = 0; i < page.size(); i += 8) {
      const uint64_t value = i < page.size() / 2 ? random() : 0;  // half of it can be compressed
      std::memcpy(&page[i], &value, sizeof value);
    }
  }

 private:
  unsigned seed_;
  ProcessFamily family_;
  std::vector<FamilySnapshot::Pages> pages_;
  std::map<std::pair<uint32_t, uint64_t>, unsigned> seeds_;  // of pages that were touched
};

// Empty when the version (0: the newest) holds that memory.
inline std::string fault_of(const CheckpointStore& store, uint32_t version,
                            const MadeSnapshot& wanted) {
  auto info = store.info(version);
  if (!info) return info.error().message();
  auto parts = store.open_parts(*info);
  if (!parts) return parts.error().message();
  std::mutex mutex;
  uint64_t bytes = 0;
  bool is_same = true;
  auto loaded = load_pages(
      *info, *parts, [](pid_t) { return true; },
      [&](pid_t pid, std::span<const PageRange> ranges,
          std::span<const std::byte> contents) -> Status {
        std::vector<std::byte> expected(contents.size());
        const auto member = static_cast<uint32_t>(pid - 301);
        if (auto read = wanted.read(member, ranges, expected); !read) return read;
        std::lock_guard lock(mutex);
        bytes += contents.size();
        is_same &= std::memcmp(expected.data(), contents.data(), contents.size()) == 0;
        return {};
      });
  if (!loaded) return loaded.error().message();
  if (bytes != info->memory_bytes) return "not all pages";
  return is_same ? "" : "other contents";
}

// What one of two nodes has of it: the second process is on node 1.
class NodesPages : public PageSnapshot {
 public:
  NodesPages(const MadeSnapshot& all, uint32_t node)
      : all_(all), node_(node), family_(all.family()) {
    family_.members[0].image = "first";
    family_.members[1].image = "second";
    family_.members[1].node = 1;
    family_.pipes.push_back({.capacity = 4096, .node = 1, .contents = "in flight"});
    family_ = family_.part_of(node);
  }
  const ProcessFamily& family() const override { return family_; }
  Result<std::vector<FamilySnapshot::Pages>> pages() const override {
    auto pages = all_.pages();
    std::erase_if(*pages, [this](const auto& piece) { return piece.member != node_; });
    return pages;
  }
  Status read(uint32_t member, std::span<const PageRange> ranges,
              std::span<std::byte> into) const override {
    return all_.read(member, ranges, into);
  }

 private:
  const MadeSnapshot& all_;
  uint32_t node_;
  ProcessFamily family_;
};

inline Result<WrittenVersion> write_of_two_nodes(const MadeSnapshot& all,
                                                 const WriteOptions& options) {
  auto version = NewVersion::open(options);
  if (!version) return version.error();
  std::vector<WrittenPart> parts;
  for (const uint32_t node : {0u, 1u}) {
    auto part = write_part(NodesPages(all, node), (*version)->order_for(node));
    if (!part) return part.error();
    parts.push_back(*part);
  }
  auto written = (*version)->commit(NodesPages(all, 0).family(), parts);
  if (!written) return written;
  if (auto tidied = (*version)->tidy(); !tidied) return tidied.error();
  return written;
}

// A program that is saved again and again, each time after other pages were written.
class MadeProgram {
 public:
  explicit MadeProgram(WriteOptions options, bool is_on_two_nodes = false)
      : is_on_two_nodes_(is_on_two_nodes), options_(std::move(options)) {
    history_.push_back(MadeSnapshot(1));
  }
  // The next version; each holds pages of its own only.
  Result<WrittenVersion> save() {
    auto written = is_on_two_nodes_ ? write_of_two_nodes(history_.back(), options_)
                                    : write_version(history_.back(), options_);
    if (!written) return written;
    options_.base = {written->info.version, written->info.id};
    saved_.emplace(written->info.version, history_.back());
    return written;
  }
  void go_on(unsigned every) {
    MadeSnapshot next = history_.back();
    next.touch(every, static_cast<unsigned>(history_.size()) + 1);
    history_.push_back(next);
  }
  // A version with all pages.
  Result<WrittenVersion> save_all() {
    options_.base = {};
    history_.back().touch_none();
    return save();
  }
  bool has(uint32_t version) const { return saved_.contains(version); }
  const MadeSnapshot& now() const { return history_.back(); }
  const MadeSnapshot& at(uint32_t version) const { return saved_.at(version); }
  WriteOptions& options() { return options_; }

 private:
  const bool is_on_two_nodes_;
  WriteOptions options_;
  std::vector<MadeSnapshot> history_;
  std::map<uint32_t, MadeSnapshot> saved_;
};

}  // namespace krg
