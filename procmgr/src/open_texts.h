// OpenTexts: the open files of a tree whose files are texts made on demand, as procfs' are: a read
// from the start makes the text anew, reads further on go on in the same text.
//
// Threads: the loop's thread. Owned by its tree.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "krg/procmgr/session_fs.h"

namespace krg {

class OpenTexts {
 public:
  using Done = std::function<void(Result<std::string>)>;
  // Makes the text; answers once, now or later.
  using Source = std::function<void(Done)>;
  // Carries out one write.
  using Sink = std::function<void(std::string_view, FsReply<size_t>)>;

  // Answers with a new handle. `at_once`: only when the text could be made, so that open(2) fails
  // where it would on the file itself. `sink` may be empty.
  void open(Source source, bool at_once, Sink sink, FsReply<FsOpened> reply);
  void read(uint64_t handle, uint64_t offset, size_t size, FsReply<std::string> reply);
  void write(uint64_t handle, std::string_view data, FsReply<size_t> reply);
  void release(uint64_t handle);

 private:
  struct Text;
  using Texts = std::unordered_map<uint64_t, std::shared_ptr<Text>>;
  std::shared_ptr<Texts> texts_ = std::make_shared<Texts>();  // texts that come late hold it weakly
  uint64_t next_handle_ = 1;
};

}  // namespace krg
