// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/replica_host.h"

#include <fcntl.h>

#include <cstring>
#include <vector>

#include "krg/runtime/log.h"
#include "spread/saved_pages.h"

namespace krg {

ReplicaHost::ReplicaHost(NodeContext& node, Kddm& kddm, SyscallBroker& broker, ProcessTable& table,
                         const UserfaultSource& source, const NodeResources& resources,
                         Patience& patience)
    : node_(node),
      kddm_(kddm),
      table_(table),
      source_(source),
      resources_(resources),
      patience_(patience),
      spawner_(node, broker),
      installer_(node, spawner_) {
  take_messages();
}

void ReplicaHost::take_messages() {
  Messenger& messenger = node_.messenger;
  messenger.on_request<OpenSpreadSet>(
      [this](NodeId from, const OpenSpreadSet& ask, std::string_view, Messenger::Reply reply) {
        Status opened = open(from, ask);
        opened ? reply.ok() : reply.fail(opened.error());
      });
  messenger.on_request<StartReplica>(
      [this](NodeId, const StartReplica& ask, std::string_view payload, Messenger::Reply reply) {
        start(ask.set, payload, std::move(reply));
      });
  messenger.on_request<EndSpread>(
      [this](NodeId, const EndSpread& ask, std::string_view, Messenger::Reply reply) {
        auto hosted = find(ask.set);
        if (!hosted) return reply.ok();
        hosted->ended.push_back(std::move(reply));
        end(ask.set);
      });
  messenger.on_request<ChangeMemory>(
      [this](NodeId, const ChangeMemory& ask, std::string_view, Messenger::Reply reply) {
        change(ask, std::move(reply));
      });
  messenger.on_request<SendThread>(
      [this](NodeId, const SendThread& ask, std::string_view payload, Messenger::Reply reply) {
        auto hosted = find(ask.set);
        auto state = ThreadState::parse(payload);
        if (!hosted || !hosted->replica || !state) return reply.fail(ESRCH, "no replica");
        auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
        hosted->replica->take(ask, std::move(*state), [shared](Status taken) {
          taken ? shared->ok() : shared->fail(taken.error());
        });
      });
  messenger.on<RecallThread>([this](NodeId, const RecallThread& ask, std::string_view) {
    if (auto hosted = find(ask.set); hosted && hosted->replica) hosted->replica->recall(ask.tid);
  });
  messenger.on<BindThread>([this](NodeId, const BindThread& ask, std::string_view mask) {
    auto hosted = find(ask.set);
    if (!hosted || !hosted->replica) return;
    const auto own = to_node(set_of_mask(mask), {.own = resources_.own_processors()});
    if (own) hosted->replica->bind(ask.tid, *own);
  });
  messenger.on_request<HoldThreads>([this](NodeId, const HoldThreads& ask, std::string_view,
                                           Messenger::Reply reply) {
    auto hosted = find(ask.set);
    if (!hosted || !hosted->replica) return reply.fail(ESRCH, "no replica");
    hosted->replica->hold(ask.why, [why = ask.why, weak = std::weak_ptr(hosted),
                                    shared = std::make_shared<Messenger::Reply>(std::move(reply))] {
      auto holding = weak.lock();
      if (why != HoldThreads::Why::kDebugger || !holding || !holding->replica) return shared->ok();
      shared->ok(holding->replica->captured_threads().serialize());
    });
  });
  messenger.on_request<TellThreads>(
      [this](NodeId, const TellThreads& ask, std::string_view, Messenger::Reply reply) {
        auto hosted = find(ask.set);
        if (!hosted || !hosted->replica) return reply.fail(ESRCH, "no replica");
        reply.ok(hosted->replica->captured_threads().serialize());
      });
  messenger.on_request<SetBreakpoint>(
      [this](NodeId, const SetBreakpoint& ask, std::string_view, Messenger::Reply reply) {
        auto hosted = find(ask.set);
        if (hosted && hosted->replica) hosted->replica->set_breakpoint(ask);
        reply.ok();
      });
  messenger.on<StepThread>([this](NodeId, const StepThread& ask, std::string_view) {
    if (auto hosted = find(ask.set); hosted && hosted->replica) hosted->replica->step(ask);
  });
  messenger.on_request<TellUsage>(
      [this](NodeId, const TellUsage& ask, std::string_view, Messenger::Reply reply) {
        auto hosted = find(ask.set);
        if (!hosted || !hosted->replica) return reply.fail(ESRCH, "no replica");
        const auto all = hosted->replica->usage();
        std::string answer(reinterpret_cast<const char*>(&hosted->signs.sum()), sizeof(FaultSum));
        answer.append(reinterpret_cast<const char*>(all.data()), all.size() * sizeof all.front());
        reply.ok(answer);
      });
  messenger.on_request<TellWritten>(
      [this](NodeId, const TellWritten& ask, std::string_view, Messenger::Reply reply) {
        auto hosted = find(ask.set);
        if (!hosted || !hosted->replica) return reply.fail(ESRCH, "no replica");
        reply.ok(PageMarks::pack(hosted->pages->take_written()));
      });
  messenger.on<HoldThreads>([this](NodeId, const HoldThreads& ask, std::string_view) {
    if (auto hosted = find(ask.set); hosted && hosted->replica) hosted->replica->release(ask.why);
  });
  messenger.on<TeamGo>([this](NodeId, const TeamGo& tell, std::string_view payload) {
    auto hosted = find(tell.set);
    if (!hosted || !hosted->replica) return;
    std::vector<int32_t> tids(payload.size() / sizeof(int32_t));
    std::memcpy(tids.data(), payload.data(), tids.size() * sizeof(int32_t));
    hosted->replica->go(tell, {tids.begin(), tids.end()});
  });
  messenger.on<TeamHasTasks>([this](NodeId, const TeamHasTasks& tell, std::string_view) {
    if (auto hosted = find(tell.set); hosted && hosted->replica)
      hosted->replica->has_tasks(tell.team);
  });
  messenger.on<FutexWoken>([this](NodeId, const FutexWoken& tell, std::string_view) {
    if (auto hosted = find(tell.set); hosted && hosted->replica) hosted->replica->woken(tell.tid);
  });
  messenger.on<TellReplicaOfWriters>(
      [this](NodeId from, const TellReplicaOfWriters& tell, std::string_view message) {
        if (auto hosted = find(tell.set)) hosted->pages->take_writers_message(from, message);
      });
  messenger.on_peer_failure([this](NodeId failed) {
    for (const auto& [set, hosted] : std::map(hosted_))
      if (hosted->home == failed) end(set);
  });
}

ReplicaHost::HostedPtr ReplicaHost::find(uint64_t set) const {
  auto found = hosted_.find(set);
  return found == hosted_.end() ? nullptr : found->second;
}

Status ReplicaHost::open(NodeId home, const OpenSpreadSet& ask) {
  auto pages =
      PageSet::create(node_.loop, kddm_, SetId{ask.set}, ask.pages, spread_pages(node_, home));
  if (!pages) return pages.error();
  (*pages)->on_idle([this, set = ask.set] { drop_if_unused(set); });
  auto hosted = std::make_shared<Hosted>(Hosted{.home = home, .pages = std::move(*pages)});
  hosted_[ask.set] = hosted;
  hosted->patience = static_cast<Patience::Kind>(ask.patience);
  if (ask.counts) hosted->counts.emplace();
  watch_faults(hosted);
  if (ask.multiple_writers) allow_multiple_writers(*hosted);
  return {};
}

void ReplicaHost::allow_multiple_writers(const Hosted& hosted) {
  MultipleWritersOptions options;
  options.self = node_.self;
  options.home = hosted.home;
  options.asks_home = node_.node_count > 2;
  options.send = [this, set = hosted.pages->id().value](NodeId to, const std::string& message) {
    TellHomeOfWriters tell;
    tell.set = set;
    static_cast<void>(node_.messenger.send(to, tell, message));
  };
  hosted.pages->allow_multiple_writers(std::move(options));
}

void ReplicaHost::watch_faults(const HostedPtr& hosted) {
  hosted->pages->on_fault([weak = std::weak_ptr(hosted)](const PageFault& fault) {
    auto watching = weak.lock();
    if (!watching || !watching->replica) return;
    watching->signs.add(fault, FaultSigns::Clock::now());
    if (!watching->counts) return;
    const pid_t thread = watching->replica->thread_at_home(fault.thread);
    const TeamPhase phase = watching->replica->phase_of(thread);
    watching->counts->enter(thread, {phase.region(), phase.site()});
    watching->counts->add_fault(thread, fault);
  });
}

// --- a replica's beginning ----------------------------------------------------------------------

void ReplicaHost::start(uint64_t set, std::string_view payload, Messenger::Reply reply) {
  auto hosted = find(set);
  auto parsed = SpreadImage::parse(payload);
  if (!hosted || hosted->replica || hosted->pid != 0 || !parsed)
    return reply.fail(EBADMSG, "a replica");
  auto image = std::make_shared<SpreadImage>(std::move(*parsed));
  auto answer = std::make_shared<Messenger::Reply>(std::move(reply));
  for (const SpreadRange& range : image->ranges) {
    const size_t end = range.first.value + range.bytes / kPageBytes;
    if (end <= hosted->pages->pages()) continue;
    if (auto grown = hosted->pages->resize(end); !grown)
      return answer->fail(ENOMEM, grown.error().context);
  }
  hosted->pid = image->image.threads.front().tid;
  ImageInstaller::Request request;
  request.image = image->image;
  request.late_pages = &source_;
  request.origin_keeps_signals = true;
  request.own_session = true;  // no terminal knows it
  UniqueFd memory(fcntl(hosted->pages->memory(), F_DUPFD_CLOEXEC, 0));
  request.fds.push_back({Replica::kMemoryFd, std::move(memory)});
  request.on_created = [this, pid = hosted->pid] { table_.hide(pid); };
  installer_.install(std::move(request), [this, set, image, answer](
                                             Result<std::unique_ptr<InstalledProcess>> installed) {
    on_installed(set, *image, std::move(installed), std::move(*answer));
  });
}

void ReplicaHost::on_installed(uint64_t set, const SpreadImage& image,
                               Result<std::unique_ptr<InstalledProcess>> installed,
                               Messenger::Reply reply) {
  auto hosted = find(set);
  if (!installed) {
    if (hosted) table_.forget_hidden(hosted->pid);
    return reply.fail(installed.error());
  }
  if (!hosted || hosted->is_ending) return;
  auto replica = Replica::create({node_,
                                  *hosted->pages,
                                  SetId{set},
                                  hosted->home,
                                  {&patience_, hosted->patience},
                                  hosted->signs},
                                 **installed, image, [this, set] { replica_ended(set); });
  if (!replica) return reply.fail(replica.error());
  hosted->replica = std::move(*replica);
  reply.ok();
}

// --- mappings -----------------------------------------------------------------------------------

void ReplicaHost::change(const ChangeMemory& change, Messenger::Reply reply) {
  auto hosted = find(change.set);
  if (!hosted || !hosted->replica) return reply.fail(ESRCH, "no replica");
  if (change.set_pages > hosted->pages->pages())
    if (auto grown = hosted->pages->resize(change.set_pages); !grown)
      return reply.fail(ENOMEM, grown.error().context);
  auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
  hosted->replica->change(
      change, [shared](Status changed) { changed ? shared->ok() : shared->fail(changed.error()); });
}

// --- its end ------------------------------------------------------------------------------------

void ReplicaHost::end(uint64_t set) {
  auto hosted = find(set);
  if (!hosted) return;
  hosted->is_ending = true;
  if (hosted->pid != 0) table_.forget_hidden(hosted->pid);
  // One of its own callbacks may be what tells.
  node_.loop.post([this, hosted, set] {
    hosted->replica.reset();
    drop_if_unused(set);
  });
}

void ReplicaHost::drop_if_unused(uint64_t set) {
  auto hosted = find(set);
  if (!hosted || !hosted->is_ending || hosted->replica || hosted->pages->mapping_count() > 0)
    return;
  hosted_.erase(set);
  node_.loop.post([hosted] {
    hosted->pages.reset();
    const std::string counts = hosted->counts ? hosted->counts->serialize() : std::string();
    for (Messenger::Reply& reply : hosted->ended) reply.ok(counts);
  });
}

void ReplicaHost::replica_ended(uint64_t set) {
  auto hosted = find(set);
  if (!hosted || hosted->is_ending) return;
  ReplicaLost lost;
  lost.set = set;
  static_cast<void>(node_.messenger.send(hosted->home, lost));
}

}  // namespace krg
