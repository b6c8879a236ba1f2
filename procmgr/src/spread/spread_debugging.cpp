// SpreadProcess: a debugger looks at it (krg_gdb). All threads stand still meanwhile, or go on to
// the next breakpoint, wherever that is met; memory is read where it is.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "process_memory.h"
#include "spread/spread_process.h"

namespace krg {
namespace {

// For threads that cannot stop: in vfork, in a disk's hands.
constexpr std::chrono::seconds kLongestInspection{5};
constexpr std::chrono::milliseconds kTryAgain{10};

}  // namespace

// --- threads ------------------------------------------------------------------------------------

void SpreadProcess::hold(std::function<void(Result<std::vector<Held>>)> done) {
  if (is_held()) return done(errno_error("a debugger looks at it already", EBUSY));
  const bool has_gone_on = inspection_ != nullptr;
  // While one thread made a step the others stood, one of them perhaps in the middle of a fork.
  const bool fork_stands = has_gone_on && inspection_->alone && fork_ &&
                           fork_->thread->traced->tid() != inspection_->stepping;
  if ((fork_ && !fork_stands) || capture_)
    return done(errno_error("it forks or is saved just now", EAGAIN));
  if (!has_gone_on) inspection_ = std::make_shared<Inspection>();
  inspection_->goes_on = false;
  inspection_->trapped = nullptr;
  inspection_->elsewhere.clear();
  inspection_->done = std::move(done);
  inspection_->limit = parts_.node.loop.after(kLongestInspection, [this, has_gone_on] {
    auto told = std::exchange(inspection_->done, nullptr);
    has_gone_on ? go_on(0, false, {}) : release();
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
          auto threads =
              reply ? CapturedThreads::parse(*reply) : Result<CapturedThreads>(reply.error());
          if (alive && threads)
            for (auto& [tid, thread] : *threads) alive->elsewhere[tid] = std::move(thread.state);
          stands();
        });
  for (const auto& [tid, thread] : std::map(threads_)) {
    thread->traced->end_step();
    thread->traced->hold(stands);
  }
  stands();
}

void SpreadProcess::tell_held() {
  if (!inspection_->done) return;  // it took too long
  inspection_->limit.reset();
  std::vector<Held> all;
  for (const auto& [tid, thread] : threads_) {
    Held held{tid, thread->node, std::nullopt};
    if (thread->node == parts_.node.self) {
      if (auto state = thread->traced->state()) held.state = std::move(*state);
    } else if (auto found = inspection_->elsewhere.find(tid);
               found != inspection_->elsewhere.end()) {
      held.state = found->second;
    }
    all.push_back(std::move(held));
  }
  std::exchange(inspection_->done, nullptr)(std::move(all));
}

void SpreadProcess::go_on(pid_t step, bool alone, std::function<void(const Trap&)> trapped) {
  inspection_->goes_on = true;
  inspection_->trapped = std::move(trapped);
  inspection_->stepping = step;
  inspection_->alone = alone;
  if (auto found = threads_.find(step); found != threads_.end()) {
    if (found->second->node == parts_.node.self) {
      step_here(found->second);
    } else {
      StepThread tell;
      tell.set = set().value;
      tell.tid = step;
      tell.alone = alone;
      static_cast<void>(parts_.node.messenger.send(found->second->node, tell));
    }
  }
  if (!alone) let_go_on();
}

// If it is the one. It may have come home since it was told to.
void SpreadProcess::step_here(const ThreadPtr& thread) {
  const pid_t tid = thread->traced->tid();
  if (!inspection_ || !inspection_->goes_on || inspection_->stepping != tid) return;
  thread->traced->step([this, tid] { trapped(tid, false); });
  if (inspection_->alone) thread->traced->release();
}

void SpreadProcess::trapped(pid_t tid, bool at_breakpoint) {
  if (!inspection_) return;
  if (auto told = std::exchange(inspection_->trapped, nullptr))
    told({tid, at_breakpoint, end_status_});
}

void SpreadProcess::let_go_on() {
  HoldThreads tell;
  tell.set = set().value;
  tell.why = HoldThreads::Why::kDebugger;
  for (NodeId node : parts_.nodes) static_cast<void>(parts_.node.messenger.send(node, tell));
  if (fork_) return fork_->thread->traced->release();  // the others are let go by that
  for (const auto& [tid, thread] : std::map(threads_)) thread->traced->release();
}

void SpreadProcess::release() {
  if (!inspection_) return;
  if (inspection_->goes_on) return hold_to_release();
  const auto breakpoints = inspection_->breakpoints.all();
  for (const auto& [at, replaced] : breakpoints) set_breakpoint(at, false, [](const Status&) {});
  inspection_.reset();
  for (const auto& [tid, thread] : threads_) thread->traced->end_step();
  let_go_on();
}

// No thread may have met a breakpoint that is none any more.
void SpreadProcess::hold_to_release() {
  hold([this](const Result<std::vector<Held>>& held) {
    if (held || !inspection_) return release();
    inspection_->limit = parts_.node.loop.after(kTryAgain, [this] { release(); });
  });
}

// --- breakpoints --------------------------------------------------------------------------------

// A file that has one looks as if the process had contents of its own there, which other nodes
// could not have.
void SpreadProcess::set_breakpoint(RemoteAddr at, bool is_set, Done done) {
  if (!is_set) {
    inspection_->breakpoints.clear(parts_.pid, at);
    return tell_of_breakpoint(at, false, [done = std::move(done)] { done({}); });
  }
  if (parts_.memory.find(at) || at == parts_.instruction)
    return done(errno_error("no code of a file", ENOTSUP));
  if (!file_with_breakpoints(at)) {
    const KnownMapping file = KnownMapping::of_file(parts_.pid, at);
    if (file.kind == KnownMapping::Kind::kFile) inspection_->files[file.range.start] = file;
  }
  if (auto set = inspection_->breakpoints.set(parts_.pid, at); !set) {
    inspection_->breakpoints.clear(parts_.pid, at);
    return done(set);
  }
  tell_of_breakpoint(at, true, [done = std::move(done)] { done({}); });
}

void SpreadProcess::tell_of_breakpoint(RemoteAddr at, bool is_set, std::function<void()> done) {
  SetBreakpoint ask;
  ask.set = set().value;
  ask.address = at.value;
  ask.is_set = is_set;
  auto left = std::make_shared<size_t>(parts_.nodes.size() + 1);
  const auto answered = [left, done = std::move(done)] {
    if (--*left == 0) done();
  };
  for (NodeId node : parts_.nodes)
    parts_.node.messenger.request(node, ask, {},
                                  [answered](const Result<std::string>&) { answered(); });
  answered();
}

// Null: none is known there.
const KnownMapping* SpreadProcess::file_with_breakpoints(RemoteAddr address) const {
  if (!inspection_) return nullptr;
  auto found = inspection_->files.upper_bound(address);
  if (found == inspection_->files.begin()) return nullptr;
  const KnownMapping& file = std::prev(found)->second;
  return address < file.range.end() ? &file : nullptr;
}

// Whether the SIGTRAP that a thread has met is the debugger's.
bool SpreadProcess::takes_trap(const ThreadPtr& thread) {
  if (!inspection_) return false;
  const Breakpoints::Trap trap = inspection_->breakpoints.meet(*thread->traced);
  if (trap == Breakpoints::Trap::kProgramsOwn) return false;
  if (trap == Breakpoints::Trap::kBreakpoint) {
    thread->traced->hold([] {});
    trapped(thread->traced->tid(), true);
  }
  resume(thread);  // one that is held, when it is released
  return true;
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

void SpreadProcess::write_memory_of_all(RemoteAddr start, std::string_view bytes, Done done) {
  const auto offset = parts_.memory.offset_of(start, bytes.size());
  if (!offset) return done(errno_error("no memory that they have in common", EFAULT));
  parts_.pages->write(*offset, bytes, std::move(done));
}

}  // namespace krg
