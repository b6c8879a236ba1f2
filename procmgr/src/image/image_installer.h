// ImageInstaller: makes a process of a ProcessImage, with the same pid: BodySpawner starts the
// image's program as a body, which is held when it has execed, before its first instruction; system
// calls that it runs for krgd then give it the image's mappings, threads and state. Its pages come
// afterwards, its first instruction when it is thawed.
//
// Threads: the loop's thread; files are looked up by a worker. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "body_spawner.h"
#include "image/frozen_process.h"
#include "image/process_image.h"

namespace krg {

// A process that has all that its image says but contents of pages. Killed when it goes without
// having been thawed.
class InstalledProcess {
 public:
  ~InstalledProcess();
  InstalledProcess(const InstalledProcess&) = delete;
  InstalledProcess& operator=(const InstalledProcess&) = delete;

  pid_t pid() const { return process_->pid(); }
  bool is_alive() const { return process_->is_alive(); }
  FrozenProcess& process() { return *process_; }
  void on_end(std::function<void()> ended) { process_->on_end(std::move(ended)); }

  // A userfaultfd over all private anonymous memory of the image, for pages that come after the
  // thaw; the process has no descriptor of it. Not registered with any range yet: the caller
  // registers those. Errors: of userfaultfd(2): EPERM: faults of its system calls could not be
  // served: all pages must be written before the thaw.
  Result<UniqueFd> make_userfaultfd(int device);

  // Contents of pages, also of such as the program may only read.
  Status write_pages(RemoteAddr to, std::span<const char> bytes) {
    return process_->write(to, bytes);
  }

  // It is the image's process from now on, and runs (or is stopped, if it was). Errors: it has died
  // or is killed.
  Status thaw();

 private:
  friend class ImageInstall;
  InstalledProcess(std::shared_ptr<FrozenProcess> process, ProcessImage image)
      : process_(std::move(process)), image_(std::move(image)) {}

  std::shared_ptr<FrozenProcess> process_;
  ProcessImage image_;
  bool is_thawed_ = false;
};

class ImageInstaller {
 public:
  struct Request {
    ProcessImage image;
    std::vector<ImportedFd> fds;
    int uts_ns = -1;  // the job's; -1: krgd's own
    // Runs as soon as the process exists.
    std::function<void()> on_created;
  };
  using Installed = std::function<void(Result<std::unique_ptr<InstalledProcess>>)>;

  ImageInstaller(NodeContext& node, BodySpawner& spawner) : node_(node), spawner_(spawner) {}

  // The pid is that of the image's main thread. Errors: EEXIST: it is taken here; ESTALE: a file
  // that it has mapped is another one here; ENOTSUP: this kernel's vdso is another one; others of
  // its start. The process, if there was one, is killed then.
  void install(Request request, Installed done);

 private:
  NodeContext& node_;
  BodySpawner& spawner_;
};

}  // namespace krg
