// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/family_capture.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <optional>
#include <utility>

#include "family/family_files.h"
#include "family/family_memory.h"
#include "family/written_pages.h"
#include "image/content_ranges.h"
#include "image/frozen_process.h"
#include "image/image_capture.h"
#include "image/task_memory.h"
#include "native_children.h"
#include "process_spec.h"
#include "process_status.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr uint64_t kMostApart = 256u << 20;  // of memory that no copy of a process has
// Copying so much takes as long as a fork, which copies the page tables of all.
constexpr uint64_t kLeastStaged = 1u << 20, kMostStaged = 128u << 20, kStagedPart = 16;

Error about(pid_t pid, const Error& error) {
  return {error.code, fmt::format("process {}: {}", pid, error.context)};
}

std::string command_of(pid_t pid) {
  auto text = read_whole_file(fmt::format("/proc/{}/cmdline", pid));
  if (!text) return {};
  std::replace(text->begin(), text->end(), '\0', ' ');
  while (text->ends_with(' ')) text->pop_back();
  return *text;
}

std::string name_of(pid_t pid) {
  auto text = read_whole_file(fmt::format("/proc/{}/comm", pid));
  return text ? text->substr(0, text->find('\n')) : std::string();
}

bool is_zombie(pid_t pid) {
  auto status = read_process_status(pid);
  return status && status->is_zombie();
}

// Field 52 of /proc/PID/stat, proc(5).
int32_t wait_status_of_zombie(pid_t pid) {
  auto fields = stat_fields(pid);
  return fields ? stat_number<int32_t>(*fields, 52) : 0;
}

}  // namespace

class FamilyCapture : public std::enable_shared_from_this<FamilyCapture> {
 public:
  using Done = std::function<void(Result<std::unique_ptr<FamilySnapshot>>)>;
  FamilyCapture(FamilyCaptureParts parts, pid_t root, pid_t asker, uint64_t base, Done done)
      : parts_(std::move(parts)),
        root_(root),
        asker_(asker),
        base_(base),
        done_(std::move(done)),
        files_(parts_.is_served, asker),
        snapshot_(std::make_unique<FamilySnapshot>(parts_.table)) {}

  void begin() {
    // What takes long is read before anything stands still.
    read_mappings_of(root_);
    if (parts_.tracking && parts_.tracking->works()) {
      parts_.tracking->clean_up();
      snapshot_->number = parts_.tracking->next_capture();
    }
    started_ = std::chrono::steady_clock::now();
    freeze(root_);
  }

 private:
  void read_mappings_of(pid_t pid) {
    if (auto texts = MappingTexts::read_smaps(pid)) mappings_[pid] = std::move(*texts);
    for (pid_t child : native_children(pid))
      if (!mappings_.contains(child) && !parts_.table.is_hidden(child)) read_mappings_of(child);
  }

  struct Member {
    std::shared_ptr<FrozenProcess> process;  // null: has ended, or is the asker
    std::vector<ProcessTable::Claim> claim;  // one, or none
  };

  void freeze(pid_t pid) {
    ++freezing_;
    Member& member = members_[pid];
    order_.push_back(pid);
    if (auto may = check(pid); !may) return fail_later(about(pid, may.error()));
    auto claim = parts_.table.claim(pid);
    if (!claim) return fail_later(about(pid, claim.error()));
    member.claim.push_back(std::move(*claim));
    FrozenProcess::freeze(
        parts_.node.loop, *parts_.node.children, pid,
        [self = shared_from_this(), pid](Result<std::shared_ptr<FrozenProcess>> frozen) {
          self->on_frozen(pid, std::move(frozen));
        });
  }

  Status check(pid_t pid) {
    if (const auto* shadow = parts_.table.find_shadow(pid))
      return errno_error(fmt::format("it executes on node {}", shadow->body_node.value), ENOTSUP);
    if (parts_.table.find_body(pid)) return errno_error("it came from another node", ENOTSUP);
    if (parts_.pages && parts_.pages->is_receiving(pid))
      return errno_error("its pages are still on their way", EBUSY);
    return {};
  }

  void fail_later(Error why) {
    if (!failure_) failure_ = std::move(why);
    later_ = parts_.node.loop.after(std::chrono::milliseconds(0),
                                    [self = shared_from_this()] { self->one_less(); });
  }

