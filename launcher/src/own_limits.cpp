// SPDX-License-Identifier: GPL-2.0-or-later
#include "own_limits.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>

#include "krg/runtime/log.h"
#include "krg/runtime/result.h"

namespace krg {
namespace {

constexpr char kOwnScore[] = "/proc/self/oom_score_adj";
// In thousandths of the memory that there is. Not the least, -1000: what grows without end is to be
// ended at last.
constexpr int kKrgdsScore = -900, kProgramsScore = 300;

int number_in(const char* path, int otherwise) {
  int number = otherwise;
  std::ifstream(path) >> number;
  return number;
}

bool write_score(int score) {
  std::ofstream file(kOwnScore);
  return static_cast<bool>(file << score << std::flush);
}

void raise_limit(__rlimit_resource what, rlim_t most) {
  rlimit limit{};
  if (getrlimit(what, &limit) != 0) return;
  const rlimit wanted{most, most}, allowed{limit.rlim_max, limit.rlim_max};
  if (limit.rlim_max < most && setrlimit(what, &wanted) == 0) return;
  if (limit.rlim_cur != limit.rlim_max) setrlimit(what, &allowed);
}

}  // namespace

void raise_own_limits() {
  for (auto what : {RLIMIT_FSIZE, RLIMIT_AS, RLIMIT_DATA, RLIMIT_CPU})
    raise_limit(what, RLIM_INFINITY);
  raise_limit(RLIMIT_NOFILE, static_cast<rlim_t>(number_in("/proc/sys/fs/nr_open", 1 << 20)));
}

void go_last_when_memory_runs_out() {
  if (!write_score(std::min(kKrgdsScore, number_in(kOwnScore, 0))))
    log_debug("krgd", "oom_score_adj: {}", errno_error({}).message());
}

void let_programs_go_first() {
  const int score = number_in(kOwnScore, 0);
  if (write_score(score - 1))
    write_score(score);
  else
    write_score(std::max(kProgramsScore, score));
}

}  // namespace krg
