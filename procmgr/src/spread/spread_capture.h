// What a capture of a SpreadProcess has, and what it makes of one that stands (spread_capture.cpp,
// standing_process.cpp). Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "spread/early_pages.h"
#include "spread/spread_copy.h"
#include "spread/spread_process.h"
#include "spread/standing_spread.h"
#include "spread/thread_state.h"

namespace krg {

struct SpreadProcess::CapturedThreadAtHome {
  ThreadPtr thread;
  user_regs_struct image{}, live{};     // registers: in the image; with which it goes on here
  std::optional<std::string> extended;  // of one that runs elsewhere
  bool is_at_entry = false;             // of a call, or at the kernel's door
  bool arms = false;                    // goes to the door again
};

struct SpreadProcess::Capture {
  Standing done;
  EventLoop::Timer limit, next;
  bool is_held = false, is_standing = false;
  uint64_t answers = 0;
  unsigned looks = 0;
  std::string obstacle = "it changes its mappings";
  CapturedThreads elsewhere;
  std::map<pid_t, CapturedThreadAtHome> threads;
  std::vector<std::function<void()>> put_off;
};

class SpreadProcess::StandingProcess : public StandingSpread {
 public:
  StandingProcess(SpreadProcess& of, std::shared_ptr<FrozenProcess> process)
      : of_(of), alive_(of.alive_), process_(std::move(process)) {}
  ~StandingProcess() override;

  const std::shared_ptr<FrozenProcess>& process() const override { return process_; }
  int memory_fd() const override { return of_.parts_.memory_fd; }
  std::string state() const override;
  Result<ProcessImage> image(int session_mount_ns, MappingTexts& before) override;
  void begin_early(std::function<void(std::shared_ptr<EarlyPages>)> done) override;
  void take(uint64_t base, uint64_t number, std::shared_ptr<EarlyPages> early,
            std::function<void(Result<Memory>)> done) override;

 private:
  using Taken = std::function<void(Result<Memory>)>;
  void put_ranges(std::vector<ImageMapping>& mappings) const;
  void ask_written(std::function<void(std::optional<PageMarks>)> done);
  void copy(uint64_t number, Taken done);
  Result<pid_t> make_copy(const std::vector<SpreadRange>& ranges, bool with_room);
  void take_changed(uint64_t number, const SavedPages::Plan& plan, Taken done);
  // Adds the changed pages to `pages`; `done` gets which pages have a content now.
  void read_changed(const SavedPages::Plan& plan, std::shared_ptr<SetPages> pages,
                    std::function<void(const Status&, PageMarks content)> done);
  void take_early(uint64_t number, EarlyPages& early, const PageMarks& written, Taken done);

  SpreadProcess& of_;
  const std::weak_ptr<bool> alive_;
  const std::shared_ptr<FrozenProcess> process_;
  std::shared_ptr<SpreadCopy> copy_;
  pid_t copied_ = 0;  // the task that it is filling
  std::shared_ptr<SpreadReader> reader_;
  const std::shared_ptr<bool> stands_ = std::make_shared<bool>(true);
};

}  // namespace krg