  void on_frozen(pid_t pid, Result<std::shared_ptr<FrozenProcess>> frozen) {
    if (frozen) {
      members_[pid].process = std::move(*frozen);
      freeze_children_of(pid);
    } else if (pid == root_ || !has_gone(pid)) {
      if (!failure_) failure_ = about(pid, frozen.error());
    }
    one_less();
  }

  // A child that ended meanwhile is a zombie now, or has been waited for.
  bool has_gone(pid_t pid) {
    members_[pid].claim.clear();
    if (is_zombie(pid)) return true;
    if (read_process_status(pid)) return false;
    members_.erase(pid);
    std::erase(order_, pid);
    return true;
  }

  void freeze_children_of(pid_t pid) {
    for (pid_t child : native_children(pid)) {
      if (members_.contains(child) || parts_.table.is_hidden(child)) continue;
      if (child == asker_ || is_zombie(child)) {
        members_[child] = {};
        order_.push_back(child);
      } else {
        freeze(child);
      }
    }
  }

  void one_less() {
    if (--freezing_ > 0) return;
    if (failure_) return end(*failure_);
    // Orphans of members may have become children of others.
    const auto known = order_;
    for (pid_t pid : known)
      if (members_[pid].process) freeze_children_of(pid);
    if (freezing_ > 0) return;
    if (auto captured = capture(); !captured) return end(captured.error());
    thaw();
    using std::chrono::duration_cast;
    snapshot_->pause =
        duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - started_);
    std::exchange(done_, nullptr)(std::move(snapshot_));
  }

  void thaw() {
    for (auto member = order_.rbegin(); member != order_.rend(); ++member)
      members_[*member].process.reset();
    members_.clear();
  }

  void end(Error why) {
    thaw();
    if (done_) std::exchange(done_, nullptr)(std::move(why));
  }

  Status capture() {
    snapshot_->family.command = command_of(root_);
    sort_by_tree();
    for (pid_t pid : order_) {
      FamilyMember member;
      FamilySnapshot::Memory memory;
      memory.copied = std::make_shared<CopiedPages>();
      auto captured =
          members_[pid].process ? capture_member(pid, member, memory) : describe_ended(pid, member);
      snapshot_->family.members.push_back(std::move(member));
      snapshot_->memories_.push_back(std::move(memory));
      if (!captured) return about(pid, captured.error());
    }
    if (auto placed = place_groups(); !placed) return placed;
    if (auto copied = copy_shared_memory(); !copied) return copied;
    return files_.describe(snapshot_->family);
  }

  Status copy_shared_memory() {
    auto copied = shared_.copy(static_cast<uint32_t>(order_.size()), [this](pid_t pid) {
      return members_.contains(pid) || parts_.table.is_hidden(pid);
    });
    if (!copied) return copied.error();
    for (size_t i = 0; i < copied->size(); ++i)
      snapshot_->memories_[i].shared = std::make_shared<CopiedPages>(std::move((*copied)[i]));
    return {};
  }

  // What the root has from outside, its members have from outside; a group or session of another
  // process that is not among them cannot be made again.
  Status place_groups() {
    std::vector<FamilyMember>& members = snapshot_->family.members;
    const pid_t outer_group = members.front().group, outer_session = members.front().session;
    const auto place_one = [&](pid_t& leader, pid_t outer) {
      const bool is_member = std::any_of(members.begin(), members.end(),
                                         [&](const FamilyMember& m) { return m.pid == leader; });
      if (!is_member && leader != outer) return false;
      if (!is_member) leader = 0;
      return true;
    };
    for (FamilyMember& member : members)
      if (!place_one(member.group, outer_group) || !place_one(member.session, outer_session))
        return errno_error(
            fmt::format("process {}: the leader of its group or session has ended", member.pid),
            ENOTSUP);
    return {};
  }

  // Parents before their children, whatever the order in which they stopped.
  void sort_by_tree() {
    std::map<pid_t, pid_t> parents;
    for (pid_t pid : order_)
      if (auto status = read_process_status(pid)) parents[pid] = status->parent;
    std::vector<pid_t> sorted = {root_};
    for (size_t i = 0; i < sorted.size(); ++i)
      for (pid_t pid : order_)
        if (pid != root_ && parents[pid] == sorted[i]) sorted.push_back(pid);
    order_ = std::move(sorted);
  }

  Status place(pid_t pid, FamilyMember& member) {
    auto status = read_process_status(pid);
    if (!status) return status.error();
    member.pid = pid;
    member.parent = pid == root_ ? 0 : status->parent;
    member.group = status->group;
    member.session = status->session;
    member.name = name_of(pid);
    return {};
  }

  Status describe_ended(pid_t pid, FamilyMember& member) {
    if (auto placed = place(pid, member); !placed) return placed;
    member.wait_status = pid == asker_ ? 0 : wait_status_of_zombie(pid);
    return {};
  }

  Status capture_member(pid_t pid, FamilyMember& member, FamilySnapshot::Memory& memory) {
    FrozenProcess& process = *members_[pid].process;
    if (auto placed = place(pid, member); !placed) return placed;
    auto capabilities = parts_.capabilities.of(pid);
    if (!capabilities) return capabilities.error();
    member.capabilities = *capabilities;
    mappings_[pid].takes_shared = true;
    auto image = capture_image(process, parts_.node.session_mount_ns, mappings_[pid]);
    if (!image) return image.error();
    shared_.add(static_cast<uint32_t>(snapshot_->family.members.size()), *image);
    for (const ImageMapping& mapping : image->mappings)
      if (mapping.kind == ImageMapping::Kind::kShared)
        return cannot_move("memory that it shares with other processes");
    if (auto added = files_.add(member); !added) return added;
    member.image = image->serialize();
    return take_pages(process, *image, memory);
  }

  Status take_pages(FrozenProcess& process, const ProcessImage& image,
                    FamilySnapshot::Memory& memory) {
    const WrittenPages* written = base_ != 0 ? parts_.tracking->since(base_, image) : nullptr;
    if (written) {
      auto pages = written->pages();
      if (!pages) return pages.error();
      memory.pages = std::move(*pages);
      memory.is_tracked = true;
    }
    auto taken = memory.is_tracked && has_little_written(memory.pages)
                     ? stage(process, memory)
                     : copy_process(process, image, memory);
    if (taken && snapshot_->number != 0) parts_.tracking->begin(snapshot_->number, process, image);
    return taken;
  }

  static bool has_little_written(const std::vector<PageRange>& pages) {
    uint64_t all = 0, written = 0;
    for (const PageRange& range : pages) {
      all += range.bytes;
      written += range.is_clean ? 0 : range.bytes;
    }
    return written <= std::clamp(all / kStagedPart, kLeastStaged, kMostStaged);
  }

  static Status stage(const FrozenProcess& process, FamilySnapshot::Memory& memory) {
    std::vector<PageRange> ranges;
    std::copy_if(memory.pages.begin(), memory.pages.end(), std::back_inserter(ranges),
                 [](const PageRange& range) { return !range.is_clean; });
    return read_now(process, std::move(ranges), *memory.copied);
  }

  Status copy_process(FrozenProcess& process, const ProcessImage& image,
                      FamilySnapshot::Memory& memory) {
    if (auto apart = read_apart(process, image, memory); !apart) return apart;
    auto task = process.clone_page_source(FrozenProcess::PageSource::kCopy);
    if (!task) return task.error();
    memory.task = *task;
    parts_.table.hide(*task);
    return {};
  }

  static Status read_apart(const FrozenProcess& process, const ProcessImage& image,
                           FamilySnapshot::Memory& memory) {
    constexpr uint32_t kNotCopied = ImageMapping::kDontFork | ImageMapping::kWipeOnFork;
    if (std::none_of(image.mappings.begin(), image.mappings.end(),
                     [](const ImageMapping& m) { return (m.advice & kNotCopied) != 0; }))
      return {};
    auto ranges = content_ranges(process.pid());
    if (!ranges) return ranges.error();
    uint64_t total = 0;
    std::erase_if(*ranges, [&](const PageRange& range) {
      const bool is_copied =
          std::none_of(image.mappings.begin(), image.mappings.end(), [&](const ImageMapping& m) {
            return (m.advice & kNotCopied) != 0 && m.start <= range.start && range.start < m.end();
          });
      total += is_copied ? 0 : range.bytes;
      return is_copied;
    });
    if (total > kMostApart) return cannot_move("much memory that forks do not copy");
    return read_now(process, std::move(*ranges), *memory.copied);
  }

  static Status read_now(const FrozenProcess& process, std::vector<PageRange> ranges,
                         CopiedPages& into) {
    uint64_t bytes = 0;
    std::vector<MemoryPiece> pieces;
    for (const PageRange& range : ranges) {
      into.offsets.push_back(bytes);
      pieces.push_back({range.start, range.bytes});
      bytes += range.bytes;
    }
    into.ranges = std::move(ranges);
    into.bytes.reset(new std::byte[bytes]);
    auto memory = TaskMemory::open(process.pid());
    return memory ? memory->read(pieces, {into.bytes.get(), bytes}) : memory.error();
  }

  FamilyCaptureParts parts_;
  const pid_t root_, asker_;
  const uint64_t base_;
  Done done_;
  FamilyFiles files_;
  FamilyMemory shared_;
  std::unique_ptr<FamilySnapshot> snapshot_;
  std::map<pid_t, Member> members_;
  std::map<pid_t, MappingTexts> mappings_;  // as they were before
  std::vector<pid_t> order_;
  unsigned freezing_ = 0;
  std::optional<Error> failure_;
  EventLoop::Timer later_;
  std::chrono::steady_clock::time_point started_;
};

