// SPDX-License-Identifier: GPL-2.0-or-later
#include "kddm_set_service.h"

#include <fmt/format.h>

#include <cstring>
#include <functional>
#include <utility>

#include "krg/runtime/check.h"

namespace krg::kddm {
namespace {

// Answers several parties' "done" once.
class WhenAll {
 public:
  explicit WhenAll(std::function<void()> done) : done_(std::move(done)) {}
  ~WhenAll() { done_(); }
  WhenAll(const WhenAll&) = delete;
  WhenAll& operator=(const WhenAll&) = delete;

 private:
  std::function<void()> done_;
};

}  // namespace

struct SetService::DestroyRequest {
  static constexpr uint16_t kId = kMessageIds + 4;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};

// To the object's manager, which sends it on to who owns it or got ownership promised.
struct SetService::SyncRequest {
  static constexpr uint16_t kId = kMessageIds + 5;
  uint8_t version = 1;
  uint8_t directed = 0;
  uint8_t unused[6] = {};
  uint64_t set = 0;
  uint64_t object = 0;
};

SetService::SetService(std::shared_ptr<Server> server)
    : server_(std::move(server)), messenger_(server_->messenger) {}

void SetService::start() {
  static_assert(sizeof(DestroyRequest) == 16 && sizeof(SyncRequest) == 24);
  auto weak = weak_from_this();
  messenger_.on_request<DestroyRequest>(
      [weak](NodeId, const DestroyRequest& request, std::string_view, Messenger::Reply reply) {
        if (auto self = weak.lock()) {
          self->server_->close_set(SetId{request.set});
          self->server_->ignore_set(SetId{request.set});
        }
        reply.ok();
      });
  messenger_.on_request<SyncRequest>(
      [weak](NodeId from, const SyncRequest& request, std::string_view, Messenger::Reply reply) {
        if (auto self = weak.lock()) self->answer_sync(from, request, std::move(reply));
      });
}

void SetService::destroy(SetId set, std::function<void()> done) {
  auto all = std::make_shared<WhenAll>(std::move(done));
  for (unsigned n = 0; n < messenger_.node_count(); ++n) {
    const NodeId node{static_cast<uint16_t>(n)};
    if (server_->is_muted(node)) continue;
    messenger_.request(node, DestroyRequest{.set = set.value}, {},
                       [all](const Result<std::string>&) {});
  }
}

void SetService::sync(SetId set, ObjectId object, std::function<void(Status)> done) {
  const Set* here = server_->find_set(set);
  if (!here) return done(errno_error(fmt::format("set {} is not open here", set.value), EBADF));
  messenger_.request(server_->place_of(*here, object).manager,
                     SyncRequest{.set = set.value, .object = object.value}, {},
                     [done = std::move(done)](const Result<std::string>& reply) {
                       done(reply ? Status() : Status(reply.error()));
                     });
}

void SetService::answer_sync(NodeId, const SyncRequest& request, Messenger::Reply reply) {
  const SetId id{request.set};
  const ObjectId object{request.object};
  const Set* set = server_->find_set(id);
  if (!set) return reply.fail(EBADF, "the set is not open here");
  if (request.directed) return sync_here(id, object, std::move(reply));
  SyncRequest directed = request;
  directed.directed = 1;
  auto later = std::make_shared<Messenger::Reply>(std::move(reply));
  messenger_.request(server_->tail_of(*set, object), directed, {},
                     [later](const Result<std::string>& written) {
                       if (written) return later->ok();
                       later->fail(written.error());
                     });
}

// Any valid copy is the object's newest content; the pin keeps writers out meanwhile.
void SetService::sync_here(SetId id, ObjectId object, Messenger::Reply reply) {
  auto later = std::make_shared<Messenger::Reply>(std::move(reply));
  auto write_back = [weak = weak_from_this(), id, object,
                     later](Result<std::span<std::byte>> bytes) {
    auto self = weak.lock();
    if (!self) return;
    if (!bytes) return later->fail(bytes.error());
    Set* set = self->server_->find_set(id);
    if (!set) return later->fail(ECANCELED);
    auto linker = set->options.linker;
    linker->sync(object, *bytes, [weak, id, object, later, linker](Status written) {
      if (auto alive = weak.lock()) alive->server_->put(id, object);
      if (written) return later->ok();
      later->fail(written.error());
    });
  };
  server_->start(id, object, Kddm::Touch::kNoFirstTouch, OpKind::kGet, std::move(write_back));
}

}  // namespace krg::kddm
