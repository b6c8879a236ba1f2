// StandingProcess: a spread process that stands, as an ordinary one of its home.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "image/image_capture.h"
#include "krg/runtime/log.h"
#include "spread/spread_again.h"
#include "spread/spread_capture.h"

namespace krg {

SpreadProcess::StandingProcess::~StandingProcess() {
  if (copy_) copy_->cancel();
  if (reader_) reader_->cancel();
  if (copied_ != 0) kill(copied_, SIGKILL);
  if (!alive_.expired()) of_.go_on(process_);
}

std::string SpreadProcess::StandingProcess::state() const {
  SpreadAgain again;
  again.nodes = static_cast<uint32_t>(of_.parts_.nodes.size() + 1);
  for (const auto& [tid, thread] : of_.threads_) {
    again.places[tid] = thread->node;
    if (thread->affinity) again.bounds[tid] = *thread->affinity;
  }
  if (!of_.teams_.is_unused()) again.teams = of_.teams_.save();
  return again.serialize();
}

Result<ProcessImage> SpreadProcess::StandingProcess::image(int session_mount_ns,
                                                           MappingTexts& before) {
  if (alive_.expired()) return errno_error("the process died", ESRCH);
  auto image = capture_image(*process_, session_mount_ns, before);
  if (!image) return image.error();
  for (ImageThread& thread : image->threads) {
    const CapturedThreadAtHome& captured = of_.capture_->threads.at(thread.tid);
    if (captured.extended) thread.extended_state = *captured.extended;
    // Of one that asked for its processors state() says which; its original has a part of them.
    const auto known = of_.threads_.find(thread.tid);
    if (known != of_.threads_.end() && known->second->affinity) thread.processors.clear();
  }
  put_ranges(image->mappings);
  for (int which : {ITIMER_VIRTUAL, ITIMER_PROF})
    image->interval_timers[static_cast<size_t>(which)] = of_.cpu_timers_.get(which, of_.used_);
  return image;
}

// In place of mappings of the set, krgd's own among them.
void SpreadProcess::StandingProcess::put_ranges(std::vector<ImageMapping>& mappings) const {
  struct stat memory {};
  fstat(of_.parts_.pages->memory(), &memory);
  std::erase_if(mappings, [&](const ImageMapping& mapping) {
    return mapping.kind == ImageMapping::Kind::kShared && mapping.shared_file == memory.st_ino;
  });
  for (const SpreadRange& range : of_.parts_.memory.all()) {
    ImageMapping& mapping = mappings.emplace_back();
    mapping.start = range.start;
    mapping.bytes = range.bytes;
    mapping.protection = range.protection;
    mapping.advice = ImageMapping::kNoReserve;
  }
  std::sort(mappings.begin(), mappings.end(),
            [](const ImageMapping& a, const ImageMapping& b) { return a.start < b.start; });
}

// --- its memory ---------------------------------------------------------------------------------

void SpreadProcess::StandingProcess::take(uint64_t base, uint64_t number,
                                          std::shared_ptr<EarlyPages> early, Taken done) {
  if (alive_.expired()) return done(errno_error("the process died", ESRCH));
  if (of_.parts_.pages->allows_multiple_writers()) return copy(0, std::move(done));
  ask_written([this, base, number, early = std::move(early),
               done = std::move(done)](std::optional<PageMarks> written) {
    if (alive_.expired()) return done(errno_error("the process died", ESRCH));
    if (written && of_.saved_.is_of(base))
      return take_changed(number, of_.saved_.plan(of_.parts_.memory.all(), *written), done);
    if (written && early && early->is_whole()) return take_early(number, *early, *written, done);
    copy(number, done);
  });
}

// Nobody knows from then on what was written since the last capture.
void SpreadProcess::StandingProcess::begin_early(
    std::function<void(std::shared_ptr<EarlyPages>)> done) {
  if (alive_.expired() || of_.parts_.pages->allows_multiple_writers()) return done(nullptr);
  of_.saved_.forget();
  ask_written([this, done = std::move(done)](const std::optional<PageMarks>&) {
    if (alive_.expired()) return done(nullptr);
    done(std::make_shared<EarlyPages>(of_.parts_.pages, of_.parts_.memory.all()));
  });
}

// None: it is not known of a node.
void SpreadProcess::StandingProcess::ask_written(
    std::function<void(std::optional<PageMarks>)> done) {
  struct Asked {
    PageMarks written;
    bool is_known = true;
    size_t left = 0;
  };
  auto asked = std::make_shared<Asked>();
  asked->left = of_.parts_.nodes.size() + 1;
  const auto heard = [asked, done = std::move(done)](std::string_view written) {
    asked->is_known &= asked->written.add_packed(written);
    if (--asked->left > 0) return;
    done(asked->is_known ? std::optional(std::move(asked->written)) : std::nullopt);
  };
  TellWritten ask;
  ask.set = of_.set().value;
  for (NodeId node : of_.parts_.nodes)
    of_.parts_.node.messenger.request(
        node, ask, {}, [heard, stands = std::weak_ptr(stands_)](const Result<std::string>& reply) {
          if (!stands.expired()) heard(reply ? std::string_view(*reply) : std::string_view());
        });
  heard(PageMarks::pack(of_.parts_.pages->take_written()));
}

// `number`: 0: the next capture has all, too.
void SpreadProcess::StandingProcess::copy(uint64_t number, Taken done) {
  of_.saved_.forget();
  std::vector<SpreadRange> ranges = of_.parts_.memory.all();
  copy_ = std::make_shared<SpreadCopy>(of_.parts_.pages, ranges);
  auto made = make_copy(ranges, true);
  if (!made) return done(made.error());
  copied_ = *made;
  auto content = std::make_shared<PageMarks>();
  copy_->fill(
      copied_,
      [this, number, content, ranges, done = std::move(done)](const Status& filled) {
        const pid_t made = std::exchange(copied_, 0);
        if (!filled) {
          kill(made, SIGKILL);
          return done(filled.error());
        }
        if (!alive_.expired() && number != 0)
          of_.saved_.replace(number, ranges, std::move(*content));
        Memory memory;
        memory.copy = made;
        done(std::move(memory));
      },
      [content](PageIndex page) { content->add(page); });
}

// Without the ranges, or with memory of its own there, still empty.
Result<pid_t> SpreadProcess::StandingProcess::make_copy(const std::vector<SpreadRange>& ranges,
                                                        bool with_room) {
  std::vector<SpreadRange> apart = ranges;
  SpreadRange scratch;
  scratch.start = of_.parts_.scratch.address_of(0);
  scratch.bytes = SpreadScratch::kBytes;
  apart.push_back(scratch);
  for (const SpreadRange& range : apart) {
    const int64_t told =
        process_->call(SYS_madvise, {range.start.value, range.bytes, MADV_DONTFORK});
    if (told < 0) return errno_error("memory of its own", static_cast<int>(-told));
  }
  process_->drop_scratch();
  auto made = process_->clone_page_source(FrozenProcess::PageSource::kCopy);
  if (!made || !with_room) return made;
  const auto fail = [&](const Error& why) {
    kill(*made, SIGKILL);
    return why;
  };
  auto task = FrozenThread::stopped(*made);
  if (!task) return fail(task.error());
  Status mapped = copy_->map(*task, of_.parts_.instruction);
  if (mapped) mapped = task->settle();
  task->forget();
  if (!mapped) return fail(mapped.error());
  return *made;
}

void SpreadProcess::StandingProcess::take_changed(uint64_t number, const SavedPages::Plan& plan,
                                                  Taken done) {
  auto room = SetPages::make(bytes_of(plan.changed));
  if (!room) return copy(number, std::move(done));
  auto written = std::make_shared<SetPages>(std::move(*room));
  of_.saved_.forget();
  auto memory = std::make_shared<Memory>();
  for (const SpreadRange& range : plan.same)
    memory->set_pages.push_back({.start = range.start, .bytes = range.bytes, .is_clean = 1});
  read_changed(plan, written,
               [this, number, written, memory, done = std::move(done)](const Status& read,
                                                                       PageMarks content) {
                 if (!read) return done(read.error());
                 if (!alive_.expired())
                   of_.saved_.replace(number, of_.parts_.memory.all(), std::move(content));
                 memory->written = written->sorted();
                 const auto& ranges = memory->written.ranges;
                 memory->set_pages.insert(memory->set_pages.end(), ranges.begin(), ranges.end());
                 done(std::move(*memory));
               });
}

void SpreadProcess::StandingProcess::read_changed(
    const SavedPages::Plan& plan, std::shared_ptr<SetPages> pages,
    std::function<void(const Status&, PageMarks content)> done) {
  auto content = std::make_shared<PageMarks>();
  for (const SpreadRange& range : plan.same)
    for (uint64_t i = 0; i < range.bytes / kPageBytes; ++i)
      content->add(PageIndex{range.first.value + i});
  reader_ = std::make_shared<SpreadReader>(of_.parts_.pages, plan.changed);
  reader_->read(
      [pages, content](RemoteAddr at, PageIndex page, std::span<const std::byte> bytes) {
        content->add(page);
        return pages->add(at, bytes);
      },
      [content, done = std::move(done)](const Status& read) { done(read, std::move(*content)); });
}

// Those that were written since they were read are read again; a copy of the process has what is at
// home only.
void SpreadProcess::StandingProcess::take_early(uint64_t number, EarlyPages& early,
                                                const PageMarks& written, Taken done) {
  const std::vector<SpreadRange> ranges = of_.parts_.memory.all();
  const SavedPages::Plan plan = early.plan(ranges, written);
  auto pages = std::make_shared<SetPages>(early.take(plan.same));
  auto made = make_copy(ranges, false);
  if (!made) return done(made.error());
  copied_ = *made;
  log_debug("spread", "process {}: {} pages have been read while it ran, {} are to be read",
            of_.parts_.pid, pages->bytes() / kPageBytes, bytes_of(plan.changed) / kPageBytes);
  read_changed(
      plan, pages,
      [this, number, ranges, pages, done = std::move(done)](const Status& read, PageMarks content) {
        const pid_t rest = std::exchange(copied_, 0);
        if (!read) kill(rest, SIGKILL);
        if (!read && read.error().errno_or(0) == ENOSPC) return copy(number, done);
        if (!read) return done(read.error());
        if (!alive_.expired()) of_.saved_.replace(number, ranges, std::move(content));
        Memory memory;
        memory.copy = rest;
        memory.written = pages->sorted();
        done(std::move(memory));
      });
}

}  // namespace krg
