// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/image_bodies.h"

#include "krg/runtime/log.h"

namespace krg {
namespace {

constexpr std::chrono::milliseconds kYouth{30};

}  // namespace

void ImageBodies::install(Request request, std::function<void(Status)> done) {
  auto moved = std::make_shared<MovedProcess>(std::move(request.moved));
  ImageInstaller::Request wanted;
  wanted.image = moved->image;
  wanted.fds = std::move(request.fds);
  wanted.uts_ns = request.uts_ns;
  wanted.has_children = request.has_children;
  wanted.origin_keeps_signals = request.origin_keeps_signals;
  wanted.on_created = std::move(request.on_created);
  installer_.install(std::move(wanted), [this, moved, done = std::move(done)](
                                            Result<std::unique_ptr<InstalledProcess>> installed) {
    if (!installed) return done(installed.error());
    if (auto all = write_contents(**installed, *moved); !all) return done(all);
    const pid_t pid = (*installed)->pid();
    (*installed)->on_end([this, pid] { frozen_.erase(pid); });
    frozen_.insert_or_assign(pid, std::move(*installed));
    done({});
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

void ImageBodies::thaw(pid_t pid) {
  auto found = frozen_.extract(pid);
  if (found.empty()) return;
  // One that has died is told of as every body's end is.
  if (auto thawed = found.mapped()->thaw(); !thawed)
    log_warn("image", "body {}: {}", pid, thawed.error().message());
  is_young(0);  // forgets the others
  young_[pid] = std::chrono::steady_clock::now();
}

bool ImageBodies::is_young(pid_t pid) {
  const auto oldest = std::chrono::steady_clock::now() - kYouth;
  std::erase_if(young_, [&](const auto& entry) { return entry.second < oldest; });
  return young_.contains(pid);
}

}  // namespace krg
