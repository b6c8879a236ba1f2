// ImageInstaller: makes a process of a ProcessImage, with the same pid: BodySpawner starts the
// image's program as a body, which is held when it has execed, before its first instruction (so
// that its program, name and privileges are those of an exec). System calls that it runs for krgd
// then give it the image's mappings, threads and state. Its pages come afterwards, its first
// instruction when it is thawed.
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

class ShadowHost;
class SharedMemory;
class UserfaultSource;

// A process that has all that its image says but contents of pages. When this goes without having
// been thawed it is killed, or the shadow again that it was.
class InstalledProcess {
 public:
  ~InstalledProcess();
  InstalledProcess(const InstalledProcess&) = delete;
  InstalledProcess& operator=(const InstalledProcess&) = delete;

  pid_t pid() const { return process_->pid(); }
  // What comes of one that is thawed: one that was stopped by job control stops anew as soon as it
  // runs; or it goes on, because a SIGCONT came meanwhile.
  enum class AfterThaw { kRuns, kStops, kGoesOn };
  AfterThaw after_thaw() const { return after_thaw_; }
  bool is_alive() const { return process_->is_alive(); }
  // Runs when it dies before it is thawed (once; may drop this).
  void on_end(std::function<void()> ended) { process_->on_end(std::move(ended)); }

  // A userfaultfd of its memory, for pages that come after the thaw; the process has no descriptor
  // of it, nor is it registered with any range, nor has UFFDIO_API been called. Invalid when none
  // was asked for.
  UniqueFd take_userfaultfd() { return std::move(userfaultfd_); }

  // Whatever pages_before_thaw() tells is there, so that nobody waits for what has no content.
  // Errors: EFAULT, ESRCH.
  Status touch_first_pages() const;

  // Contents of pages, also of such as the program may only read. Errors: EFAULT, ESRCH.
  Status write_pages(RemoteAddr to, std::span<const char> bytes) {
    return process_->write(to, bytes);
  }

  // The process as it is, frozen, for who does something else with it than thaw it.
  std::shared_ptr<FrozenProcess> take_process() { return std::move(process_); }

  // It is the image's process from now on, and runs (or is stopped, if it was).
  // REQUIRES: the pages of pages_before_thaw() have their contents. Errors: it has died, or is
  // killed by this.
  Status thaw();
  // The same, but that it stands: frozen, to be let go. Errors: as thaw().
  Result<std::shared_ptr<FrozenProcess>> complete();

 private:
  friend class Installation;
  friend class ImageInstaller;
  InstalledProcess(std::shared_ptr<FrozenProcess> process, ProcessImage image, ShadowHost* home)
      : process_(std::move(process)), image_(std::move(image)), home_(home) {}
  // A page that is written before the userfaultfd serves its memory must not bring its neighbours
  // along as zeros, as a huge page would: they could not come any more. Until finish().
  Status hold_huge_pages_back();
  Status finish();

  std::shared_ptr<FrozenProcess> process_;
  ProcessImage image_;
  ShadowHost* const home_;
  UniqueFd userfaultfd_;
  bool origin_keeps_signals_ = false;
  bool holds_huge_pages_back_ = false;
  bool has_thawed_ = false;
  AfterThaw after_thaw_ = AfterThaw::kRuns;
};

// What the kernel itself touches when the process is thawed: the starts of pages, in order. These
// cannot come later by userfaultfd, which the loop would have to serve while it waits.
std::vector<RemoteAddr> pages_before_thaw(const ProcessImage& image);

class ImageInstaller {
 public:
  struct Request {
    ProcessImage image;
    std::vector<ImportedFd> fds;
    int uts_ns = -1;            // the job's; -1: krgd's own
    bool has_children = false;  // at its origin (BodySpawner)
    bool own_session = false;   // BodySpawner
    // Signals that waited for the process or its main thread are passed on by its shadow, which
    // keeps them when it execs.
    bool origin_keeps_signals = false;
    // Where a userfaultfd comes from; null: all pages are written before the thaw.
    const UserfaultSource* late_pages = nullptr;
    // Null: processes that share memory with other nodes cannot be had.
    SharedMemory* shared = nullptr;
    // Not null: its shadow is here and becomes the process, which comes home.
    ShadowHost* home = nullptr;
    // Runs as soon as the process exists; not when it comes home.
    std::function<void()> on_created = [] {};
  };
  using Installed = std::function<void(Result<std::unique_ptr<InstalledProcess>>)>;

  ImageInstaller(NodeContext& node, BodySpawner& spawner) : node_(node), spawner_(spawner) {}

  // The pid is that of the image's main thread. Errors: EEXIST: it is taken here; ESTALE: a file
  // that the process has mapped is another one here; ENOTSUP: this node's kernel or processor is
  // too different; others of its start. The process, if there was one, is killed then, or a shadow.
  void install(Request request, Installed done);

  // The same in a process that is held as it has execed, or is a copy of such a one, and that
  // lives on apart from krgd: all but its descriptors. It has the image's files open from
  // `first_file` on, and may choose its threads' ids. `program`: the descriptor of the image's
  // program where it runs another one; -1: it runs it. `has_late_pages`: it has a userfaultfd.
  // Signals that waited are queued anew. `maps_more`: maps memory that nodes share.
  using MapsMore = std::function<Status(FrozenProcess&, const ProcessImage&)>;
  static Result<std::unique_ptr<InstalledProcess>> install_into(
      std::shared_ptr<FrozenProcess> process, ProcessImage image, int first_file, int program,
      bool has_late_pages = false, const MapsMore& maps_more = {});

 private:
  NodeContext& node_;
  BodySpawner& spawner_;
};

}  // namespace krg
