// ProcessNotes: what is noted of processes by pid; a note ends with its process, whose number
// another one may get. Threads: one at a time. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <utility>

#include "krg/procmgr/process_table.h"

namespace krg {

// What is not noted is Note{}, and noting that forgets. REQUIRES: the processes, or their shadows,
// are this node's.
template <class Note>
class ProcessNotes {
 public:
  void set(pid_t pid, Note note) {
    std::erase_if(notes_, [](const auto& one) { return is_over(one); });
    notes_.erase(pid);
    if (note != Note{}) notes_[pid] = {process_start_time(pid), std::move(note)};
  }
  Note of(pid_t pid) const {
    const auto found = notes_.find(pid);
    return found == notes_.end() || is_over(*found) ? Note{} : found->second.second;
  }

 private:
  using Notes = std::map<pid_t, std::pair<uint64_t, Note>>;  // with start times
  static bool is_over(const typename Notes::value_type& one) {
    return process_start_time(one.first) != one.second.first;
  }

  Notes notes_;
};

}  // namespace krg