FamilySnapshot::~FamilySnapshot() {
  for (const Memory& memory : memories_) {
    if (memory.task == 0) continue;
    kill(memory.task, SIGKILL);
    table_.forget_hidden(memory.task);
  }
}

Result<std::vector<FamilySnapshot::Pages>> FamilySnapshot::pages() const {
  std::vector<Pages> all;
  for (uint32_t i = 0; i < memories_.size(); ++i) {
    const Memory& memory = memories_[i];
    std::vector<PageRange> ranges = memory.pages;
    if (!memory.is_tracked && memory.task != 0) {
      auto found = content_ranges(memory.task);
      if (!found) return found.error();
      ranges = std::move(*found);
      // What a copy has there is not the content.
      std::erase_if(ranges, [&](const PageRange& r) { return memory.copied->find(r.start); });
      ranges.insert(ranges.end(), memory.copied->ranges.begin(), memory.copied->ranges.end());
    }
    if (memory.shared)
      ranges.insert(ranges.end(), memory.shared->ranges.begin(), memory.shared->ranges.end());
    std::sort(ranges.begin(), ranges.end(),
              [](const PageRange& a, const PageRange& b) { return a.start < b.start; });
    for (const PageRange& range : ranges) all.push_back({i, range});
  }
  return all;
}

