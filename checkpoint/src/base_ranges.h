// BaseRanges: where a version has the pages of one node, for the next one, which has no need to
// write those that stayed the same. LastParts: what this node wrote last into each folder, so that
// it need not be read again for that.
//
// Threads: BaseRanges: a value, read by any; LastParts: any, several at once.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/write_version.h"

namespace krg {

// What a process, a file or memory is known by in other versions.
std::string base_key(const ProcessFamily& family, uint32_t member);

class BaseRanges {
 public:
  BaseRanges() = default;
  // `order.base`'s. Errors: ESTALE: it is not to be had any more.
  static Result<BaseRanges> read(const CheckpointStore& store, const PartOrder& order);
  // By key, each sorted by address; all of the version that is being written.
  explicit BaseRanges(std::map<std::string, std::vector<PartRange>> ranges)
      : ranges_(std::move(ranges)) {}
  // Of a part that has just been written with `base` as its own.
  BaseRanges(const PartContents& contents, const BaseRanges& base);

  // Appends where the pages of `range` are. Errors: ESTALE: not all are there.
  Status find(const std::string& key, uint32_t member, const PageRange& range,
              std::vector<PartRange>& found) const;
  uint64_t id_of(uint32_t version) const;
  size_t count() const;

 private:
  void add(const PartContents& contents);
  std::map<std::string, std::vector<PartRange>> ranges_;
  std::map<uint32_t, uint64_t> ids_;
};

class LastParts {
 public:
  LastParts();
  ~LastParts();

  // Those of `order.base`, where this node wrote it and its files are the same. Null: they are to
  // be read. REQUIRES: the folder is locked for the version that `order` belongs to.
  std::shared_ptr<const BaseRanges> find(const CheckpointStore& store,
                                         const PartOrder& order) const;
  // The part of `order` has been written.
  void keep(const CheckpointStore& store, const PartOrder& order, BaseRanges ranges);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
