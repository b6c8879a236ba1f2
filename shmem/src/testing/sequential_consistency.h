// AccessHistory: what threads read and wrote, recorded, and whether it is sequentially consistent:
// whether one total order of all accesses exists that keeps each thread's own order and in which
// every access reads what the access before it left in the object.
//
// Values are unique per object, and a writer reads before it writes (a grab); so the history itself
// says which write followed which, no clock is believed, and the question is whether the graph of
// program order, reads-from, write order and from-reads has a cycle. Linear in the history's
// length.
//
// Owned by a test. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace krg::kddm {

class AccessHistory {
 public:
  static constexpr uint64_t kNothing = 0;  // no value

  struct Access {
    unsigned thread = 0;
    unsigned object = 0;
    uint64_t read = kNothing;
    uint64_t wrote = kNothing;  // kNothing: it only read
  };

  // A value that no thread wrote: what the object starts from.
  void begin_object(unsigned object, uint64_t value) { initial_.push_back({0, object, 0, value}); }
  // Accesses of one thread come in its program order; those of different threads in any order.
  void record(const Access& access) { accesses_.push_back(access); }
  size_t size() const { return accesses_.size(); }

  // Empty, or what is wrong: a value from nowhere, a lost write, or a cycle, with its accesses.
  std::string violation() const;

 private:
  std::vector<Access> initial_;
  std::vector<Access> accesses_;
};

}  // namespace krg::kddm
