// SpreadProcess: a debugger looks at it (krg_gdb). All threads stand still meanwhile; memory is
// read where it is. SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "process_memory.h"
#include "spread/spread_process.h"

namespace krg {
namespace {

// For threads that cannot stop: in vfork, in a disk's hands.
constexpr std::chrono::seconds kLongestHold{5};

}  // namespace

// --- threads ------------------------------------------------------------------------------------

void SpreadProcess::hold(std::function<void(Result<std::vector<Held>>)> done) {
  if (inspection_) return done(errno_error("a debugger looks at it already", EBUSY));
  if (fork_ || capture_) return done(errno_error("it forks or is saved just now", EBUSY));
  inspection_ = std::make_shared<Inspection>();
  inspection_->done = std::move(done);
  inspection_->limit = parts_.node.loop.after(kLongestHold, [this] {
    auto told = std::exchange(inspection_->done, nullptr);
    release();
    told(errno_error("one of its threads does not stand still", EAGAIN));
  });
  auto left = std::make_shared<size_t>(threads_.size() + parts_.nodes.size() + 1);
  const auto stands = [this, left, inspection = std::weak_ptr(inspection_)] {
    if (--*left == 0 && !inspection.expired()) tell_held();
  };
  HoldThreads ask;
  ask.set = set().value;
  ask.why = HoldThreads::Why::kDebugger;
  for (NodeId node : parts_.nodes)
    parts_.node.messenger.request(
        node, ask, {},
        [stands, inspection = std::weak_ptr(inspection_)](const Result<std::string>& reply) {
          auto alive = inspection.lock();
          HeldThread held;
          for (size_t at = 0; alive && reply && at + sizeof held <= reply->size();
               at += sizeof held) {
            std::memcpy(&held, reply->data() + at, sizeof held);
            alive->elsewhere[held.tid] = held;
          }
          stands();
        });
  for (const auto& [tid, thread] : std::map(threads_)) thread->traced->hold(stands);
  stands();
}

void SpreadProcess::tell_held() {
  inspection_->limit.reset();
  std::vector<Held> all;
  for (const auto& [tid, thread] : threads_) {
    Held held{tid, thread->node, std::nullopt, std::nullopt};
    if (thread->node == parts_.node.self) {
      if (auto registers = thread->traced->registers()) held.registers = *registers;
      if (auto vectors = thread->traced->vector_registers()) held.vectors = *vectors;
    } else if (auto found = inspection_->elsewhere.find(tid);
               found != inspection_->elsewhere.end()) {
      held.registers = found->second.registers;
      held.vectors = found->second.vectors;
    }
    all.push_back(held);
  }
  if (auto told = std::exchange(inspection_->done, nullptr)) told(std::move(all));
}

void SpreadProcess::release() {
  if (!std::exchange(inspection_, nullptr)) return;
  HoldThreads tell;
  tell.set = set().value;
  tell.why = HoldThreads::Why::kDebugger;
  for (NodeId node : parts_.nodes) static_cast<void>(parts_.node.messenger.send(node, tell));
  if (fork_) return;  // that lets them go
  for (const auto& [tid, thread] : std::map(threads_)) thread->traced->release();
}

// --- memory -------------------------------------------------------------------------------------

struct SpreadProcess::Reading {
  RemoteAddr next;
  size_t left;
  std::string bytes = {};
  std::function<void(Result<std::string>)> done;
};

std::optional<PlaceInSet> SpreadProcess::find(RemoteAddr address) const {
  const auto offset = parts_.memory.offset_of(address, 1);
  if (!offset || !parts_.pages) return {};
  return PlaceInSet{parts_.pages, parts_.pages.get(), *offset};
}

void SpreadProcess::read_memory(RemoteAddr start, size_t bytes,
                                std::function<void(Result<std::string>)> done) {
  read_next(std::make_shared<Reading>(
      Reading{.next = start, .left = bytes, .bytes = {}, .done = std::move(done)}));
}

// Page by page: what is of the page set comes from wherever it is.
void SpreadProcess::read_next(const std::shared_ptr<Reading>& reading) {
  while (reading->left > 0) {
    const RemoteAddr at = reading->next;
    const size_t length = std::min(reading->left, kPageBytes - at.value % kPageBytes);
    if (const auto offset = parts_.memory.offset_of(at, length)) {
      return parts_.pages->read(
          *offset, length,
          [this, reading, length, alive = std::weak_ptr(alive_)](Result<std::string> bytes) {
            if (alive.expired() || !bytes) return reading->done(errno_error("memory", EFAULT));
            reading->bytes += *bytes;
            reading->next = reading->next + length;
            reading->left -= length;
            // Not on top of this, however much is here.
            parts_.node.loop.post([this, reading, alive] {
              alive.expired() ? reading->done(errno_error("memory", EFAULT)) : read_next(reading);
            });
          });
    }
    std::string native(length, '\0');
    if (!read_process_memory(parts_.pid, at, native)) break;
    reading->bytes += native;
    reading->next = at + length;
    reading->left -= length;
  }
  if (reading->left > 0 && reading->bytes.empty())
    return reading->done(errno_error("memory", EFAULT));
  reading->done(std::move(reading->bytes));
}

}  // namespace krg
