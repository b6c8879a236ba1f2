// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/leading_capture.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <optional>
#include <set>

#include "family/family_messages.h"
#include "family/family_piece.h"
#include "family/shared_ipc.h"
#include "family/shared_memories.h"
#include "krg/runtime/log.h"
#include "krg/runtime/run_after.h"
#include "packed_bytes.h"

namespace krg {

using namespace family_messages;

namespace {

// While a member is neither here nor there: it has just ended, or is being moved.
constexpr std::chrono::milliseconds kLookAgain{2};
constexpr int kMostRounds = 2000;
// While pages of one are on their way from where it was: nobody stands till then, or so long.
constexpr std::chrono::milliseconds kLookForPages{20};
constexpr int kMostLooksForPages = 500;

class LeadingCapture : public std::enable_shared_from_this<LeadingCapture> {
 public:
  using Done = std::function<void(Result<FamilyCaptures::Captured>)>;

  LeadingCapture(const FamilyCaptureParts& parts, const CaptureOrder& order, Done done)
      : node_(parts.node),
        ipc_(parts.ipc),
        memory_(parts.shared_memory()),
        order_(order),
        done_(std::move(done)),
        nodes_{parts.node.self} {}

  void begin() {
    known_.insert(order_.root);
    // An orphan may be on any.
    if (order_.job != 0) nodes_ = living_nodes();
    look(kMostRounds);
  }

 private:
  struct Seen {
    bool has_place = false;  // native, ended or a shadow somewhere
    bool executes = false;
    bool is_ended = false;
  };

  // ---- the nodes ----

  // Asks all nodes, and goes on when all have answered; the first error ends the capture.
  template <class M>
  void ask_all(const M& ask, const std::function<std::string(NodeId)>& payload,
               std::function<Status(NodeId, std::string_view)> heard, std::function<void()> next) {
    struct Asked {
      size_t left;
      std::optional<Error> failure;
    };
    auto asked = std::make_shared<Asked>(Asked{nodes_.size(), std::nullopt});
    for (NodeId to : nodes_)
      node_.messenger.request(
          to, ask, payload(to),
          [self = shared_from_this(), asked, to, heard, next](Result<std::string> reply) {
            const Status done = reply ? heard(to, *reply) : Status(reply.error());
            if (!done && !asked->failure) asked->failure = done.error();
            if (--asked->left > 0) return;
            asked->failure ? self->end(*asked->failure) : next();
          });
  }

  // Members are on one node until one is a body or a shadow.
  void take_all_nodes() {
    if (nodes_.size() == 1) nodes_ = living_nodes();
  }

  std::vector<NodeId> living_nodes() const {
    std::vector<NodeId> living;
    for (uint16_t n = 0; n < node_.node_count; ++n)
      if (!node_.messenger.is_failed(NodeId{n})) living.push_back(NodeId{n});
    return living;
  }

  // ---- who they are ----

  std::string pids() const {
    PackedWriter out;
    for (pid_t pid : known_) out.put(pid);
    return out.take();
  }

  // Whether the nodes have told of all: no node knows of more, each has one place and executes in
  // one.
  void round(bool only_look, int rounds, std::function<void()> next) {
    if (rounds == 0) return end(errno_error("its processes do not come to rest", EBUSY));
    FamilyFreeze ask;
    ask.only_look = only_look;
    ask.only_watches = order_.only_watches;
    ask.root = order_.root;
    ask.asker = order_.asker;
    ask.job = order_.job;
    ask.capture = order_.number;
    seen_.clear();
    awaits_pages_ = false;
    ask_all(
        ask, [sent = pids()](NodeId) { return sent; },
        [this](NodeId, std::string_view reply) { return hear_found(reply); },
        [self = shared_from_this(), only_look, rounds, next, before = known_,
         asked = nodes_.size()] { self->after_round(only_look, rounds, next, before, asked); });
  }

