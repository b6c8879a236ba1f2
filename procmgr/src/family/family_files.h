// FamilyFiles: what the descriptors of a stopped family's members on this node lead to: each open
// file once, whoever has it by whatever numbers; and what those of other nodes have whose
// descriptions are here. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "event_fds.h"
#include "family/family_piece.h"
#include "family/saved_file.h"
#include "ipc/native_ipc.h"
#include "krg/procmgr/descriptors.h"
#include "krg/procmgr/family_capture.h"
#include "krg/procmgr/ipc.h"
#include "krg/procmgr/process_family.h"
#include "krg/procmgr/shared_memory.h"
#include "process_fds.h"

namespace krg {

class FamilyFiles {
 public:
  // `asker`: a process apart, which is held for ended; 0: none.
  FamilyFiles(const FamilyCaptureParts& parts, pid_t asker)
      : is_served_(parts.is_served),
        descriptors_(parts.descriptors),
        ipc_(parts.ipc),
        shared_(parts.shared_memory()),
        stream_of_(parts.stream_of),
        asker_(asker) {}

  // Takes in the descriptors and locks of a member that is stopped, parents first; but `not_its`, a
  // number that krgd has put there. Errors: ESRCH, ENOTSUP.
  Status add(FamilyMember& member, int not_its = -1);
  // Those of the files whose descriptions are at another node, or that members here have as if so.
  std::vector<StreamUse> streams() const;
  // Takes in what a member of another node, or one here, has by a stream of this node. Its number.
  // Errors: ESTALE.
  Result<uint32_t> add(const StreamUse& use);
  // POSIX queues of this node's kernel that they have open, as FamilyFile::pipe numbers them.
  std::vector<NativePosixQueue> take_queues() { return std::move(queues_); }
  // When all have been added: describes the files and empties pipes into `into`, leaving their
  // contents where they are. `members`: of the whole family. Errors: ENOTSUP with the reason why
  // one cannot be had again.
  Status describe(const std::set<pid_t>& members, FamilyDescription& into);
  // Files that a member's mappings may write: nothing tells for certain that they have not.
  void add_mapped(const ProcessImage& image);
  // Contents of large ones without a name, `with_paths` of all that may be written to, each file
  // once, by its place in `described`, which is told. Errors: those of SavedFile::take().
  Result<std::map<uint32_t, SavedFile>> save(const SavedSince& since, bool with_paths,
                                             FamilyDescription& described) const;

 private:
  struct Open {
    StolenFd fd;
    pid_t first_owner;
    int standard = -1;                                       // as which of 0, 1 and 2 it is had
    std::optional<Descriptors::Home> home = {};              // its description is there
    std::optional<Descriptors::RelayedSocket> relayed = {};  // a socket there
    SocketRelay relay = {};                                  // of a socket that is used elsewhere
    bool is_relayed = false;
    bool is_apart = false;  // has an offset of its own, and is no other one's description
    uint32_t flock = 0;     // FamilyFile's
    std::vector<FamilyLock> locks = {};
  };
  struct PipeEnds {
    const Open* reader = nullptr;
    const Open* writer = nullptr;
    uint32_t number = 0;  // of ProcessFamily::pipes
  };

  Result<uint32_t> index_of(StolenFd fd, pid_t owner);
  Status add_locks(FamilyMember& member, const FamilyFd& fd);
  Result<FamilyFile> describe_one(const Open& open, const std::set<pid_t>& members,
                                  OthersDescriptors& outside, FamilyDescription& into);
  Status describe_deleted(const StolenFd& fd, FamilyFile& file);
  const Open* master_of(uint32_t number) const;
  Result<FamilyFile> describe_master(const Open& open, FamilyFile file) const;
  Result<FamilyFile> describe_event(const Open& open, FamilyFile file, OthersDescriptors& outside);
  Result<FamilyFile> describe_inotify(const Open& open, FamilyFile file,
                                      const std::set<pid_t>& members, OthersDescriptors& outside);
  Result<FamilyFile> describe_pidfd(const Open& open, FamilyFile file,
                                    const std::set<pid_t>& members) const;
  Result<uint32_t> find_watched(const Open& epoll, const PolledFd& polled, uint32_t place) const;
  Result<FamilyFile> describe_queue(const Open& open, FamilyFile file);
  Result<FamilyFile> describe_socket(const Open& open, FamilyFile file, FamilyDescription& into);
  bool is_krgds(ino_t peer) const;
  int standard_of(const StolenFd& fd) const;
  Status add_relay(Open& open, const StreamUse& use) const;
  Status describe_pipe(const Open& open, FamilyFile& file, std::vector<FamilyPipe>& pipes);
  Result<PipeEnds*> pipe_of(const Open& open, std::vector<FamilyPipe>& pipes);
  uint32_t insert(Open open);
  bool is_same(const Open& known, const StolenFd& fd,
               const std::optional<Descriptors::Home>& home) const;
  bool is_held_outside(const Open& open, const std::set<pid_t>& members);

  std::function<bool(dev_t)> is_served_;
  const Descriptors* descriptors_;
  const Ipc* ipc_;
  const SharedMemory* shared_;  // null: nodes share none
  std::function<int(dev_t, ino_t, bool)> stream_of_;
  pid_t asker_;
  std::vector<Open> opens_;
  std::map<pid_t, std::vector<FamilyFd>> fds_;  // of each member
  std::vector<NativePosixQueue> queues_;
  std::set<std::pair<dev_t, ino_t>> mapped_;  // of add_mapped()
  std::set<std::string> mapped_memories_;     // likewise, by name
  std::set<std::string> deleted_;             // of describe_deleted(), by name
  std::vector<UniqueFd> to_close_;            // of describe_inotify()
  std::vector<std::pair<ino_t, PipeEnds>> pipes_;
  std::optional<std::set<std::string>> outside_;  // links of what others have open
};

}  // namespace krg
