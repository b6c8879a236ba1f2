// StreamTree: files whose offset processes of several nodes share (shared_offset.h).
// SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "krg/runtime/log.h"
#include "process_fds.h"
#include "stream_replies.h"
#include "stream_tree.h"

namespace krg {
namespace {

// A descriptor of who reads, and where that stands.
struct Standing {
  int number = -1;
  int64_t offset = 0;
};

// Of several descriptors of one import (by /dev/fd/N it may have been opened anew) the one that
// stands where is read.
Standing standing_of(pid_t tid, const std::function<bool(const FdIdentity&)>& is_import,
                     int64_t read_at) {
  Standing standing{-1, read_at};
  for (const int number : descriptors_of(tid, is_import)) {
    const auto offset = offset_of_fd(tid, number);
    if (!offset) continue;
    standing = {number, *offset};
    if (*offset == read_at) break;
  }
  return standing;
}

// What `look` says of the kernel's offset, while nobody moves that, and how many moves had been
// made before. One that waits for a read to return is as good as not begun: it is not waited for
// long.
template <class Look>
auto while_still(const SharedOffset& offset, Look look) {
  constexpr std::chrono::microseconds kLongest{300};
  const auto& moves = *offset.moves();
  for (const auto end = std::chrono::steady_clock::now() + kLongest;;) {
    const uint64_t made = moves.made();
    auto seen = std::pair(look(), made);
    const bool is_still = !moves.is_under_way() && moves.made() == made;
    if (is_still || std::chrono::steady_clock::now() > end) return seen;
    std::this_thread::yield();
  }
}

// The number that the answer to a read begins with.
Result<int64_t> take_offset(Result<std::string>& answer) {
  if (!answer) return answer.error();
  auto offset = value_of<int64_t>(answer->substr(0, sizeof(int64_t)));
  if (offset) answer->erase(0, sizeof(int64_t));
  return offset;
}

}  // namespace

// False: it is read without regard to the offset. `reply` is taken otherwise.
bool StreamTree::read_at_shared_offset(const FsCaller& caller, FileId file, uint64_t handle,
                                       int64_t offset, size_t size, FsReply<std::string>& reply) {
  Handle& its = handles_.at(handle);
  const auto is_import = [this, file](const FdIdentity& found) {
    return found.device == fs_.device() && fs_.file_of(kName, found.inode) == file;
  };
  const auto [standing, made] =
      while_still(*its.offset, [&] { return standing_of(caller.tid, is_import, offset); });
  const SharedOffset::Read read = its.offset->begin(offset, {standing.offset, made});
  if (!read.is_at_offset) return false;
  StreamRead message;
  message.size = static_cast<uint32_t>(size);
  message.at_shared_offset = 1;
  message.offset = read.sought.value_or(kAtPosition);
  auto later = std::make_shared<FsReply<std::string>>(std::move(reply));
  carry_out_at_home(caller, its.source, message, {},
                    [this, later, handle, tid = caller.tid, number = standing.number, offset,
                     size](Result<std::string> answer) {
                      const Result<int64_t> was_at = take_offset(answer);
                      if (!was_at) return (*later)(as_io_error(was_at.error()));
                      const auto got = static_cast<int64_t>(answer->size());
                      (*later)(std::move(answer));
                      auto found = handles_.find(handle);
                      if (found == handles_.end()) return;
                      SharedOffset& shared = *found->second.offset;
                      if (shared.end(offset, *was_at, got, static_cast<int64_t>(size)))
                        move_offset(shared, tid, number);
                    });
  return true;
}

// lseek(2) waits till the read that is under way has returned.
void StreamTree::move_offset(const SharedOffset& offset, pid_t tid, int number) {
  auto copy = number < 0 ? errno_error("no such descriptor", EBADF) : steal_fd(tid, number);
  if (!copy) return log_debug("streams", "offset: {}", copy.error().message());
  node_.workers.submit(
      [copy = std::make_shared<UniqueFd>(std::move(*copy)), moves = offset.moves()] {
        moves->carry_out([&copy](int64_t by) { return lseek(copy->get(), by, SEEK_CUR) >= 0; });
        copy->reset();  // may be the last one, which krgd is asked to release
      },
      [] {});
}

SharedOffset::Seek StreamTree::settle_offset(FileId file, int descriptor, bool may_be_reading) {
  // lseek(2) would wait for a read that is under way.
  const auto offset_now = [descriptor] { return offset_of_fd(getpid(), descriptor).value_or(0); };
  auto import = imports_.find(file);
  const bool is_open = import != imports_.end() && !import->second.handles.empty();
  Handle* handle = is_open ? &handles_.at(import->second.handles.front()) : nullptr;
  if (!handle || !handle->offset) return {offset_now(), offset_now()};
  const auto [now, made] = while_still(*handle->offset, offset_now);
  const auto seek = handle->offset->take_seek({now, made}, may_be_reading);
  if (!seek) return {now, now};
  StreamSeek message;
  message.home = handle->source.id;
  message.from = seek->from;
  message.to = seek->to;
  if (!node_.messenger.send(handle->source.home, message))
    log_debug("streams", "offset: n{} is gone", handle->source.home.value);
  return *seek;
}

}  // namespace krg