  Status hear_found(std::string_view reply) {
    PackedReader in(reply);
    while (!in.at_end()) {
      const auto found = in.get<FoundProcess>();
      Seen& seen = seen_[found.pid];
      if (found.as == FoundAs::kBody || found.as == FoundAs::kShadow) is_spread_ = true;
      awaits_pages_ |= found.awaits_pages;
      has_large_ |= found.is_large;
      seen.executes |= found.as == FoundAs::kBody || found.as == FoundAs::kNative;
      seen.has_place |= found.as != FoundAs::kBody;
      seen.is_ended |= found.as == FoundAs::kEnded;
      known_.insert(found.pid);
    }
    return {};
  }

  void after_round(bool only_look, int rounds, const std::function<void()>& next,
                   const std::set<pid_t>& before, size_t asked) {
    if (is_spread_) take_all_nodes();
    const bool knew_all = asked == nodes_.size() && (nodes_.size() == 1 || before == known_);
    if (only_look && knew_all)
      return awaits_pages_ && looks_for_pages_++ < kMostLooksForPages ? look_later() : next();
    if (!seen_.contains(order_.root) && knew_all)
      return end(errno_error(fmt::format("process {}: no such process", order_.root), ESRCH));
    std::erase_if(known_, [&](pid_t pid) { return pid != order_.root && !seen_.contains(pid); });
    const bool is_complete = std::all_of(seen_.begin(), seen_.end(), [](const auto& entry) {
      const Seen& seen = entry.second;
      return seen.has_place && (seen.executes || seen.is_ended);
    });
    if (knew_all && is_complete) return next();
    run_after(node_.loop, knew_all ? kLookAgain : std::chrono::milliseconds(0),
              [self = shared_from_this(), only_look, rounds, next] {
                self->round(only_look, rounds - 1, next);
              });
  }

  void look_later() {
    run_after(node_.loop, kLookForPages, [self = shared_from_this()] { self->look(kMostRounds); });
  }

  void look(int rounds) {
    round(true, rounds, [self = shared_from_this()] {
      if (self->order_.only_watches && !self->has_large_) return self->finish();
      self->stop([self] { self->order_.only_watches ? self->watch() : self->flush(); });
    });
  }

  void stop(std::function<void()> next) {
    started_ = std::chrono::steady_clock::now();
    round(false, kMostRounds, std::move(next));
  }

  // ---- large members, before a capture ----

  void ask_to_watch(bool protects, std::function<void()> next) {
    FamilyWatchLarge ask;
    ask.protects = protects;
    ask.capture = order_.number;
    ask_all(
        ask, [](NodeId) { return std::string(); },
        [this](NodeId from, std::string_view reply) -> Status {
          if (PackedReader(reply).get<uint64_t>() > 0) with_pages_.insert(from.value);
          return {};
        },
        std::move(next));
  }

  void watch() {
    ask_to_watch(false, [self = shared_from_this()] {
      self->let_go([self] { self->ask_to_watch(true, [self] { self->end_calls(); }); });
    });
  }

  // A system call may have had its hands on pages before they were protected, and write to them
  // afterwards unseen: one that stops has ended it.
  void end_calls() {
    if (with_pages_.empty()) return finish();
    stop([self = shared_from_this()] { self->let_go([self] { self->finish(); }); });
  }

  void let_go(std::function<void()> next) {
    FamilyThaw ask;
    ask.capture = order_.number;
    ask_all(
        ask, [](NodeId) { return std::string(); },
        [](NodeId, std::string_view) { return Status(); },
        [self = shared_from_this(), next = std::move(next)] {
          self->pause_ = std::max(self->pause_, std::chrono::steady_clock::now() - self->started_);
          next();
        });
  }

  void flush() {
    if (order_.only_freezes) return finish_copies();
    if (nodes_.size() == 1) return take();
    PackedWriter all;
    for (NodeId one : nodes_) all.put(one);
    FamilyFlush ask;
    ask.capture = order_.number;
    ask_all(
        ask, [sent = all.take()](NodeId) { return sent; },
        [](NodeId, std::string_view) { return Status(); },
        [self = shared_from_this()] { self->take(); });
  }

  // ---- what they are ----

  void take() {
    FamilyTake ask;
    ask.capture = order_.number;
    ask.base = order_.base;
    ask_all(
        ask, [](NodeId) { return std::string(); },
        [this](NodeId from, std::string_view reply) -> Status {
          auto piece = FamilyPiece::parse(reply);
          if (!piece) return piece.error();
          pieces_[from] = std::move(*piece);
          return {};
        },
        [self = shared_from_this()] { self->put_together(); });
  }

