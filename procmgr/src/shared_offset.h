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
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

namespace krg {

class SharedOffset {
 public:
  // `at`: where the home's offset was when the file was opened here.
  explicit SharedOffset(int64_t at) : at_(at) {}

  // The kernel's offset here, and how many of its moves (Moves) were known to have been made
  // before it was looked at: by now there may be more.
  struct Seen {
    int64_t offset = 0;
    uint64_t made = 0;
  };
  struct Read {
    bool is_at_offset = false;        // read(2) and its like; else pread(2), which moves nothing
    std::optional<int64_t> sought{};  // where the home's offset is to be set before
  };
  // A read at `offset` begins, while the kernel's offset here is that of `now`: a read at the
  // offset, or the next piece of one that is under way.
  Read begin(int64_t offset, Seen now);
  // A read at the offset has got `got` of `size` bytes; they stood at `was_at` at home. Result:
  // whether the kernel's offset has to be moved once the read has returned (Moves).
  bool end(int64_t offset, int64_t was_at, int64_t got, int64_t size);

  // The moves of the kernel's offset that are to be made, one after the other, by any thread.
  class Moves {
   public:
    // By `seek`, which gets by how much and says whether it could: those that are to be made by
    // now. One that could not is made with the next ones.
    void carry_out(const std::function<bool(int64_t)>& seek);
    bool is_under_way() const { return under_way_ != 0; }
    uint64_t made() const { return made_; }

   private:
    friend class SharedOffset;
    void add(int64_t by);
    std::optional<int64_t> next();

    std::mutex making_, adding_;
    std::deque<int64_t> to_make_;  // under adding_
    std::atomic<int> under_way_ = 0;
    std::atomic<uint64_t> made_ = 0;  // told at once after each
  };
  const std::shared_ptr<Moves>& moves() const { return moves_; }

  // Where the home's offset is as far as known here, and where the processes here have set it to.
  struct Seek {
    int64_t from, to;
  };
  // Nothing where they are the same. The home has it from now on.
  // `may_be_reading`: a read may be about to return, before which the kernel's offset is where it
  // began: one that is set back to there is told later.
  std::optional<Seek> take_seek(Seen now, bool may_be_reading);

 private:
  void notice_moves(const Seen& now);
  void take_moves(size_t count);

  int64_t at_;                   // the kernel's offset here as the reads have left it
  std::deque<int64_t> pending_;  // the moves of it that are not known to have been made
  int64_t pending_in_all_ = 0;
  uint64_t taken_ = 0;       // moves that are known to have been made
  int64_t read_began_ = -1;  // the kernel's offset when the last read began
  bool has_next_ = false;    // another piece of that may follow
  std::shared_ptr<Moves> moves_ = std::make_shared<Moves>();
};

}  // namespace krg
