// ImageBodies: the bodies of this node that are made of images, from their request until they run.
// Until it is thawed such a body does not execute an instruction: the process that it is a copy of
// may still go on where it is.
//
// Threads: the loop's thread. Owned by BodyHost.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "body_spawner.h"
#include "image/image_installer.h"
#include "image/moved_process.h"
#include "krg/procmgr/page_moves.h"
#include "krg/procmgr/sleep_book.h"
#include "userfault_source.h"

namespace krg {

class ImageBodies {
 public:
  struct Request {
    NodeId sender;
    MovedProcess moved;
    std::vector<ImportedFd> fds;
    int uts_ns = -1;             // the job's; -1: krgd's own
    bool has_children = false;   // at its origin
    ShadowHost* home = nullptr;  // not null: its shadow is here and becomes it
    // Runs as soon as the process exists; not when it comes home.
    std::function<void()> on_created;
  };

  // `pages` may be null: then only processes whose pages have all been sent along can be had.
  // `shared` too: then only those that share no memory with other nodes.
  ImageBodies(NodeContext& node, BodySpawner& spawner, PageMoves* pages, SharedMemory* shared,
              SleepBook* sleeps);

  // `done`: it is all there, but for the order to run. Errors: those of ImageInstaller::install().
  void install(Request request, std::function<void(Status)> done);
  // A body that is not known (any more) is no error: it has ended. One that stops may yet go on,
  // when a SIGCONT comes before.
  InstalledProcess::AfterThaw thaw(pid_t pid);
  // Those that wait for their thaw and were sent by that node.
  std::vector<pid_t> sent_by(NodeId sender) const;
  // Whether it was thawed a moment ago.
  bool is_young(pid_t pid);

 private:
  static Status write_contents(InstalledProcess& process, const MovedProcess& moved);

  void bring_pages(NodeId sender, const MovedProcess& moved, InstalledProcess& process,
                   std::function<void(Status)> done);

  Status lend(InstalledProcess& process);

  NodeContext& node_;
  PageMoves* const pages_;
  SharedMemory* const shared_;
  SleepBook* const sleeps_;
  ImageInstaller installer_;
  std::optional<UserfaultSource> userfaults_;  // none: all pages come before the thaw
  struct Frozen {
    NodeId sender;
    std::unique_ptr<InstalledProcess> process;
  };
  std::map<pid_t, Frozen> frozen_;
  std::map<pid_t, std::chrono::steady_clock::time_point> young_;  // and when they were thawed
};

}  // namespace krg