  void put_together() {
    if (auto done = place_members(); !done) return end(done.error());
    // Processes of any node may have mapped the memory that nodes share.
    if (memory_ && memory_->file_count() > 0) take_all_nodes();
    for (const auto& [from, piece] : pieces_)
      for (const StreamUse& use : piece.streams) {
        uses_[use.home].push_back({from, use});
        if (std::find(nodes_.begin(), nodes_.end(), use.home) == nodes_.end())
          nodes_.push_back(use.home);
      }
    FamilyDescribe ask;
    ask.capture = order_.number;
    ask.base = order_.base;
    ask.saves_files = order_.saves_files;
    PackedWriter members;
    members.put(static_cast<uint32_t>(family_.members.size()));
    for (const FamilyMember& member : family_.members) members.put(member.pid);
    ask_all(
        ask,
        [this, members = members.take()](NodeId to) {
          std::vector<StreamUse> uses;
          for (const auto& [from, use] : uses_[to]) uses.push_back(use);
          return members + pack_uses(uses);
        },
        [this](NodeId from, std::string_view reply) -> Status {
          auto description = FamilyDescription::parse(reply);
          if (!description) return description.error();
          described_[from] = std::move(*description);
          return {};
        },
        [self = shared_from_this()] { self->save_shared_ipc(); });
  }

  // When all nodes have told what is open there, and who else runs.
  void save_shared_ipc() {
    if (!ipc_) return finish_description({});
    ipc_->save(whose_ipc(family_, described_),
               [self = shared_from_this()](Result<Ipc::Saved> saved) {
                 saved ? self->finish_description(std::move(*saved)) : self->end(saved.error());
               });
  }

  void finish_description(Ipc::Saved shared) {
    auto numbered = number_files();
    if (numbered) numbered = add_shared_ipc(std::move(shared), family_);
    numbered ? save_memories() : end(numbered.error());
  }

  void save_memories() {
    if (!memory_) return thaw();
    auto whose = whose_memory(family_, pieces_, described_);
    if (!whose) return end(whose.error());
    memory_->save(*whose, [self = shared_from_this()](Result<std::vector<SavedMemory>> saved) {
      const Status added =
          saved ? add_memories(std::move(*saved), self->family_) : Status(saved.error());
      added ? self->settle_memories() : self->end(added.error());
    });
  }

  // Whoever owns pages of that memory, with members or not.
  void settle_memories() {
    memories_ = rows_of_memories(family_);
    if (memories_.empty()) return thaw();
    nodes_ = living_nodes();
    FamilySettleMemory ask;
    ask.capture = order_.number;
    ask.base = order_.base;
    PackedWriter rows;
    rows.put(static_cast<uint32_t>(nodes_.size()));
    for (NodeId node : nodes_) rows.put(node);
    for (const MemoryRow& row : memories_) rows.put(row);
    auto answers = std::make_shared<std::vector<std::string>>();
    ask_all(
        ask, [payload = rows.take()](NodeId) { return payload; },
        [answers](NodeId, std::string_view reply) -> Status {
          answers->emplace_back(reply);
          return {};
        },
        [self = shared_from_this(), answers] { self->copy_memories(*answers); });
  }

  void copy_memories(const std::vector<std::string>& answers) {
    auto written = written_on_all(memories_.size(), answers);
    if (!written) return end(written.error());
    FamilyCopyMemory ask;
    ask.capture = order_.number;
    ask_all(
        ask, [&written](NodeId) { return *written; },
        [this](NodeId from, std::string_view reply) -> Status {
          if (PackedReader(reply).get<uint8_t>() != 0) with_pages_.insert(from.value);
          return {};
        },
        [self = shared_from_this()] { self->thaw(); });
  }

