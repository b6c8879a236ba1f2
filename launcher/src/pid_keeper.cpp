// SPDX-License-Identifier: GPL-2.0-or-later
#include "pid_keeper.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <string>

#include "krg/runtime/log.h"
#include "small_files.h"

namespace krg {
namespace {

constexpr const char* kLastPid = "/proc/sys/kernel/ns_last_pid";
constexpr const char* kPidMax = "/proc/sys/kernel/pid_max";
// Half of a range of 65,536 pids lasts longer than this at any rate that fork(2) reaches.
constexpr std::chrono::milliseconds kPeriod{100};

Result<pid_t> read_pid(const char* path) {
  auto text = read_small_file(path);
  if (!text) return text.error();
  pid_t value = 0;
  if (std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc())
    return errno_error(path, EPROTO);
  return value;
}

}  // namespace

Result<std::unique_ptr<PidKeeper>> PidKeeper::create(EventLoop& loop, const PidRange& range) {
  auto limit = read_pid(kPidMax);
  if (!limit) return limit.error();
  if (range.self().value > 0 && *limit < range.end())
    return errno_error("pids up to " + std::to_string(range.end()) +
                           " are needed for this many nodes, but this machine's limit is " +
                           std::to_string(*limit) + " (as root: sysctl -w kernel.pid_max=4194304)",
                       ERANGE);
  std::unique_ptr<PidKeeper> keeper(new PidKeeper(range));
  if (auto set = keeper->reset(); !set) return set.error();
  keeper->timer_ = loop.every(kPeriod, [self = keeper.get()] { self->check_now(); });
  return keeper;
}

void PidKeeper::check_now() {
  auto last = read_pid(kLastPid);
  const pid_t half = range_.first() + (range_.end() - range_.first()) / 2;
  if (last && *last >= range_.first() && *last < half) return;
  if (auto set = reset(); !set) log_error("pids", "{}", set.error().message());
}

void PidKeeper::skip_to(pid_t pid) const {
  auto last = read_pid(kLastPid);
  if (!last || pid <= *last || pid >= range_.end()) return;
  if (auto set = write_small_file(kLastPid, std::to_string(pid)); !set)
    log_error("pids", "{}", set.error().message());
}

Status PidKeeper::reset() const {
  const pid_t first = std::max(range_.first(), kReservedPids);
  return write_small_file(kLastPid, std::to_string(first));
}

}  // namespace krg
