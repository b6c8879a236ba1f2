// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/process_copy.h"

#include <algorithm>
#include <csignal>

#include "image/image_capture.h"
#include "image/install_parts.h"
#include "process_spec.h"

namespace krg {
namespace {

// Timers that signal one thread signal its copy.
void rename_threads(ProcessImage& copy, const std::vector<pid_t>& originals) {
  for (ImageTimer& timer : copy.timers) {
    const auto found = std::find(originals.begin(), originals.end(), timer.thread);
    if (found != originals.end())
      timer.thread = copy.threads[static_cast<size_t>(found - originals.begin())].tid;
  }
}

Status complete(FrozenProcess& copy, ProcessImage& image) {
  std::vector<pid_t> originals;
  for (ImageThread& thread : image.threads) {
    originals.push_back(thread.tid);
    thread.pending.clear();
  }
  image.threads.front().tid = copy.pid();
  image.threads.front().rseq = 0;  // it has that already, as a fork's child
  if (auto made = copy_threads(copy, image); !made) return made;
  rename_threads(image, originals);
  if (auto made = install_timers(copy, image); !made) return made;
  if (auto done = finish_threads(copy, image); !done) return done;
  if (auto started = start_timers(copy, image); !started) return started;
  // Before it is let go: it is stopped before its first instruction.
  if (image.stop_signal != 0) ::kill(copy.pid(), SIGSTOP);
  return {};
}

}  // namespace

Result<std::shared_ptr<FrozenProcess>> copy_process(FrozenProcess& original, int session_mount_ns) {
  auto image = capture_image(original, session_mount_ns);
  if (!image) return image.error();
  // krgd would wait for the fork, which waits until krgd has heard of it from the userfaultfd.
  if (std::any_of(image->mappings.begin(), image->mappings.end(),
                  [](const ImageMapping& m) { return m.kind == ImageMapping::Kind::kShared; }))
    return cannot_move("memory that it shares with other nodes");
  auto copy = original.fork(RemoteAddr{image->threads.front().tid_address});
  if (!copy) return copy.error();
  if (auto completed = complete(**copy, *image); !completed) {
    (*copy)->kill();
    return completed.error();
  }
  return copy;
}

}  // namespace krg
