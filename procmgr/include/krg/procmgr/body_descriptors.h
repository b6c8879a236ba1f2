// BodyDescriptors: what placement asks of descriptors.h, as a seam: tests bring their own.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "krg/procmgr/descriptors.h"

namespace krg {

// See Descriptors for what each of them promises.
class BodyDescriptors {
 public:
  virtual ~BodyDescriptors() = default;
  virtual void export_fds(pid_t pid, WhichFds which,
                          std::function<void(Result<std::vector<ExportedFd>>)> done) = 0;
  virtual void cancel_export(const std::vector<ExportedFd>& fds) = 0;
  virtual void resume_sockets(const std::vector<ExportedFd>&) {}
  virtual void import_fds(pid_t pid, std::vector<ExportedFd> fds,
                          std::function<void(Result<std::vector<ImportedFd>>)> done) = 0;
  virtual void body_ended(pid_t pid, std::function<void()> done) = 0;
};

// REQUIRES: `descriptors` outlives it.
std::unique_ptr<BodyDescriptors> body_descriptors_of(Descriptors& descriptors);

}  // namespace krg
