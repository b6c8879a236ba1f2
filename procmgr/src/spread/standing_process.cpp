// StandingProcess: a spread process that stands, as an ordinary one of its home.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "image/image_capture.h"
#include "spread/spread_again.h"
#include "spread/spread_capture.h"

namespace krg {

SpreadProcess::StandingProcess::~StandingProcess() {
  if (copy_) copy_->cancel();
  if (copied_ != 0) kill(copied_, SIGKILL);
  if (!alive_.expired()) of_.go_on(process_);
}

std::string SpreadProcess::StandingProcess::state() const {
  SpreadAgain again;
  again.nodes = static_cast<uint32_t>(of_.parts_.nodes.size() + 1);
  for (const auto& [tid, thread] : of_.threads_) again.places[tid] = thread->node;
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
  }
  put_ranges(image->mappings);
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

void SpreadProcess::StandingProcess::copy(std::function<void(Result<pid_t>)> done) {
  if (alive_.expired()) return done(errno_error("the process died", ESRCH));
  std::vector<SpreadRange> ranges = of_.parts_.memory.all();
  copy_ = std::make_shared<SpreadCopy>(of_.parts_.pages, ranges);
  SpreadRange scratch;
  scratch.start = of_.parts_.scratch.address_of(0);
  scratch.bytes = SpreadScratch::kBytes;
  ranges.push_back(scratch);
  for (const SpreadRange& range : ranges) {
    const int64_t told =
        process_->call(SYS_madvise, {range.start.value, range.bytes, MADV_DONTFORK});
    if (told < 0) return done(errno_error("memory of its own", static_cast<int>(-told)));
  }
  process_->drop_scratch();
  auto made = process_->clone_page_source(FrozenProcess::PageSource::kCopy);
  if (!made) return done(made.error());
  const auto fail = [&](const Error& why) {
    kill(*made, SIGKILL);
    done(why);
  };
  auto task = FrozenThread::stopped(*made);
  if (!task) return fail(task.error());
  Status mapped = copy_->map(*task, of_.parts_.instruction);
  if (mapped) mapped = task->settle();
  task->forget();
  if (!mapped) return fail(mapped.error());
  copied_ = *made;
  copy_->fill(copied_, [this, done = std::move(done)](const Status& filled) {
    const pid_t made = std::exchange(copied_, 0);
    if (filled) return done(made);
    kill(made, SIGKILL);
    done(filled.error());
  });
}

}  // namespace krg
