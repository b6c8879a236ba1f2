// PathDescriptors: descriptors for tests of placement alone: those that are had elsewhere by
// opening their path again (memory devices, directories, files that are only appended to).
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/body_descriptors.h"

namespace krg {

class PathDescriptors : public BodyDescriptors {
 public:
  void export_fds(pid_t pid, WhichFds which,
                  std::function<void(Result<std::vector<ExportedFd>>)> done) override;
  void cancel_export(const std::vector<ExportedFd>&) override {}
  void import_fds(pid_t pid, std::vector<ExportedFd> fds,
                  std::function<void(Result<std::vector<ImportedFd>>)> done) override;
  void body_ended(pid_t, std::function<void()> done) override { done(); }
};

}  // namespace krg
