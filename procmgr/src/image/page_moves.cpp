// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/page_moves.h"

#include <sched.h>

#include <algorithm>
#include <map>

#include "alive.h"
#include "caller_memory.h"
#include "page_messages.h"
#include "page_source.h"
#include "page_target.h"
#include "process_memory.h"
#include "process_status.h"

namespace krg {

struct PageMoves::Impl {
  struct Key {
    NodeId source;
    uint64_t move;
    auto operator<=>(const Key&) const = default;
  };

  Impl(NodeContext& n, bool copies_aside) : node(n), aside(copies_aside) {
    take_messages_of_target();
    take_messages_of_source();
    node.messenger.on_peer_failure([this](NodeId failed) { node_failed(failed); });
  }

  void take_messages_of_target();
  void take_messages_of_source();
  std::shared_ptr<PageSource> find_source(uint64_t move);
  bool is_for_later(uint64_t move, std::function<void()> message);
  std::shared_ptr<PageTarget> find_target(NodeId source, uint64_t move);
  void on_wanted(NodeId from, const PagesWanted& wanted);
  void on_demand(const PageDemand& demand);
  void node_failed(NodeId failed);

  NodeContext& node;
  const bool aside;
  uint64_t next_move = 1;
  std::map<uint64_t, std::shared_ptr<PageSource>> sources;
  // Moves whose task is to come, and what T has said meanwhile.
  struct Expected {
    NodeId target;
    std::vector<std::function<void()>> messages;
    int ended = 0;  // why nothing is needed any more
  };
  std::map<uint64_t, Expected> expected;
  std::map<Key, std::shared_ptr<PageTarget>> targets;
  std::map<pid_t, UniqueFd> lent;
  Alive alive;
};

// The loop's, its program's, and two for copying.
constexpr int kLeastProcessors = 4;
// An argument may point to memory: so much of it is brought first. Of what a call needs besides,
// the broker tells (MemorySource).
constexpr uint64_t kMostArgumentBytes = 16u << 10;

PageMoves::PageMoves(NodeContext& node, SyscallBroker& broker, bool aside)
    : impl_(std::make_unique<Impl>(node, aside)) {
  broker.set_delay([this](const SyscallBroker::Call& call, const std::function<void()>& resume) {
    return !impl_->targets.empty() && delay(call, resume);
  });
  MemorySource memory;
  memory.waits = [this](pid_t tid, RemoteAddr address, size_t bytes, bool) {
    if (impl_->targets.empty()) return false;
    auto process = read_process_status(tid);
    return process && awaits(process->pid, address, bytes);
  };
  memory.read = [this](pid_t tid, RemoteAddr address, size_t bytes, auto done) {
    when_touchable(tid, address, bytes, [tid, address, bytes, done = std::move(done)] {
      std::string read(bytes, '\0');
      if (Status got = read_process_memory(tid, address, read); !got) return done(got.error());
      done(std::move(read));
    });
  };
  memory.write = [this](pid_t tid, RemoteAddr address, const std::string& bytes, auto done) {
    when_touchable(tid, address, bytes.size(), [tid, address, bytes, done = std::move(done)] {
      done(write_process_memory(tid, address, bytes));
    });
  };
  broker.add_memory_guard(std::move(memory));
}

PageMoves::~PageMoves() = default;

bool PageMoves::has_processors_to_spare() {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof allowed, &allowed) != 0 ||  // more than a set has
         CPU_COUNT(&allowed) >= kLeastProcessors;
}

Result<uint64_t> PageMoves::serve(NodeId target, pid_t task, std::vector<PageRange> ranges,
                                  std::function<void(Status)> done) {
  const uint64_t move = number_move();
  auto served = serve(move, target, task, std::move(ranges), std::move(done));
  if (!served) return served.error();
  return move;
}

uint64_t PageMoves::number_move() {
  return impl_->next_move++;
}

Status PageMoves::serve(uint64_t move, NodeId target, pid_t task, std::vector<PageRange> ranges,
                        std::function<void(Status)> done) {
  Impl& impl = *impl_;
  const auto waited = impl.expected.extract(move);
  if (!waited.empty() && waited.mapped().ended != 0) {
    impl.node.loop.post(
        [done = impl.alive.guard(std::move(done)), why = waited.mapped().ended]() mutable {
          done(Status(errno_error("the process ended before its pages came", why)));
        });
    return {};
  }
  auto source = PageSource::create(
      impl.node, move, target, task, std::move(ranges), impl.aside,
      {.ended = impl.alive.guard(std::move(done)),
       .drained = impl.alive.guard([&impl, move] { impl.sources.erase(move); })});
  if (!source) return source.error();
  impl.sources.emplace(move, std::move(*source));
  if (!waited.empty())
    for (const auto& message : waited.mapped().messages) message();
  return {};
}

void PageMoves::expect(uint64_t move, NodeId target) {
  impl_->expected[move].target = target;
}

void PageMoves::abandon(uint64_t move) {
  const auto waited = impl_->expected.extract(move);
  if (!waited.empty())  // there is no source of that number now: T is told so
    for (const auto& message : waited.mapped().messages) message();
  if (auto source = impl_->find_source(move)) source->abandon();
}

void PageMoves::receive(Arrival arrival) {
  Impl& impl = *impl_;
  if (arrival.supply) arrival.source = impl.node.self;
  if (arrival.supply) arrival.move = number_move();
  const Impl::Key key{arrival.source, arrival.move};
  auto target =
      std::make_shared<PageTarget>(impl.node, std::move(arrival), impl.aside,
                                   impl.alive.guard([&impl, key] { impl.targets.erase(key); }));
  impl.targets.insert_or_assign(key, target);
  target->start();
}

