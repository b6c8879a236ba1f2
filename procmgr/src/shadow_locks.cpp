// The locks by fcntl(2) of processes that have left: their shadows hold them. A shadow has the
// descriptor table of the process that it was, so the kernel takes its locks for the process's:
// they stay through the exec while no file of theirs is closed, others are told the right pid, and
// they end with the shadow. Later ones are made on files that it is sent.
//
// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/stat.h>

#include "krg/runtime/log.h"
#include "process_fds.h"
#include "shadow_host_impl.h"

namespace krg {

std::vector<ShadowFile> ShadowHost::Impl::files_kept(pid_t pid, const std::vector<int>& numbers) {
  std::vector<ShadowFile> files;
  for (int number : numbers)
    if (auto file = fd_identity(pid, number))
      files.push_back({file->device, file->inode, ShadowFile::kForNoMore, number});
  return files;
}

bool ShadowHost::holds_for(pid_t pid) const {
  const Impl::Hosted* shadow = impl_->find(pid);
  return shadow && !shadow->is_ending && !shadow->is_returning;
}

void ShadowHost::lock(pid_t pid, int file, int command, const RecordLock& lock, Done done) {
  Impl::Hosted* shadow = impl_->find(pid);
  struct stat attributes {};
  if (!holds_for(pid) || fstat(file, &attributes) != 0) return done(errno_error("shadow", ENOLCK));
  const int access_mode = fcntl(file, F_GETFL) & O_ACCMODE;
  const ShadowFile* known = nullptr;
  for (const ShadowFile& kept : shadow->files)
    if (kept.device == attributes.st_dev && kept.inode == attributes.st_ino &&
        kept.access_mode == access_mode)
      known = &kept;
  ShadowCommand order{ShadowVerb::kLock, known ? known->number : kSentFile, command, lock.type};
  order.start = lock.start;
  order.length = lock.length;
  shadow->answers.push_back([this, pid, attributes, access_mode, is_new = !known,
                             done = std::move(done)](const ShadowReport& answer) {
    Impl::Hosted* still = impl_->find(pid);
    if (is_new && still && answer.signal >= 0 && answer.kind == ShadowReport::kAnswer)
      still->files.push_back({attributes.st_dev, attributes.st_ino, access_mode, answer.signal});
    if (answer.result < 0) return done(errno_error("fcntl", -answer.result));
    done(RecordLock{static_cast<int64_t>(answer.usage[0]), static_cast<int64_t>(answer.usage[1]),
                    answer.code, answer.sender});
  });
  if (!shadow->shadow->command(order, known ? -1 : file))
    log_debug("exec", "shadow {} has gone already", pid);
}

// Closing a file lets go of all locks that the process has of it.
void ShadowHost::let_go(pid_t pid, int file) {
  Impl::Hosted* shadow = impl_->find(pid);
  struct stat attributes {};
  if (!holds_for(pid) || fstat(file, &attributes) != 0) return;
  std::erase_if(shadow->files, [&](const ShadowFile& kept) {
    if (kept.device != attributes.st_dev || kept.inode != attributes.st_ino) return false;
    if (!shadow->shadow->command(ShadowVerb::kCloseFile, kept.number))
      log_debug("exec", "shadow {} has gone already", pid);
    return true;
  });
}

bool ShadowHost::executes_here(pid_t pid) const {
  return impl_->table.find_body(pid) ||
         (impl_->table.is_at_home(GlobalPid{pid}) && !impl_->table.find_shadow(pid));
}

NodeId ShadowHost::home_of(pid_t pid) const {
  return impl_->table.home_of(GlobalPid{pid});
}

}  // namespace krg
