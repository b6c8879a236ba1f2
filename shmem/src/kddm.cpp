// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/kddm.h"

#include <fmt/format.h>

#include <utility>

#include "kddm_recovery_run.h"
#include "kddm_server.h"
#include "krg/runtime/check.h"

namespace krg {

struct Kddm::Impl {
  explicit Impl(Messenger& messenger)
      : server(std::make_shared<kddm::Server>(messenger)),
        recovery(std::make_shared<kddm::RecoveryRun>(server)) {
    server->start();
    recovery->start();
  }
  std::shared_ptr<kddm::Server> server;
  std::shared_ptr<kddm::RecoveryRun> recovery;
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
  if (options.object_bytes < kMinObjectBytes || options.object_bytes > kMaxObjectBytes)
    return errno_error(fmt::format("set {}: objects of {} bytes (allowed: {} to {})", set.value,
                                   options.object_bytes, kMinObjectBytes, kMaxObjectBytes),
                       EINVAL);
  if (options.objects_per_manager == 0)
    return errno_error(fmt::format("set {}: no objects per manager", set.value), EINVAL);
  if (!options.linker) options.linker = make_zero_linker();
  if (!options.memory) options.memory = make_heap_memory(options.object_bytes);
  return impl_->server->open_set(set, std::move(options));
}

void Kddm::close_set(SetId set) {
  impl_->server->close_set(set);
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

std::span<const std::byte> Kddm::find(SetId id, ObjectId object) const {
  const kddm::Set* set = impl_->server->find_set(id);
  if (!set) return {};
  auto found = set->objects.find(object.value);
  if (found == set->objects.end() || !found->second.entry.has_data ||
      found->second.entry.drop_when_unpinned)
    return {};
  return found->second.bytes;
}

void Kddm::node_died(NodeId node) {
  impl_->recovery->node_died(node);
}

KddmStatistics Kddm::statistics(SetId id) const {
  const kddm::Set* set = impl_->server->find_set(id);
  check(set != nullptr, "a set is open while it is asked about");
  KddmStatistics statistics = set->statistics;
  for (const auto& [number, object] : set->objects)
    statistics.objects_here += object.entry.has_data;
  return statistics;
}

}  // namespace krg