  // Parents before their children, whoever told of them.
  Status place_members() {
    std::map<pid_t, FamilyPlace> places;
    std::map<pid_t, std::pair<NodeId, FamilyMember*>> executing;
    for (auto& [from, piece] : pieces_) {
      if (!piece.command.empty()) family_.command = piece.command;
      for (const FamilyPlace& place : piece.places) places[place.pid] = place;
      for (FamilyMember& member : piece.members) executing[member.pid] = {from, &member};
    }
    std::vector<pid_t> sorted = {order_.root};
    const auto is_orphan = [&](const FamilyPlace& place) {
      return place.pid != order_.root && !places.contains(place.parent);
    };
    for (const auto& [pid, place] : places)
      if (is_orphan(place)) sorted.push_back(pid);
    for (size_t i = 0; i < sorted.size(); ++i)
      for (const auto& [pid, place] : places)
        if (pid != order_.root && place.parent == sorted[i]) sorted.push_back(pid);
    for (pid_t pid : sorted) {
      const auto place = places.find(pid);
      if (place == places.end())
        return errno_error(fmt::format("process {}: its place is not known", pid), ESRCH);
      FamilyMember member;
      if (auto here = executing.find(pid); here != executing.end()) {
        member = *here->second.second;
        member.node = here->second.first.value;
      } else if (place->second.wait_status < 0) {
        return errno_error(fmt::format("process {}: it has gone", pid), ESRCH);
      } else {
        member.name = place->second.name.data();
      }
      member.pid = pid;
      member.parent = pid == order_.root         ? 0
                      : is_orphan(place->second) ? FamilyMember::kInit
                                                 : place->second.parent;
      member.group = place->second.group;
      member.session = place->second.session;
      member.wait_status = place->second.wait_status;
      family_.members.push_back(std::move(member));
    }
    return place_groups();
  }

  // What the root has from outside, its members have from outside. Other leaders have ended, or are
  // of another family.
  Status place_groups() {
    std::vector<FamilyMember>& members = family_.members;
    const pid_t outer_group = members.front().group, outer_session = members.front().session;
    const auto place_one = [&](pid_t& leader, pid_t outer) {
      const bool is_member = std::any_of(members.begin(), members.end(),
                                         [&](const FamilyMember& m) { return m.pid == leader; });
      if (!is_member && leader == outer) leader = 0;
      return is_member || leader == 0 || (kill(leader, 0) != 0 && errno == ESRCH);
    };
    for (FamilyMember& member : members)
      if (!place_one(member.group, outer_group) || !place_one(member.session, outer_session))
        return errno_error(
            fmt::format("process {}: its group or session is of a process outside of the family",
                        member.pid),
            ENOTSUP);
    return {};
  }

  // Files and pipes of all nodes, one after the other.
  Status number_files() {
    std::map<std::pair<NodeId, uint32_t>, uint32_t> numbers;
    for (auto& [at, description] : described_) {
      const auto first_pipe = static_cast<uint32_t>(family_.pipes.size());
      const auto first_socket = static_cast<uint32_t>(family_.sockets.size());
      const auto first_queue = static_cast<uint32_t>(family_.ipc.posix_queues.size());
      for (size_t i = 0; i < description.files.size(); ++i) {
        FamilyFile& file = description.files[i];
        file.node = at.value;
        file.pipe += file.kind == FamilyFile::Kind::kPipe     ? first_pipe
                     : file.kind == FamilyFile::Kind::kSocket ? first_socket
                     : file.kind == FamilyFile::Kind::kQueue  ? first_queue
                                                              : 0;
        numbers[{at, description.numbers[i]}] = static_cast<uint32_t>(family_.files.size());
        family_.files.push_back(std::move(file));
      }
      for (FamilyPipe& pipe : description.pipes) {
        pipe.node = at.value;
        family_.pipes.push_back(std::move(pipe));
      }
      for (size_t i = 0; i < description.sockets.size(); ++i) {
        description.sockets[i].node = at.value;
        family_.sockets.push_back(std::move(description.sockets[i]));
        identities_.push_back(description.identities[i]);
      }
      family_.ipc.append(std::move(description.ipc));
    }
    for (auto& [home, uses] : uses_)
      for (size_t i = 0; i < uses.size(); ++i) {
        const auto& of_uses = described_[home].of_uses;
        if (i >= of_uses.size()) return errno_error("descriptions of files", EBADMSG);
        numbers[{uses[i].first, uses[i].second.file}] = numbers[{home, of_uses[i]}];
      }
    for (FamilyFile& file : family_.files)
      for (FamilyWatch& watch : file.watches) {
        const auto known = numbers.find({NodeId{static_cast<uint16_t>(file.node)}, watch.file});
        if (known == numbers.end()) return errno_error("descriptions of files", EBADMSG);
        watch.file = known->second;
      }
    for (FamilyMember& member : family_.members) {
      const NodeId at{static_cast<uint16_t>(member.node)};
      for (FamilyFd& fd : member.fds) {
        const auto known = numbers.find({at, fd.file});
        if (known == numbers.end()) return errno_error("descriptions of files", EBADMSG);
        fd.file = known->second;
      }
      for (FamilyLock& lock : member.locks) lock.file = numbers[{at, lock.file}];
    }
    return settle_sockets();
  }

