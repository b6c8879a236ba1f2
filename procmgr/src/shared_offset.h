// SharedOffset: where a file stands that is read on this node and whose description, with its
// offset, is at another node, shared with processes there or elsewhere. The kernel here has an
// offset of its own for the krgfs file, which is only a copy: what is read goes by the home's
// offset, and the copy is moved along when others have moved that. An offset of the kernel's that
// no read has led to is a seek, which the home is told with the next read, or when the process
// waits, ends or moves. Pure: a StreamTree does what it says. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

namespace krg {

class SharedOffset {
 public:
  // `at`: where the home's offset was when the file was opened here.
  explicit SharedOffset(int64_t at) : at_(at) {}

  struct Read {
    bool is_at_offset = false;        // read(2) and its like; else pread(2), which moves nothing
    std::optional<int64_t> sought{};  // where the home's offset is to be set before
  };
  // A read at `offset` begins, while the kernel's offset here is `now`: a read at the offset, or
  // the next piece of one that is under way.
  Read begin(int64_t offset, int64_t now);
  // A read at the offset has got `got` of `size` bytes; they stood at `was_at` at home. Result: by
  // how much the kernel's offset has to be moved once the read has returned.
  int64_t end(int64_t offset, int64_t was_at, int64_t got, int64_t size);
  // Of who moves it, in any thread: set before, and told by how much at once afterwards.
  struct Moves {
    std::atomic<int> under_way = 0;
    std::atomic<int64_t> in_all = 0;
  };
  const std::shared_ptr<Moves>& moves() const { return moves_; }

  // Where the home's offset is as far as known here, and where the processes here have set it to.
  struct Seek {
    int64_t from, to;
  };
  // Nothing where they are the same. The home has it from now on.
  // `may_be_reading`: a read may be about to return, before which the kernel's offset is where it
  // began: one that is set back to there is told later.
  std::optional<Seek> take_seek(int64_t now, bool may_be_reading);

 private:
  void notice_move(int64_t now);

  int64_t at_;               // the kernel's offset here as the reads have left it
  int64_t pending_ = 0;      // by how much that is about to be moved
  int64_t seen_moved_ = 0;   // of the moves
  int64_t read_began_ = -1;  // the kernel's offset when the last read began
  bool has_next_ = false;    // another piece of that may follow
  std::shared_ptr<Moves> moves_ = std::make_shared<Moves>();
};

}  // namespace krg
