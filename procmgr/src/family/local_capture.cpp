// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/local_capture.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>

#include "family/written_pages.h"
#include "image/image_capture.h"
#include "image/served_memory.h"
#include "krg/procmgr/job_namespaces.h"
#include "krg/procmgr/process_identity.h"
#include "krg/runtime/run_after.h"
#include "native_children.h"
#include "process_spec.h"
#include "process_status.h"
#include "whole_file.h"

namespace krg {

using namespace family_messages;

namespace {

// How long it is waited for who has a member in hand: an exec or a move elsewhere.
constexpr std::chrono::milliseconds kBusyTick{2};
constexpr int kBusyTries = 2500;
// How long shadows are waited for that have yet to pass signals on.
constexpr std::chrono::milliseconds kFlushTick{1};

Error about(pid_t pid, const Error& error) {
  return {error.code, fmt::format("process {}: {}", pid, error.context)};
}

std::string name_of(pid_t pid) {
  auto text = read_whole_file(fmt::format("/proc/{}/comm", pid));
  return text ? text->substr(0, text->find('\n')) : std::string();
}

// Of a spread process the arguments may be on another node, where the kernel does not look.
std::string command_of(pid_t pid) {
  auto text = read_whole_file(fmt::format("/proc/{}/cmdline", pid));
  if (!text) return name_of(pid);
  std::replace(text->begin(), text->end(), '\0', ' ');
  while (text->ends_with(' ')) text->pop_back();
  return text->empty() ? name_of(pid) : *text;
}

bool is_zombie(pid_t pid) {
  auto status = read_process_stat(pid);
  return status && status->is_zombie();
}

// Field 52 of /proc/PID/stat, proc(5).
int32_t wait_status_of_zombie(pid_t pid) {
  auto fields = stat_fields(pid);
  return fields ? stat_number<int32_t>(*fields, 52) : 0;
}

bool has_waiting_signals(pid_t pid) {
  auto status = StatusText::read(pid);
  return status &&
         (status->number<uint64_t>("ShdPnd", 16) | status->number<uint64_t>("SigPnd", 16));
}

}  // namespace

LocalCapture::LocalCapture(FamilyCaptureParts parts, const FamilyFreeze& ask)
    : parts_(std::move(parts)),
      root_(ask.root),
      asker_(ask.asker),
      job_(ask.job),
      number_(ask.capture),
      files_(parts_, ask.asker) {}

// ---- who they are ----

FoundAs LocalCapture::state_of(pid_t pid) const {
  if (parts_.table.find_body(pid)) return FoundAs::kBody;
  if (pid == asker_ || is_zombie(pid)) return FoundAs::kEnded;
  return parts_.table.find_shadow(pid) ? FoundAs::kShadow : FoundAs::kNative;
}

LocalCapture::Found LocalCapture::found() const {
  Found found;
  for (pid_t pid : known_) found.push_back({.pid = pid, .as = state_of(pid)});
  return found;
}

// Guardians are no places of processes: only their children count.
void LocalCapture::add_known(pid_t pid) {
  const auto* shadow = parts_.table.find_shadow(pid);
  if (parts_.table.is_hidden(pid)) return;  // the replica of one that is spread
  const bool is_guardian = shadow && shadow->is_guardian();
  if (!is_guardian && (kill(pid, 0) == 0 || errno == EPERM)) known_.insert(pid);
}

void LocalCapture::add_children_of(pid_t pid) {
  for (pid_t child : native_children(pid)) {
    if (known_.contains(child) || parts_.table.is_hidden(child)) continue;
    add_known(child);
    if (child != asker_) add_children_of(child);
  }
}

// krgd's children that nobody else has made: what was another's, who has ended. What krgd itself
// has made to read pages from is traced by it before it is anybody's member.
bool LocalCapture::is_orphan(pid_t child) const {
  if (child == root_ || child == asker_ || parts_.table.find_body(child) ||
      parts_.table.is_hidden(child) || parts_.node.jobs->job_of(child) != JobId{job_})
    return false;
  const bool is_spread =
      parts_.spread.state_of && parts_.spread.state_of(child) != SpreadMembers::State::kOrdinary;
  const auto status = StatusText::read(child);
  return status &&
         (is_spread || members_.contains(child) || status->number<pid_t>("TracerPid") != getpid());
}

void LocalCapture::add_orphans() {
  if (job_ == 0 || !parts_.node.jobs) return;
  for (pid_t child : native_children(getpid())) {
    if (known_.contains(child) || !is_orphan(child)) continue;
    add_known(child);
    add_children_of(child);
  }
}

// Not while they are served: what was forked while pages were on their way to its forker shows it
// until all of these are there.
void LocalCapture::read_mappings_of(pid_t pid) {
  if (mappings_.contains(pid)) return;
  auto texts = MappingTexts::read_smaps(pid);
  if (texts && !is_served(*texts)) mappings_[pid] = std::move(*texts);
}

LocalCapture::Found LocalCapture::look(const std::vector<pid_t>& known, bool only_watches) {
  for (pid_t pid : known) {
    add_known(pid);
    if (pid != asker_) add_children_of(pid);
  }
  add_orphans();
  auto all = found();
  for (FoundProcess& one : all) {
    if (one.as != FoundAs::kNative && one.as != FoundAs::kBody) continue;
    one.awaits_pages = parts_.pages && parts_.pages->is_receiving(one.pid);
    if (!one.awaits_pages && !only_watches) read_mappings_of(one.pid);
    one.is_large = only_watches && is_large(one.pid);
  }
  known_.clear();
  return all;
}

// ---- stopping ----

void LocalCapture::freeze(const std::vector<pid_t>& known,
                          std::function<void(Result<Found>)> done) {
  done_ = std::move(done);
  failure_.reset();
  ++freezing_;  // until all have been begun with
  forget_gone();
  for (pid_t pid : known) add_known(pid);
  add_orphans();
  for (pid_t pid : std::vector(known_.begin(), known_.end()))
    if (!is_behind_its_parent(pid)) freeze_one(pid);
  for (pid_t pid : known)  // guardians, too
    if (pid != asker_ && parts_.table.find_shadow(pid)) freeze_children_of(pid);
  run_after(parts_.node.loop, std::chrono::milliseconds(0),
            [self = shared_from_this()] { self->one_less(); });
}

void LocalCapture::forget_gone() {
  std::erase_if(known_, [&](pid_t pid) {
    return !members_.contains(pid) && kill(pid, 0) != 0 && errno == ESRCH;
  });
}

// Its parent is to stand first: one that waits in vfork(2) does when the child has execed, which a
// child that stands never does.
bool LocalCapture::is_behind_its_parent(pid_t pid) const {
  const auto stat = read_process_stat(pid);
  if (!stat || !known_.contains(stat->parent)) return false;
  const FoundAs parent = state_of(stat->parent);
  if (parent != FoundAs::kNative && parent != FoundAs::kBody) return false;
  const auto member = members_.find(stat->parent);
  return member == members_.end() || !member->second.process;
}

void LocalCapture::freeze_one(pid_t pid) {
  const FoundAs state = state_of(pid);
  if (pid == asker_ || state == FoundAs::kEnded || members_.contains(pid)) return;
  if (state == FoundAs::kShadow) return freeze_children_of(pid);
  ++freezing_;
  members_[pid];
  try_to_freeze(pid, kBusyTries);
}

void LocalCapture::freeze_children_of(pid_t pid) {
  for (pid_t child : native_children(pid)) {
    if (parts_.table.is_hidden(child)) continue;
    add_known(child);
    freeze_one(child);
  }
}

Status LocalCapture::check(pid_t pid) const {
  if (parts_.spread.state_of && parts_.spread.state_of(pid) == SpreadMembers::State::kIsBeingSpread)
    return errno_error("it is about to be spread over nodes", EBUSY);
  if (parts_.pages && parts_.pages->is_receiving(pid))
    return errno_error("its pages are still on their way", EBUSY);
  return {};
}

void LocalCapture::try_to_freeze(pid_t pid, int tries) {
  Status may = check(pid);
  if (may) {
    auto claim = parts_.table.claim(pid);
    if (claim)
      members_[pid].claim.push_back(std::move(*claim));
    else
      may = claim.error();
  }
  if (!may) {
    if (tries == 0 || may.error().errno_or(0) != EBUSY) {
      if (!has_gone(pid)) fail(about(pid, may.error()));
      return one_less();
    }
    return run_after(parts_.node.loop, kBusyTick, [self = shared_from_this(), pid, tries] {
      const FoundAs state = self->state_of(pid);
      const bool is_here = state == FoundAs::kNative || state == FoundAs::kBody;
      if (is_here && kill(pid, 0) == 0) return self->try_to_freeze(pid, tries - 1);
      // It has gone elsewhere, or has ended.
      self->members_.erase(pid);
      if (state == FoundAs::kNative) self->known_.erase(pid);
      self->one_less();
    });
  }
  members_[pid].claim.front().end_waits();
  if (parts_.spread.state_of && parts_.spread.state_of(pid) == SpreadMembers::State::kSpread)
    return parts_.spread.stand(
        pid, [self = shared_from_this(), pid](Result<std::shared_ptr<StandingSpread>> standing) {
          self->on_standing(pid, std::move(standing));
        });
  FrozenProcess::freeze(
      parts_.node.loop, *parts_.node.children, pid,
      [self = shared_from_this(), pid](Result<std::shared_ptr<FrozenProcess>> frozen) {
        self->on_frozen(pid, std::move(frozen));
      });
}

void LocalCapture::on_standing(pid_t pid, Result<std::shared_ptr<StandingSpread>> standing) {
  if (!standing) return on_frozen(pid, standing.error());
  members_[pid].spread = *standing;
  on_frozen(pid, (*standing)->process());
}

void LocalCapture::on_frozen(pid_t pid, Result<std::shared_ptr<FrozenProcess>> frozen) {
  if (frozen) {
    members_[pid].process = std::move(*frozen);
    freeze_children_of(pid);
  } else if (!has_gone(pid)) {
    fail(about(pid, frozen.error()));
  }
  one_less();
}

// A child that ended meanwhile is a zombie now, or has been waited for.
bool LocalCapture::has_gone(pid_t pid) {
  members_.erase(pid);
  if (pid == root_) return false;
  if (is_zombie(pid)) return true;
  if (read_process_stat(pid)) return false;
  known_.erase(pid);
  return true;
}

void LocalCapture::fail(Error why) {
  if (!failure_) failure_ = std::move(why);
}

void LocalCapture::one_less() {
  if (--freezing_ > 0) return;
  // Orphans of members may have become children of others, or of nobody here.
  for (pid_t pid : std::vector(known_.begin(), known_.end())) {
    if (failure_) break;
    if (members_.contains(pid))
      freeze_children_of(pid);
    else if (!is_behind_its_parent(pid))
      freeze_one(pid);
  }
  if (freezing_ > 0) return;
  forget_gone();  // a zombie that its parent waited for before it stood itself
  auto done = std::exchange(done_, nullptr);
  if (!done) return;
  failure_ ? done(*failure_) : done(found());
}

bool LocalCapture::has_signals_on_their_way() const {
  return std::any_of(known_.begin(), known_.end(), [&](pid_t pid) {
    return parts_.table.find_shadow(pid) && has_waiting_signals(pid);
  });
}

// What a shadow has taken up it says at once: within a tick it is heard.
void LocalCapture::flush(std::function<void()> done, int tries) {
  if (parts_.descriptors && !sockets_) sockets_ = parts_.descriptors->hold_sockets();
  const bool has_shadows = std::any_of(known_.begin(), known_.end(), [&](pid_t pid) {
    return parts_.table.find_shadow(pid) != nullptr;
  });
  if (!has_shadows || tries == 0) return done();
  const bool waits = has_signals_on_their_way();
  run_after(parts_.node.loop, kFlushTick,
            [self = shared_from_this(), done = std::move(done), waits, tries] {
              waits ? self->flush(done, tries - 1) : done();
            });
}

void LocalCapture::thaw() {
  sockets_.reset();
  members_.clear();
}

void LocalCapture::kill_all() {
  for (const auto& [pid, member] : members_)
    if (member.process) member.process->kill();
}

// ---- what they are ----

Result<FamilyPlace> LocalCapture::place_of(pid_t pid) const {
  auto identity = process_identity(parts_.table, pid);
  if (!identity) return identity.error();
  FamilyPlace place{pid, pid == root_ ? 0 : identity->parent, identity->group, identity->session};
  if (state_of(pid) == FoundAs::kEnded)
    place.wait_status = pid == asker_ ? 0 : wait_status_of_zombie(pid);
  name_of(pid).copy(place.name.data(), place.name.size() - 1);
  return place;
}

// They may stand for more than one.
void LocalCapture::take(uint64_t base, std::shared_ptr<const LivePages> live, EarlyByMember& early,
                        std::function<void(Result<FamilyPiece>)> done) {
  base_ = base;
  saved_live_ = std::move(live);
  early_.clear();
  for (const auto& [pid, member] : members_)
    if (auto known = early.extract(pid)) early_.insert(std::move(known));
  auto piece = take_all();
  if (!piece) return done(piece.error());
  std::set<pid_t> spread;
  for (const auto& [pid, member] : members_)
    if (member.spread) spread.insert(pid);
  copy_next(std::move(spread),
            [piece = std::make_shared<FamilyPiece>(std::move(*piece)), done = std::move(done)](
                const Status& copied) { copied ? done(std::move(*piece)) : done(copied.error()); });
}

void LocalCapture::copy_next(std::set<pid_t> left, std::function<void(Status)> done) {
  if (left.empty()) return done({});
  const pid_t pid = *left.begin();
  left.erase(left.begin());
  const auto member = members_.find(pid);
  if (member == members_.end()) return done(about(pid, errno_error("it has been let go", ESRCH)));
  const uint64_t base = taken_.at(pid).pages->is_tracked ? base_ : 0;
  auto early = early_.extract(pid);
  member->second.spread->take(base, number_, early ? std::move(early.mapped()) : nullptr,
                              [self = shared_from_this(), pid, left = std::move(left),
                               done = std::move(done)](Result<StandingSpread::Memory> memory) {
                                if (!memory) return done(about(pid, memory.error()));
                                self->taken_.at(pid).pages->add(std::move(*memory));
                                self->copy_next(left, done);
                              });
}

Result<FamilyPiece> LocalCapture::take_all() {
  files_ = FamilyFiles(parts_, asker_);
  shared_ = {};
  ipc_ = {};
  taken_.clear();
  mapped_.clear();
  memories_.reset();
  FamilyPiece piece;
  if (members_.contains(root_)) piece.command = command_of(root_);
  for (pid_t pid : known_) {
    if (state_of(pid) == FoundAs::kBody) continue;
    auto place = place_of(pid);
    if (!place) return about(pid, place.error());
    piece.places.push_back(*place);
  }
  for (const auto& [pid, member] : members_) {
    FamilyMember taken;
    if (auto done = take_member(pid, taken); !done) return about(pid, done.error());
    piece.members.push_back(std::move(taken));
  }
  if (auto done = take_shared_memory(piece.members); !done) return done.error();
  piece.streams = files_.streams();
  piece.memories.assign(mapped_.begin(), mapped_.end());
  return piece;
}

Status LocalCapture::take_member(pid_t pid, FamilyMember& member) {
  FrozenProcess& process = *members_[pid].process;
  member.pid = pid;
  member.name = name_of(pid);
  auto capabilities = parts_.capabilities.of(pid);
  if (!capabilities) return capabilities.error();
  member.capabilities = *capabilities;
  const StandingSpread* spread = members_[pid].spread.get();
  mappings_[pid].takes_shared = true;
  const int mount_ns = parts_.node.session_mount_ns;
  auto image = spread ? members_[pid].spread->image(mount_ns, mappings_[pid])
                      : capture_image(process, mount_ns, mappings_[pid]);
  if (!image) return image.error();
  shared_.add(static_cast<uint32_t>(taken_.size()), *image);
  if (auto added = ipc_.add(*image); !added) return added;
  if (auto named = name_shared_memory(*image); !named) return named;
  files_.add_mapped(*image);
  if (auto added = files_.add(member, spread ? spread->memory_fd() : -1); !added) return added;
  Taken& taken = taken_[pid];
  taken.image = image->serialize();
  taken.pages = std::make_unique<MemberPages>(parts_.table);
  if (spread) member.spread = spread->state();
  return take_pages(pid, *image);
}

// By what every node calls it.
Status LocalCapture::name_shared_memory(ProcessImage& image) {
  const SharedMemory* shared = parts_.shared_memory();
  for (ImageMapping& mapping : image.mappings) {
    if (mapping.kind != ImageMapping::Kind::kShared) continue;
    mapping.shared_file = shared ? shared->file_of_memory(mapping.shared_file) : 0;
    if (mapping.shared_file == 0) return cannot_move("memory of other nodes");
    mapped_.insert(mapping.shared_file);
  }
  return {};
}

std::vector<OthersMemory> LocalCapture::memories_of(const std::set<pid_t>& others) const {
  std::vector<OthersMemory> found;
  const SharedMemory* shared = parts_.shared_memory();
  if (!shared || shared->file_count() == 0) return found;
  for (pid_t pid : others) {
    auto maps = MappingTexts::read_maps(pid);
    if (!maps) continue;
    for (const MappingText& mapping : maps->all())
      if (const uint64_t file = mapping.is_shared() ? shared->file_of_memory(mapping.inode) : 0)
        found.push_back({file, pid});
  }
  return found;
}

Result<std::shared_ptr<MemoryCopies>> LocalCapture::begin_memory() {
  SharedMemory* shared = parts_.shared_memory();
  if (!shared) return errno_error("shared memory is each node's own here", ENOTSUP);
  memories_ = std::make_shared<MemoryCopies>(parts_.node, *shared, parts_.tracking);
  return memories_;
}

Result<std::shared_ptr<MemoryCopies>> LocalCapture::memory() const {
  if (!memories_) return errno_error("a capture without shared memory", ESRCH);
  return memories_;
}

Status LocalCapture::take_pages(pid_t pid, const ProcessImage& image) {
  FrozenProcess& process = *members_[pid].process;
  MemberPages& pages = *taken_.at(pid).pages;
  if (parts_.left_out) pages.left_out = parts_.left_out(pid);
  WrittenPages* written = base_ != 0 && parts_.tracking
                              ? parts_.tracking->since(base_, image, pages.left_out)
                              : nullptr;
  const Status taken = members_[pid].spread
                           ? pages.take_at_home(process, written)
                           : pages.take(process, image, written, saved_live_.get());
  if (!taken) return taken;
  if (parts_.tracking && parts_.tracking->works())
    parts_.tracking->begin(number_, process, image, pages.left_out);
  return {};
}

Status LocalCapture::take_shared_memory(const std::vector<FamilyMember>& members) {
  auto copied = shared_.copy(static_cast<uint32_t>(members.size()), [this](pid_t pid) {
    return members_.contains(pid) || parts_.table.is_hidden(pid);
  });
  if (!copied) return copied.error();
  for (size_t i = 0; i < copied->size(); ++i) {
    if ((*copied)[i].ranges.empty()) continue;
    const pid_t pid = members[i].pid;
    MemberPages& pages = *taken_.at(pid).pages;
    pages.shared = std::move((*copied)[i]);
    if (!parts_.tracking) continue;
    if (base_ != 0) pages.shared_before = parts_.tracking->shared_since(base_, pid);
    pages.shared_now = std::make_shared<PageDigests>();
    parts_.tracking->begin_shared(number_, pid, pages.shared_now);
  }
  return {};
}

Status LocalCapture::take_ipc(const std::set<pid_t>& members, FamilyDescription& description) {
  std::map<pid_t, FrozenProcess*> frozen;
  for (const auto& [pid, member] : members_) frozen[pid] = member.process.get();
  const auto is_apart = [this](pid_t pid) { return pid == asker_ || parts_.table.is_hidden(pid); };
  auto queues = files_.take_queues();
  auto ipc = ipc_.take(queues, members, is_apart, frozen);
  if (!ipc) return ipc.error();
  description.ipc = std::move(*ipc);
  const auto others = others_than(members, is_apart);
  description.others.assign(others.begin(), others.end());
  description.others_memories = memories_of(others);
  return {};
}

Result<FamilyDescription> LocalCapture::describe(const FamilyDescribe& ask,
                                                 const std::set<pid_t>& members,
                                                 const std::vector<StreamUse>& uses) {
  FamilyDescription description;
  for (const StreamUse& use : uses) {
    auto number = files_.add(use);
    if (!number) return about(use.owner, number.error());
    description.of_uses.push_back(*number);
  }
  if (auto done = files_.describe(members, description); !done) return done.error();
  if (auto done = take_ipc(members, description); !done) return done.error();
  auto saved = files_.save({parts_.tracking, ask.base, ask.capture}, ask.saves_files, description);
  if (!saved) return saved.error();
  saved_ = std::move(*saved);
  described_ = description;
  return description;
}

Result<std::shared_ptr<FamilySnapshot>> LocalCapture::snapshot(ProcessFamily family) {
  auto snapshot = std::make_shared<FamilySnapshot>();
  const uint32_t self = parts_.node.self.value;
  snapshot->members_.resize(family.members.size());
  for (size_t i = 0; i < family.members.size(); ++i) {
    FamilyMember& member = family.members[i];
    if (member.node != self || member.has_ended()) continue;
    auto taken = taken_.find(member.pid);
    if (taken == taken_.end() || !taken->second.pages)
      return errno_error("a capture of other processes", ESRCH);
    member.image = taken->second.image;
    snapshot->members_[i] = std::move(taken->second.pages);
  }
  // In the order in which they were described.
  uint32_t file = 0, pipe = 0;
  for (size_t i = 0; i < family.files.size(); ++i) {
    if (family.files[i].node != self) continue;
    family.files[i].contents = std::move(described_.files.at(file).contents);
    if (auto saved = saved_.find(file); saved != saved_.end())
      snapshot->files_.emplace(static_cast<uint32_t>(family.members.size() + i),
                               std::make_unique<SavedFile>(std::move(saved->second)));
    ++file;
  }
  uint32_t socket = 0;
  for (FamilySocket& one : family.sockets) {
    if (one.node != self) continue;
    one.contents = std::move(described_.sockets.at(socket).contents);
    one.unsent = std::move(described_.sockets.at(socket++).unsent);
  }
  for (FamilyPipe& one : family.pipes)
    if (one.node == self) one.contents = std::move(described_.pipes.at(pipe++).contents);
  if (memories_) snapshot->memories_ = memories_->take();
  snapshot->family = std::move(family);
  return snapshot;
}

}  // namespace krg
