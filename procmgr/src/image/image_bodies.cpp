// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/image_bodies.h"

#include "krg/runtime/log.h"

namespace krg {
namespace {

constexpr std::chrono::milliseconds kYouth{30};

}  // namespace

ImageBodies::ImageBodies(NodeContext& node, BodySpawner& spawner, PageMoves* pages,
                         SharedMemory* shared, SleepBook* sleeps)
    : node_(node), pages_(pages), shared_(shared), sleeps_(sleeps), installer_(node, spawner) {
  if (!pages) return;
  const Status later = PageMoves::can_bring_later();
  auto source = later ? UserfaultSource::find() : later.error();
  if (source)
    userfaults_.emplace(std::move(*source));
  else
    log_info("image", "pages of moved processes come before they run: {}",
             source.error().message());
}

void ImageBodies::install(Request request, std::function<void(Status)> done) {
  auto moved = std::make_shared<MovedProcess>(std::move(request.moved));
  ImageInstaller::Request wanted;
  wanted.image = moved->image;
  wanted.fds = std::move(request.fds);
  wanted.uts_ns = request.uts_ns;
  wanted.has_children = request.has_children;
  wanted.home = request.home;
  wanted.shared = shared_;
  wanted.on_created = std::move(request.on_created);
  const bool are_late = !moved->late_pages.empty() || moved->is_supplied;
  if (are_late && userfaults_) wanted.late_pages = &*userfaults_;
  installer_.install(std::move(wanted),
                     [this, moved, sender = request.sender, done = std::move(done)](

                         Result<std::unique_ptr<InstalledProcess>> installed) {
                       if (!installed) return done(installed.error());
                       if (auto all = write_contents(**installed, *moved); !all) return done(all);
                       const pid_t pid = (*installed)->pid();
                       if (sleeps_) sleeps_->note(moved->image);
                       (*installed)->on_end([this, pid] {
                         if (pages_) pages_->take_lent(pid);
                         frozen_.erase(pid);
                       });
                       InstalledProcess& process = **installed;
                       frozen_.insert_or_assign(pid, Frozen{sender, std::move(*installed)});
                       bring_pages(sender, *moved, process, done);
                     });
}

Status ImageBodies::write_contents(InstalledProcess& process, const MovedProcess& moved) {
  std::span<const char> rest(moved.contents);
  for (const PageRange& range : moved.pages) {
    if (auto written = process.write_pages(range.start, rest.first(range.bytes)); !written)
      return written;
    rest = rest.subspan(range.bytes);
  }
  return {};
}

void ImageBodies::bring_pages(NodeId sender, const MovedProcess& moved, InstalledProcess& process,
                              std::function<void(Status)> done) {
  const pid_t pid = process.pid();
  if (moved.is_supplied) return done(lend(process));
  if (moved.late_pages.empty()) return done({});
  if (!pages_) {
    frozen_.erase(pid);
    return done(errno_error("its pages cannot come later", ENOTSUP));
  }
  pages_->receive({.source = sender,
                   .move = moved.move,
                   .pid = pid,
                   .userfaultfd = process.take_userfaultfd(),
                   .ranges = moved.late_pages,
                   .waits_for_begin = true,
                   .may_run =
                       [this, pid, done](Status complete) {
                         log_trace("image", "body {}: may run", pid);
                         if (!complete) frozen_.erase(pid);
                         done(std::move(complete));
                       },
                   .all_here =
                       [pid](Status all) {
                         log_trace("image", "body {}: all pages are here", pid);
                         if (!all) log_warn("image", "body {}: {}", pid, all.error().message());
                       }});
}

Status ImageBodies::lend(InstalledProcess& process) {
  UniqueFd userfaultfd = process.take_userfaultfd();
  if (!userfaultfd) return {};  // all comes before it runs
  const pid_t pid = process.pid();
  auto touched = process.touch_first_pages();
  touched ? pages_->lend(pid, std::move(userfaultfd)) : void(frozen_.erase(pid));
  return touched;
}

InstalledProcess::AfterThaw ImageBodies::thaw(pid_t pid) {
  auto found = frozen_.extract(pid);
  if (found.empty()) return InstalledProcess::AfterThaw::kRuns;
  log_trace("image", "body {}: to be thawed", pid);
  // One that has died is told of as every body's end is.
  if (auto thawed = found.mapped().process->thaw(); !thawed)
    log_warn("image", "body {}: {}", pid, thawed.error().message());
  log_trace("image", "body {}: thawed", pid);
  if (pages_) pages_->begin(pid);
  is_young(0);  // forgets the others
  young_[pid] = std::chrono::steady_clock::now();
  return found.mapped().process->after_thaw();
}

std::vector<pid_t> ImageBodies::sent_by(NodeId sender) const {
  std::vector<pid_t> pids;
  for (const auto& [pid, frozen] : frozen_)
    if (frozen.sender == sender) pids.push_back(pid);
  return pids;
}

bool ImageBodies::is_young(pid_t pid) {
  const auto oldest = std::chrono::steady_clock::now() - kYouth;
  std::erase_if(young_, [&](const auto& entry) { return entry.second < oldest; });
  return young_.contains(pid);
}

}  // namespace krg
