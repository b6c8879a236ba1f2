// FamilyFiles: what the descriptors of a stopped family lead to: each open file once, whoever has
// it by whatever numbers. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "krg/procmgr/process_family.h"
#include "process_fds.h"

namespace krg {

class FamilyFiles {
 public:
  // `is_served`: by krgd itself. `asker`: a process apart, which is held for ended; 0: none.
  FamilyFiles(std::function<bool(dev_t)> is_served, pid_t asker)
      : is_served_(std::move(is_served)), asker_(asker) {}

  // Takes in the descriptors and locks of a member that is stopped, parents first. Errors: ESRCH,
  // ENOTSUP.
  Status add(FamilyMember& member);
  // When all have been added: describes the files and empties pipes into the family, leaving their
  // contents where they are. Errors: ENOTSUP with the reason why one cannot be had again.
  Status describe(ProcessFamily& family);

 private:
  struct Open {
    StolenFd fd;
    pid_t first_owner;
    int standard = -1;  // by which number of 0, 1 and 2 it is had
  };
  struct PipeEnds {
    const Open* reader = nullptr;
    const Open* writer = nullptr;
    uint32_t number = 0;  // of ProcessFamily::pipes
  };

  uint32_t index_of(StolenFd fd, pid_t owner);
  Status add_locks(FamilyMember& member, const FamilyFd& fd);
  Result<FamilyFile> describe_one(const Open& open, ProcessFamily& family);
  Status describe_pipe(const Open& open, FamilyFile& file, ProcessFamily& family);
  Result<PipeEnds*> pipe_of(const Open& open, ProcessFamily& family);
  bool is_held_outside(const Open& open, const std::set<pid_t>& members) const;

  std::function<bool(dev_t)> is_served_;
  pid_t asker_;
  std::vector<Open> opens_;
  std::vector<uint32_t> flocks_;  // of each
  std::vector<std::pair<ino_t, PipeEnds>> pipes_;
};

}  // namespace krg
