// Threads that make team calls to a TeamServer, for its tests.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "teams/team_server.h"

namespace krg::test {

inline constexpr uint64_t kTeam = 0x1000;

struct Answered {
  int64_t result = 0;
  TeamWords words{};
};

// Threads by number; each call has a new sequence number but for again().
class Members {
 public:
  std::optional<Answered>& call(pid_t tid, TeamOp op, uint64_t key, std::vector<uint64_t> rest = {},
                                unsigned node = 0) {
    TeamWords words{};
    words[0] = static_cast<uint64_t>(op);
    words[1] = ++number_;
    words[2] = key;
    for (size_t i = 0; i < rest.size(); ++i) words[3 + i] = rest[i];
    last_[tid] = words;
    return again(tid, node);
  }
  std::optional<Answered>& again(pid_t tid, unsigned node = 0) {
    answers_[tid].reset();
    server.call(tid, NodeId{static_cast<uint16_t>(node)}, last_[tid],
                [this, tid](int64_t result, const TeamWords& words) {
                  answers_[tid] = Answered{result, words};
                });
    return answers_[tid];
  }
  std::optional<Answered>& of(pid_t tid) { return answers_[tid]; }
  std::optional<int64_t> result(pid_t tid) {
    return of(tid) ? std::optional(of(tid)->result) : std::nullopt;
  }
  // A region of `size` with master 1 and workers 2, 3, ...; each is member tid - 1. The last
  // `elsewhere` of them are on node 1.
  void region(unsigned size, unsigned elsewhere = 0) {
    for (unsigned i = 2; i <= size; ++i)
      call(static_cast<pid_t>(i), TeamOp::dock, kTeam, {}, i > size - elsewhere ? 1 : 0);
    call(1, TeamOp::begin, kTeam, {size | uint64_t{size - 1} << 32, 77});
  }

  TeamServer server;

 private:
  uint64_t number_ = 0;
  std::map<pid_t, TeamWords> last_;
  std::map<pid_t, std::optional<Answered>> answers_;
};

}  // namespace krg::test
