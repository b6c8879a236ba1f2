// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/kddm.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kddm_memory_limit.h"
#include "kddm_recovery_run.h"
#include "kddm_server.h"
#include "kddm_set_service.h"
#include "kddm_steps.h"
#include "krg/runtime/check.h"

namespace krg {

namespace {

// Checks the options and fills in what was left out.
Status complete(KddmSetOptions& options) {
  if (options.object_bytes < kMinObjectBytes || options.object_bytes > kMaxObjectBytes)
    return errno_error(fmt::format("a set with objects of {} bytes (allowed: {} to {})",
                                   options.object_bytes, kMinObjectBytes, kMaxObjectBytes),
                       EINVAL);
  if (options.objects_per_manager == 0)
    return errno_error("a set without objects per manager", EINVAL);
  if (!options.linker) options.linker = make_zero_linker();
  if (!options.memory) options.memory = make_heap_memory(options.object_bytes);
  return {};
}

std::span<const std::byte> valid_bytes(const kddm::Object& object) {
  if (!object.entry.has_data || object.entry.drop_when_unpinned) return {};
  return object.bytes;
}

}  // namespace

struct Kddm::Impl {
  explicit Impl(Messenger& messenger)
      : server(std::make_shared<kddm::Server>(messenger)),
        recovery(std::make_shared<kddm::RecoveryRun>(server)),
        services(std::make_shared<kddm::SetService>(server)),
        memory(std::make_shared<kddm::MemoryLimit>(server)) {
    server->start();
    recovery->start();
    services->start();
    memory->start();
  }
  std::shared_ptr<kddm::Server> server;
  std::shared_ptr<kddm::RecoveryRun> recovery;
  std::shared_ptr<kddm::SetService> services;
  std::shared_ptr<kddm::MemoryLimit> memory;
};

struct Kddm::Together::Scope {
  explicit Scope(std::shared_ptr<kddm::Server> s) : server(std::move(s)), scope(server->outbox) {}
  std::shared_ptr<kddm::Server> server;
  kddm::Outbox::Scope scope;
};

Kddm::Together::Together(Kddm& kddm) : scope_(std::make_unique<Scope>(kddm.impl_->server)) {}
Kddm::Together::~Together() = default;

Kddm::Kddm(Messenger& messenger) : impl_(std::make_unique<Impl>(messenger)) {}
Kddm::~Kddm() = default;

Status Kddm::open_set(SetId set, KddmSetOptions options) {
  if (Status valid = complete(options); !valid) return valid;
  return impl_->server->open_set(set, std::move(options));
}

void Kddm::destroy_set(SetId set, std::function<void()> done) {
  impl_->services->destroy(set, std::move(done));
}

void Kddm::close_set(SetId set) {
  impl_->server->close_set(set);
}

std::function<void()> Kddm::closer(SetId set) {
  return [set, server = std::weak_ptr(impl_->server)] {
    if (auto living = server.lock()) living->close_set(set);
  };
}

void Kddm::retire_set(SetId set) {
  impl_->server->close_set(set);
  impl_->server->ignore_set(set);
}

void Kddm::get(SetId set, ObjectId object, Touch touch, Granted granted) {
  impl_->server->start(set, object, touch, kddm::OpKind::kGet, std::move(granted));
}

void Kddm::grab(SetId set, ObjectId object, Touch touch, Granted granted) {
  impl_->server->start(set, object, touch, kddm::OpKind::kGrab, std::move(granted));
}

void Kddm::get_range(SetId set, ObjectId first, uint64_t count, Touch touch,
                     const GrantedOne& granted) {
  impl_->server->start_range(set, first, count, touch, kddm::OpKind::kGet, granted);
}

void Kddm::grab_range(SetId set, ObjectId first, uint64_t count, Touch touch,
                      const GrantedOne& granted) {
  impl_->server->start_range(set, first, count, touch, kddm::OpKind::kGrab, granted);
}

void Kddm::prefetch(SetId set, ObjectId first, uint64_t count) {
  impl_->server->prefetch(set, first, count);
}

Result<std::span<std::byte>> Kddm::try_get(SetId set, ObjectId object) {
  return impl_->server->try_pin(set, object, kddm::OpKind::kGet);
}

Result<std::span<std::byte>> Kddm::try_grab(SetId set, ObjectId object) {
  return impl_->server->try_pin(set, object, kddm::OpKind::kGrab);
}

void Kddm::put(SetId set, ObjectId object) {
  impl_->server->put(set, object);
}

void Kddm::remove(SetId set, ObjectId object, std::function<void()> done) {
  impl_->server->remove(set, object, std::move(done));
}

void Kddm::flush(SetId set, ObjectId object, NodeId target) {
  impl_->server->flush(set, object, target);
}

void Kddm::flush(SetId id, NodeId target) {
  const kddm::Set* set = impl_->server->find_set(id);
  if (!set) return;
  std::vector<ObjectId> here;
  for (const auto& [number, object] : set->objects)
    if (object.entry.has_data) here.push_back(ObjectId{number});
  const Together together(*this);
  for (const ObjectId object : here) flush(id, object, target);
}

void Kddm::set(SetId id, ObjectId object, std::string bytes, std::function<void(Status)> done) {
  impl_->server->replace(id, object, std::move(bytes), std::move(done));
}

void Kddm::sync(SetId set, ObjectId object, std::function<void(Status)> done) {
  impl_->services->sync(set, object, std::move(done));
}

void Kddm::set_memory_limit(size_t bytes) {
  impl_->memory->set(bytes);
}
size_t Kddm::memory_limit() const {
  return impl_->memory->limit();
}
size_t Kddm::memory_used() const {
  return impl_->server->bytes_here();
}

std::span<const std::byte> Kddm::find(SetId id, ObjectId object) const {
  const kddm::Set* set = impl_->server->find_set(id);
  if (!set) return {};
  auto found = set->objects.find(object.value);
  return found == set->objects.end() ? std::span<const std::byte>() : valid_bytes(found->second);
}

void Kddm::for_each(SetId id,
                    const std::function<void(ObjectId, std::span<const std::byte>)>& visit) const {
  const kddm::Set* set = impl_->server->find_set(id);
  if (!set) return;
  for (const auto& [number, object] : set->objects)
    if (const auto bytes = valid_bytes(object); !bytes.empty()) visit(ObjectId{number}, bytes);
}

Status Kddm::for_each_owned(SetId id, const std::function<void(ObjectId)>& visit) const {
  const kddm::Set* set = impl_->server->find_set(id);
  if (!set) return errno_error("objects of a set", EBADF);
  for (const auto& [number, object] : set->objects) {
    if (object.entry.lost) return errno_error("an object was lost with its node", EOWNERDEAD);
    if (!kddm::is_at_rest(object.entry)) return errno_error("objects are on their way", EAGAIN);
    if (object.entry.has_data && kddm::is_owner(object.entry)) visit(ObjectId{number});
  }
  return {};
}

void Kddm::node_died(NodeId node) {
  impl_->recovery->node_died(node);
}

KddmStatistics Kddm::statistics(SetId id) const {
  const kddm::Set* set = impl_->server->find_set(id);
  check(set != nullptr, "a set is open while it is asked about");
  KddmStatistics statistics = set->statistics;
  for (const auto& [number, object] : set->objects) {
    statistics.objects_here += object.entry.has_data;
    statistics.objects_owned += object.entry.has_data && kddm::is_owner(object.entry);
  }
  return statistics;
}

std::vector<KddmSetInfo> Kddm::sets() const {
  std::vector<KddmSetInfo> sets;
  for (const auto& [number, set] : impl_->server->sets())
    sets.push_back(
        {set->id, set->options.object_bytes, set->options.objects_per_manager, set->options.home});
  std::sort(sets.begin(), sets.end(),
            [](const KddmSetInfo& a, const KddmSetInfo& b) { return a.id < b.id; });
  return sets;
}

KddmTraffic Kddm::traffic() const {
  return {impl_->server->outbox.added(), impl_->server->outbox.sent()};
}

void Kddm::for_each_state(SetId id,
                          const std::function<void(ObjectId, std::string_view)>& visit) const {
  const kddm::Set* set = impl_->server->find_set(id);
  if (!set) return;
  for (const auto& [number, object] : set->objects)
    visit(ObjectId{number}, kddm::name_of(object.entry.state));
}

}  // namespace krg