  // A standard stream whose other end is outside is krgrun's.
  Status settle_sockets() {
    if (auto paired = pair_sockets(family_.sockets, identities_); !paired) return paired;
    for (FamilyFile& file : family_.files) {
      if (file.kind != FamilyFile::Kind::kSocket) continue;
      const FamilySocket& socket = family_.sockets[file.pipe];
      if (socket.standard < 0 || socket.peer != FamilySocket::kNone ||
          socket.state == FamilySocket::State::kListening)
        continue;
      file.kind = FamilyFile::Kind::kStandard;
      file.stream = static_cast<uint32_t>(socket.standard);
    }
    return {};
  }

  void thaw() {
    if (order_.frozen != 0) return finish_copies();
    let_go([self = shared_from_this()] { self->finish_copies(); });
  }

  void finish_copies() {
    if (order_.only_freezes || order_.frozen != 0)
      pause_ = std::chrono::steady_clock::now() - started_;
    if (memories_.empty()) return finish();
    FamilyFinishCopies ask;
    ask.capture = order_.number;
    ask_all(
        ask, [](NodeId) { return std::string(); },
        [](NodeId, std::string_view) { return Status(); },
        [self = shared_from_this()] { self->finish(); });
  }

  void finish() {
    using std::chrono::duration_cast;
    for (uint32_t node : family_.nodes()) with_pages_.insert(node);
    FamilyCaptures::Captured captured{order_.number, std::move(family_), {}, {}};
    captured.nodes.assign(with_pages_.begin(), with_pages_.end());
    captured.pause = duration_cast<std::chrono::microseconds>(pause_);
    if (done_) std::exchange(done_, nullptr)(std::move(captured));
  }

  void end(Error why) {
    if (done_) std::exchange(done_, nullptr)(std::move(why));
  }

  NodeContext& node_;
  Ipc* const ipc_;
  SharedMemory* const memory_;  // null: nodes share none
  const CaptureOrder order_;
  Done done_;
  std::vector<NodeId> nodes_;
  std::set<pid_t> known_;
  std::map<pid_t, Seen> seen_;
  bool is_spread_ = false;
  bool awaits_pages_ = false;  // one of those that were seen
  bool has_large_ = false;     // likewise
  int looks_for_pages_ = 0;
  std::map<NodeId, FamilyPiece> pieces_;
  std::map<NodeId, std::vector<std::pair<NodeId, StreamUse>>> uses_;  // by home: who has it
  std::map<NodeId, FamilyDescription> described_;
  std::vector<SocketIdentity> identities_;  // of the family's sockets
  ProcessFamily family_;
  std::vector<MemoryRow> memories_;  // that nodes share
  std::set<uint32_t> with_pages_;    // nodes that have some of them, or of large members
  std::chrono::steady_clock::time_point started_;
  std::chrono::steady_clock::duration pause_{0};
};

}  // namespace

void lead_capture(const FamilyCaptureParts& parts, const CaptureOrder& order,
                  std::function<void(Result<FamilyCaptures::Captured>)> done) {
  std::make_shared<LeadingCapture>(parts, order, std::move(done))->begin();
}

void drop_capture(NodeContext& node, uint64_t number) {
  FamilyDrop drop;
  drop.capture = number;
  for (uint16_t n = 0; n < node.node_count; ++n)
    if (NodeId to{n}; !node.messenger.is_failed(to))
      if (!node.messenger.send(to, drop)) log_debug("checkpoint", "node {} has failed", n);
}

}  // namespace krg
