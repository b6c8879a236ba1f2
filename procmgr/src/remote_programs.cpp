// SPDX-License-Identifier: GPL-2.0-or-later
#include "remote_programs.h"

#include <algorithm>
#include <utility>

#include "krg/runtime/log.h"
#include "remote_memory_messages.h"

namespace krg {
namespace {

// Page sets of programs among all sets of the cluster.
constexpr uint64_t kFirstSet = uint64_t{0x524d} << 48;
constexpr size_t kGrowthStep = 16384;  // pages; a set's size costs a byte a page

SetId set_id(NodeId home, uint32_t number) {
  return {kFirstSet | static_cast<uint64_t>(home.value) << 32 | number};
}
NodeId home_of(uint64_t set) {
  return {static_cast<uint16_t>(set >> 32)};
}

}  // namespace

RemotePrograms::RemotePrograms(NodeContext& node, Kddm& kddm)
    : node_(node), kddm_(kddm), ledger_(node) {
  take_messages();
}

void RemotePrograms::take_messages() {
  node_.messenger.on_request<OpenRemoteSet>(
      [this](NodeId from, const OpenRemoteSet& message, std::string_view, Messenger::Reply reply) {
        auto pages = PageSet::create(node_.loop, kddm_, SetId{message.set}, message.pages,
                                     {.home = from, .one_user = true});
        if (!pages) return reply.fail(pages.error());
        lent_[message.set] = std::move(*pages);
        reply.ok();
      });
  node_.messenger.on<GrowRemoteSet>([this](NodeId, const GrowRemoteSet& message, std::string_view) {
    auto found = lent_.find(message.set);
    if (found == lent_.end() || found->second->pages() >= message.pages) return;
    if (Status grown = found->second->resize(message.pages); !grown)
      log_error("memory", "set {}: {}", message.set, grown.error().message());
  });
  node_.messenger.on<DropRemoteSet>(
      [this](NodeId, const DropRemoteSet& message, std::string_view) { lent_.erase(message.set); });
  node_.messenger.on_peer_failure([this](NodeId failed) {
    std::erase_if(lent_, [&](const auto& set) { return home_of(set.first) == failed; });
  });
}

void RemotePrograms::tell_others(const std::function<void(NodeId)>& tell) const {
  for (unsigned i = 0; i < node_.node_count; ++i) {
    const NodeId other{static_cast<uint16_t>(i)};
    if (other != node_.self && !node_.messenger.is_failed(other)) tell(other);
  }
}

// --- programs -----------------------------------------------------------------------------------

RemoteProgramPtr RemotePrograms::find(pid_t pid) {
  for (const RemoteProgramPtr& program : programs_)
    if (program->pid == pid && (program->mapping > 0 || program->pages->is_attached(pid)))
      return program;
  return nullptr;
}

void RemotePrograms::begin_mapping(pid_t pid, std::function<void(Result<RemoteProgramPtr>)> done) {
  if (RemoteProgramPtr program = find(pid)) {
    ++program->mapping;
    return done(std::move(program));
  }
  make(pid, std::move(done));
}

void RemotePrograms::make(pid_t pid, std::function<void(Result<RemoteProgramPtr>)> done) {
  auto program = std::make_shared<RemoteProgram>(RemoteProgram{.pid = pid});
  const SetId set = set_id(node_.self, next_set_++);
  auto pages = PageSet::create(node_.loop, kddm_, set, kGrowthStep,
                               {.group = node_.page_sets, .home = node_.self, .one_user = true});
  if (!pages) return done(pages.error());
  program->pages = std::move(*pages);
  program->mapping = 1;
  program->pages->on_idle([this, weak = std::weak_ptr(program)] {
    if (auto idle = weak.lock()) drop_if_idle(idle);
  });
  program->pages->on_unmapped([this, weak = std::weak_ptr(program)](PageSet::Pages gone) {
    if (auto alive = weak.lock()) free(alive, gone);
  });
  programs_.push_back(program);
  auto left = std::make_shared<unsigned>(1);
  auto opened = [left, program, done = std::move(done)] {
    if (--*left == 0) done(program);
  };
  tell_others([&](NodeId other) {
    ++*left;
    node_.messenger.request(
        other, OpenRemoteSet{.set = set.value, .pages = program->pages->pages()}, {},
        [opened, other](const Result<std::string>& reply) {
          if (!reply)
            log_warn("memory", "node {} lends no memory: {}", other.value, reply.error().message());
          opened();
        });
  });
  opened();
}

void RemotePrograms::end_mapping(const RemoteProgramPtr& program) {
  --program->mapping;
  drop_if_idle(program);
}

// The page set itself may be the one that tells: it goes in a turn of its own.
void RemotePrograms::drop_if_idle(const RemoteProgramPtr& program) {
  if (program->mapping > 0 || program->pages->mapping_count() > 0) return;
  if (std::erase(programs_, program) == 0) return;
  tell_others([&](NodeId other) {
    static_cast<void>(
        node_.messenger.send(other, DropRemoteSet{.set = program->pages->id().value}));
  });
  ledger_.give_back(std::exchange(program->reserved, 0));
  node_.loop.post([program] {
    program->waiting.clear();
    program->pages.reset();
  });
}

// --- pages --------------------------------------------------------------------------------------

void RemotePrograms::allocate(const RemoteProgramPtr& program, size_t count,
                              std::function<void(Result<PageIndex>)> done) {
  ledger_.reserve(count, [this, program, count, done = std::move(done)](const Status& reserved) {
    if (!reserved && program->discarding > 0) {
      program->waiting.push_back([this, program, count, done] { allocate(program, count, done); });
      return;
    }
    if (!reserved) return done(reserved.error());
    program->reserved += count;
    const PageIndex first = program->ranges.take(count);
    Status grown = grow(*program, program->ranges.end());
    if (grown) return done(first);
    program->ranges.give_back(first, count);
    program->reserved -= count;
    ledger_.give_back(count);
    done(grown.error());
  });
}

Status RemotePrograms::grow(RemoteProgram& program, size_t pages) {
  if (pages <= program.pages->pages()) return {};
  const size_t grown = (pages + kGrowthStep - 1) / kGrowthStep * kGrowthStep;
  if (Status done = program.pages->resize(grown); !done) return done;
  tell_others([&](NodeId other) {
    static_cast<void>(node_.messenger.send(
        other, GrowRemoteSet{.set = program.pages->id().value, .pages = grown}));
  });
  return {};
}

void RemotePrograms::free(const RemoteProgramPtr& program, PageSet::Pages pages) {
  if (!program->pages || program->reserved == 0) return;  // all of it has been given back
  ++program->discarding;
  program->pages->discard(pages.first, pages.count, [this, weak = std::weak_ptr(program), pages] {
    auto alive = weak.lock();
    if (!alive || alive->reserved < pages.count) return;
    alive->ranges.give_back(pages.first, pages.count);
    alive->reserved -= pages.count;
    ledger_.give_back(pages.count);
    if (--alive->discarding > 0) return;
    for (auto& retry : std::exchange(alive->waiting, {})) retry();
  });
}

void RemotePrograms::clear(const RemoteProgramPtr& program,
                           const std::vector<PageSet::Pages>& pages, std::function<void()> done) {
  auto left = std::make_shared<size_t>(pages.size());
  for (const PageSet::Pages& some : pages)
    program->pages->discard(some.first, some.count, [left, done] {
      if (--*left == 0) done();
    });
}

}  // namespace krg