void PageMoves::lend(pid_t pid, UniqueFd userfaultfd) {
  impl_->lent[pid] = std::move(userfaultfd);
}

UniqueFd PageMoves::take_lent(pid_t pid) {
  auto found = impl_->lent.extract(pid);
  return found.empty() ? UniqueFd() : std::move(found.mapped());
}

void PageMoves::begin(pid_t pid) {
  for (const auto& [key, target] : std::map(impl_->targets))
    if (target->is_running(pid)) target->begin();
}

Status PageMoves::can_bring_later() {
  return PageSpace::can_serve();
}

bool PageMoves::awaits(pid_t pid, RemoteAddr address, uint64_t bytes) const {
  for (const auto& [key, target] : impl_->targets)
    if (target->awaits(pid, address, bytes)) return true;
  return false;
}

bool PageMoves::is_receiving(pid_t pid) const {
  return std::ranges::any_of(impl_->targets,
                             [pid](const auto& entry) { return entry.second->is_running(pid); });
}

void PageMoves::when_here(pid_t pid, RemoteAddr address, uint64_t bytes,
                          std::function<void()> done) {
  for (const auto& [key, target] : impl_->targets)
    if (target->awaits(pid, address, bytes))
      return target->when_here(pid, address, bytes, std::move(done));
  impl_->node.loop.post(std::move(done));
}

void PageMoves::when_touchable(pid_t tid, RemoteAddr address, size_t bytes,
                               std::function<void()> done) {
  auto process = read_process_status(tid);
  process ? when_here(process->pid, address, bytes, std::move(done)) : done();
}

// The arguments are brought one after the other: each is looked at again then.
bool PageMoves::delay(const SyscallBroker::Call& call, std::function<void()> resume) {
  auto process = read_process_status(call.tid());
  if (!process) return false;
  for (unsigned i = 0; i < 6; ++i) {
    const RemoteAddr argument{call.arg(i)};
    if (!awaits(process->pid, argument, kMostArgumentBytes)) continue;
    when_here(process->pid, argument, kMostArgumentBytes,
              impl_->alive.guard([this, &call, resume = std::move(resume)]() mutable {
                if (!delay(call, resume)) resume();
              }));
    return true;
  }
  return false;
}

std::shared_ptr<PageSource> PageMoves::Impl::find_source(uint64_t move) {
  auto found = sources.find(move);
  return found == sources.end() ? nullptr : found->second;
}

// Whether that is said to a task that is to come, which hears it then.
bool PageMoves::Impl::is_for_later(uint64_t move, std::function<void()> message) {
  auto found = expected.find(move);
  if (found == expected.end()) return false;
  found->second.messages.push_back(std::move(message));
  return true;
}

std::shared_ptr<PageTarget> PageMoves::Impl::find_target(NodeId source, uint64_t move) {
  auto found = targets.find({source, move});
  return found == targets.end() ? nullptr : found->second;
}

void PageMoves::Impl::take_messages_of_target() {
  node.messenger.on<PagesWanted>([this](NodeId from, const PagesWanted& wanted, std::string_view) {
    on_wanted(from, wanted);
  });
  node.messenger.on<PageDemand>(
      [this](NodeId, const PageDemand& demand, std::string_view) { on_demand(demand); });
  node.messenger.on<PageSlotFree>([this](NodeId, const PageSlotFree& free, std::string_view) {
    if (auto source = find_source(free.move)) source->on_slot_free(free.slot);
  });
  node.messenger.on_request<PagesEnd>(
      [this](NodeId, const PagesEnd& end, std::string_view, Messenger::Reply reply) {
        if (auto found = expected.find(end.move); found != expected.end())
          found->second.ended = end.error != 0 ? end.error : ESRCH;
        auto source = find_source(end.move);
        source ? source->on_end(end, std::move(reply)) : reply.ok();
      });
}

// Of a move that has ended here T has been told, but for one that was never begun.
void PageMoves::Impl::on_wanted(NodeId from, const PagesWanted& wanted) {
  if (is_for_later(wanted.move, [this, from, wanted] { on_wanted(from, wanted); })) return;
  auto source = find_source(wanted.move);
  if (source && source->target() == from) return source->on_wanted(wanted);
  PagesLost lost{.error = ESRCH, .move = wanted.move};
  if (Status sent = node.messenger.send(from, lost); !sent) return;  // its node has failed
}

void PageMoves::Impl::on_demand(const PageDemand& demand) {
  if (is_for_later(demand.move, [this, demand] { on_demand(demand); })) return;
  if (auto source = find_source(demand.move)) source->on_demand(demand.page);
}

void PageMoves::Impl::take_messages_of_source() {
  node.messenger.on<PageChunk>(
      [this](NodeId from, const PageChunk& chunk, std::string_view payload) {
        if (auto target = find_target(from, chunk.move)) target->on_chunk(chunk, payload);
      });
  node.messenger.on<PagesLost>([this](NodeId from, const PagesLost& lost, std::string_view) {
    if (auto target = find_target(from, lost.move)) target->on_lost(lost.error);
  });
}

void PageMoves::Impl::node_failed(NodeId failed) {
  for (const auto& [move, source] : std::map(sources))
    if (source->target() == failed) source->target_failed();
  for (auto& [move, awaited] : expected)
    if (awaited.target == failed) awaited.ended = EHOSTDOWN;
  for (const auto& [key, target] : std::map(targets))
    if (key.source == failed) target->on_lost(EHOSTDOWN);
}

}  // namespace krg
