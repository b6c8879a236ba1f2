// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/kddm_service.h"

#include <map>
#include <utility>

#include "client_session.h"

namespace krg {

struct KddmService::Impl {
  Messenger& messenger;
  Kddm& kddm;
  std::shared_ptr<SetUses> uses = std::make_shared<SetUses>();
  std::weak_ptr<Impl> self;
  std::map<uint64_t, std::shared_ptr<ClientSession>> sessions;
  uint64_t next_session = 1;
  SetNames names{messenger, kddm, [this](SetId set, std::function<void()> stopped) {
                   stop(set, std::move(stopped));
                 }};

  ClientBarriers barriers{messenger};

  Impl(Messenger& m, Kddm& k) : messenger(m), kddm(k) {}

  void stop(SetId set, std::function<void()> stopped) {
    uses->forget_closed([this](SetId other) { return names.find(other).has_value(); });
    uses->stop(set, std::move(stopped));
    for (auto& [id, session] : sessions) session->release_pins_of(set);
  }

  void connect(ControlServer::Reply reply) {
    if (sessions.size() >= kMaxClients)
      return reply.fail(errno_error("this node has as many KDDM clients as it takes", EUSERS));
    auto arena = PinArena::create();
    if (!arena) return reply.fail(arena.error());
    auto pair = seqpacket_pair();
    if (!pair) return reply.fail(pair.error());
    auto session = std::make_shared<ClientSession>(
        ClientSession::Parts{messenger, kddm, names, barriers, uses}, std::move(pair->first),
        std::move(*arena));
    const uint64_t id = next_session++;
    auto started = session->start([this, id] { sessions.erase(id); });
    if (!started) return reply.fail(started.error());
    const int fds[] = {pair->second.get(), session->memory()};
    sessions.emplace(id, std::move(session));
    reply.ok({{"node", messenger.self().value}, {"nodes", messenger.node_count()}}, fds);
  }
};

KddmService::KddmService(Messenger& messenger, Kddm& kddm)
    : impl_(std::make_shared<Impl>(messenger, kddm)) {
  impl_->self = impl_;
}
KddmService::~KddmService() = default;

void KddmService::add_commands(ControlServer& server) {
  server.add_command(client_wire::kConnectCommand,
                     [weak = impl_->self](ControlServer::Request, ControlServer::Reply reply) {
                       if (auto impl = weak.lock()) impl->connect(std::move(reply));
                     });
}

size_t KddmService::client_count() const {
  return impl_->sessions.size();
}

}  // namespace krg
