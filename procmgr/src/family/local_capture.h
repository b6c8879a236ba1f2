// LocalCapture: one node's part in a capture of a family (family_capture.h): stops those of its
// members that execute here, tells what they are, and has their memory until it goes.
//
// Threads: the loop's thread. Owned by FamilyCaptures. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "family/family_files.h"
#include "family/family_ipc.h"
#include "family/family_memory.h"
#include "family/family_messages.h"
#include "family/family_piece.h"
#include "family/member_pages.h"
#include "family/memory_copies.h"
#include "image/frozen_process.h"
#include "image/known_mappings.h"
#include "krg/procmgr/family_capture.h"
#include "krg/procmgr/live_pages.h"
#include "spread/early_pages.h"
#include "spread/standing_spread.h"

namespace krg {

class LocalCapture : public std::enable_shared_from_this<LocalCapture> {
 public:
  using Found = std::vector<family_messages::FoundProcess>;
  using EarlyByMember = std::map<pid_t, std::shared_ptr<EarlyPages>>;

  LocalCapture(FamilyCaptureParts parts, const family_messages::FamilyFreeze& ask);

  // The family's processes that this node knows of: `known` and their descendants; their mappings
  // are read, if they are to be taken.
  Found look(const std::vector<pid_t>& known, bool only_watches);
  // The same, and all of them stand. Errors: as FamilyCaptures::capture().
  void freeze(const std::vector<pid_t>& known, std::function<void(Result<Found>)> done);
  // Runs when this node's shadows of the family have passed on what was sent to them.
  void flush(std::function<void()> done, int tries = kFlushTries);
  // Large members are to be watched when they have gone on (live_pages.h). REQUIRES: they stand.
  void watch_large(std::function<void()> done);
  // What was written of these is known from now on; tells how much may be saved while they run.
  // Pages of spread ones have been read then.
  void protect_large(std::function<void(uint64_t bytes)> done);
  // Pages of spread members, when protect_large() has ended; once.
  EarlyByMember take_early() { return std::exchange(early_, {}); }
  // Null: protect_large() has not ended.
  std::shared_ptr<LivePages> live() const { return live_; }
  // `done` may run later. `live`: what was saved since `base`, if that was no capture. `early`: its
  // members' are taken out. REQUIRES: they stand.
  void take(uint64_t base, std::shared_ptr<const LivePages> live, EarlyByMember& early,
            std::function<void(Result<FamilyPiece>)> done);
  Result<FamilyDescription> describe(const family_messages::FamilyDescribe& ask,
                                     const std::set<pid_t>& members,
                                     const std::vector<StreamUse>& uses);
  // Of memory that nodes share. Errors: ENOTSUP: they share none.
  Result<std::shared_ptr<MemoryCopies>> begin_memory();
  // Errors: ESRCH: begin_memory() was not called.
  Result<std::shared_ptr<MemoryCopies>> memory() const;
  void thaw();
  // Those that stand never run again.
  void kill_all();

  Result<std::shared_ptr<FamilySnapshot>> snapshot(ProcessFamily family);

 private:
  static constexpr int kFlushTries = 200;
  struct Member {
    std::shared_ptr<FrozenProcess> process;  // null: not frozen yet
    std::vector<ProcessTable::Claim> claim;  // one, or none
    std::shared_ptr<StandingSpread> spread;  // null: an ordinary process
  };
  // What has been taken of a member.
  struct Taken {
    std::string image;
    std::unique_ptr<MemberPages> pages;
  };

  // A large member.
  struct Watched {
    LivePages::Member member;
    std::shared_ptr<WrittenPages> by;
  };

  bool is_large(pid_t pid) const;
  void watch_ordinary();
  void begin_early(std::set<pid_t> left, std::function<void()> done);
  void read_early(std::set<pid_t> left, std::function<void()> done);
  void protect_watched(std::function<void(uint64_t bytes)> done);
  void add_known(pid_t pid);
  void add_children_of(pid_t pid);
  void add_orphans();
  bool is_orphan(pid_t child) const;
  void read_mappings_of(pid_t pid);
  void freeze_one(pid_t pid);
  bool is_behind_its_parent(pid_t pid) const;
  void try_to_freeze(pid_t pid, int tries);
  void freeze_children_of(pid_t pid);
  bool has_signals_on_their_way() const;
  Status check(pid_t pid) const;
  void on_frozen(pid_t pid, Result<std::shared_ptr<FrozenProcess>> frozen);
  bool has_gone(pid_t pid);
  void forget_gone();
  void fail(Error why);
  void one_less();
  Found found() const;
  family_messages::FoundAs state_of(pid_t pid) const;
  Result<FamilyPlace> place_of(pid_t pid) const;
  void on_standing(pid_t pid, Result<std::shared_ptr<StandingSpread>> standing);
  Result<FamilyPiece> take_all();
  Status take_member(pid_t pid, FamilyMember& member);
  Status take_ipc(const std::set<pid_t>& members, FamilyDescription& description);
  Status name_shared_memory(ProcessImage& image);
  std::vector<OthersMemory> memories_of(const std::set<pid_t>& others) const;
  Status take_pages(pid_t pid, const ProcessImage& image);
  // Of members that are spread, one after the other.
  void copy_next(std::set<pid_t> left, std::function<void(Status)> done);
  Status take_shared_memory(const std::vector<FamilyMember>& members);

  const FamilyCaptureParts parts_;
  const pid_t root_, asker_;
  const uint32_t job_;  // whose orphans are members; 0: none's
  const uint64_t number_;
  uint64_t base_ = 0;
  std::shared_ptr<const LivePages> saved_live_;  // of `base_`
  std::vector<Watched> watched_;
  EarlyByMember early_;  // that is to be read, or has been
  std::shared_ptr<LivePages> live_;
  std::set<pid_t> known_;  // that are here, in whatever way
  std::map<pid_t, Member> members_;
  std::map<pid_t, MappingTexts> mappings_;  // as they were before
  unsigned freezing_ = 0;
  std::optional<Error> failure_;
  std::function<void(Result<Found>)> done_;
  std::shared_ptr<void> sockets_;  // of bodies: nothing goes home
  FamilyFiles files_;
  FamilyMemory shared_;
  FamilyIpc ipc_;
  std::map<pid_t, Taken> taken_;
  std::set<uint64_t> mapped_;               // files of the memory that nodes share
  std::shared_ptr<MemoryCopies> memories_;  // null: not asked for
  FamilyDescription described_;             // with contents
  std::map<uint32_t, SavedFile> saved_;     // by place in `described_`
};

}  // namespace krg
