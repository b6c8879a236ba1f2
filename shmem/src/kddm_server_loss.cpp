// The server's part in the loss of nodes: what it knows of objects' existence, and how it stops and
// goes on. SPDX-License-Identifier: GPL-2.0-or-later
#include <utility>

#include "kddm_server.h"

namespace krg::kddm {

bool Server::put_off(std::function<void()> event) {
  held_events_.push_back(std::move(event));
  return true;
}

void Server::tell_existence(Set& set, ObjectId object, uint64_t version, bool exists) {
  const uint16_t slot = slot_of(set, object);
  const ExistenceNote note{set.id, object, version, slot, exists};
  send_note(ring_.manager(slot), note);
  if (ring_.mirror(slot) != ring_.manager(slot)) send_note(ring_.mirror(slot), note);
}

void Server::send_note(NodeId to, const ExistenceNote& note) {
  if (to == messenger.self()) return this->note(note);
  outbox.add(to, encode(note));
}

void Server::note(const ExistenceNote& note) {
  auto [at, fresh] = existence_[note.set.value].try_emplace(
      note.object.value, Existence{note.version, note.slot, note.exists});
  if (!fresh && at->second.version <= note.version)
    at->second = {note.version, note.slot, note.exists};
}

void Server::note_loss(SetId set, ObjectId object, uint16_t slot, uint64_t version) {
  if (ring_.manager(slot) == messenger.self() || ring_.mirror(slot) == messenger.self())
    note({set, object, version, slot, true});
}

bool Server::existed(SetId id, ObjectId object) const {
  if (auto set = existence_.find(id.value); set != existence_.end())
    if (auto known = set->second.find(object.value); known != set->second.end())
      return known->second.exists;
  // Its first owner may have died before it could tell.
  auto set = sets_.find(id.value);
  if (set == sets_.end()) return false;
  auto promised = set->second->directory.find(object.value);
  return promised != set->second->directory.end() && is_muted(promised->second.tail);
}

void Server::mirror_notes() {
  const Outbox::Scope scope(outbox);
  for (const auto& [set, objects] : existence_)
    for (const auto& [object, known] : objects)
      if (ring_.manager(known.slot) == messenger.self() &&
          ring_.mirror(known.slot) != messenger.self())
        send_note(ring_.mirror(known.slot),
                  {SetId{set}, ObjectId{object}, known.version, known.slot, known.exists});
}

void Server::apply(Set& set, ObjectId object, const Decision& decision) {
  if (place_of(set, object).manager == messenger.self())
    set.directory[object.value] = {decision.owner, 0};
  // A manager's fresh entry would own the object.
  if (decision.owner != messenger.self()) set.objects.try_emplace(object.value);
  step(set, object, {}, [&](Entry& e, const Place& p, Actions& a) { recover(e, p, decision, a); });
}

void Server::flush_out() {
  mode_ = Mode::kFlushing;
}

void Server::halt() {
  mode_ = Mode::kHalted;
  outbox.hold();
}

void Server::flush_out_again() {
  mode_ = Mode::kFlushing;
  outbox.discard();
  outbox.let_go();
  receive_held();
}

void Server::resume() {
  mode_ = Mode::kRunning;
  outbox.let_go();
  for (auto& call : std::exchange(held_calls_, {})) call();
  for (auto& event : std::exchange(held_events_, {})) event();
  receive_held();
}

// They have come before those that wait for memory now.
void Server::receive_held() {
  std::deque<Held> held = std::exchange(held_messages_, {});
  for (; !held.empty(); held.pop_back()) waiting_.push_front({.message = std::move(held.back())});
  receive_waiting();
}

}  // namespace krg::kddm