Status FamilySnapshot::read(uint32_t member, std::span<const PageRange> ranges,
                            std::span<std::byte> into) const {
  const Memory& memory = memories_.at(member);
  std::vector<MemoryPiece> pieces;
  uint64_t waiting = 0;  // bytes of `pieces`, which `into` begins with
  const auto read_pieces = [&]() -> Status {
    if (pieces.empty()) return {};
    auto task = TaskMemory::open(memory.task);
    if (!task) return task.error();
    auto read = task->read(pieces, into.first(waiting));
    into = into.subspan(waiting);
    waiting = 0;
    pieces.clear();
    return read;
  };
  for (const PageRange& range : ranges) {
    const std::byte* copied = memory.copied->find(range.start);
    if (!copied && memory.shared) copied = memory.shared->find(range.start);
    if (!copied) {
      pieces.push_back({range.start, range.bytes});
      waiting += range.bytes;
      continue;
    }
    if (auto read = read_pieces(); !read) return read;
    std::copy_n(copied, range.bytes, into.begin());
    into = into.subspan(range.bytes);
  }
  return read_pieces();
}

void capture_family(const FamilyCaptureParts& parts, pid_t root, pid_t asker, uint64_t base,
                    std::function<void(Result<std::unique_ptr<FamilySnapshot>>)> done) {
  std::make_shared<FamilyCapture>(parts, root, asker, base, std::move(done))->begin();
}

}  // namespace krg
