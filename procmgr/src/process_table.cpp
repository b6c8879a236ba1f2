// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/process_table.h"

#include <dirent.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <map>
#include <set>

#include "exec_messages.h"
#include "process_places.h"

namespace krg {
namespace {

constexpr pid_t kInit = 1;

// Whether a process or zombie of this number, or a group, is there.
bool exists(pid_t pid_or_negative_group) {
  return kill(pid_or_negative_group, 0) == 0 || errno == EPERM;
}

template <class Map>
std::vector<pid_t> keys_of(const Map& map) {
  std::vector<pid_t> keys;
  for (const auto& [key, value] : map) keys.push_back(key);
  return keys;
}

}  // namespace

struct ProcessTable::Impl {
  NodeContext& node;
  std::map<pid_t, Shadow> shadows;
  std::map<pid_t, Body> bodies;
  std::shared_ptr<Claim::Claimed> claimed = std::make_shared<Claim::Claimed>();
  std::set<pid_t> hidden;
  std::map<pid_t, NodeId> strays;      // and where they are
  std::map<pid_t, Body> ended_bodies;  // that may have left processes in their group
  std::unique_ptr<ProcessPlaces> places;

  Impl(NodeContext& n, Kddm* kddm) : node(n) {
    if (kddm) {
      places = std::make_unique<ProcessPlaces>(node, *kddm);
      node.messenger.on_peer_failure([this](NodeId peer) { places->forget_node(peer); });
    }
    node.messenger.on_request<exec_messages::Locate>(
        [this](NodeId, const exec_messages::Locate& ask, std::string_view, Messenger::Reply reply) {
          auto where = locate_here(ask.pid);
          if (!where) return reply.fail(where.error().errno_or(ESRCH));
          reply.ok({reinterpret_cast<const char*>(&*where), sizeof *where});
        });
  }

  // REQUIRES: born here or executing here; else ESRCH.
  Result<NodeId> locate_here(pid_t pid) const {
    if (auto found = shadows.find(pid); found != shadows.end()) return found->second.body_node;
    if (exists(pid)) return node.self;
    return errno_error("no such process", ESRCH);
  }
  // What another node's process, or one that has left this node, was last said to be.
  std::optional<NodeId> copy_of(GlobalPid pid, NodeId home) const {
    return places && !node.messenger.is_failed(home) ? places->copy_of(pid.value) : std::nullopt;
  }
  void forget_empty_groups() {
    std::erase_if(ended_bodies, [](const auto& entry) { return !exists(-entry.first); });
  }
};

ProcessTable::ProcessTable(NodeContext& node, Kddm* kddm)
    : impl_(std::make_unique<Impl>(node, kddm)) {}
ProcessTable::~ProcessTable() = default;

Result<ProcessTable::Claim> ProcessTable::claim(pid_t pid) {
  if (impl_->claimed->emplace(pid, Claim::Ends::kNone).second) return Claim(impl_->claimed, pid);
  return errno_error("it is about to exec on another node, or to move", EBUSY);
}
bool ProcessTable::ends_waits_for_children(pid_t pid) const {
  auto found = impl_->claimed->find(pid);
  return found != impl_->claimed->end() && found->second == Claim::Ends::kAll;
}
bool ProcessTable::ends_waits(pid_t pid) const {
  auto found = impl_->claimed->find(pid);
  return found != impl_->claimed->end() && found->second != Claim::Ends::kNone;
}
void ProcessTable::Claim::end_waits() {
  claimed_->at(pid_) = Ends::kAll;
}
void ProcessTable::Claim::end_waits_but_for_children() {
  claimed_->at(pid_) = Ends::kAllButForChildren;
}
ProcessTable::Claim::~Claim() {
  if (claimed_) claimed_->erase(pid_);
}

void ProcessTable::add_shadow(pid_t pid, Shadow shadow) {
  impl_->shadows.insert_or_assign(pid, shadow);
  if (impl_->places && !shadow.is_guardian()) impl_->places->tell(pid, shadow.body_node);
}
void ProcessTable::remove_shadow(pid_t pid) {
  auto gone = impl_->shadows.extract(pid);
  if (gone && impl_->places && !gone.mapped().is_guardian()) impl_->places->tell(pid, kNoNode);
}
void ProcessTable::when_known(pid_t pid, std::function<void()> known) {
  impl_->places ? impl_->places->when_known(pid, std::move(known)) : known();
}
const ProcessTable::Shadow* ProcessTable::find_shadow(pid_t pid) const {
  auto found = impl_->shadows.find(pid);
  return found == impl_->shadows.end() ? nullptr : &found->second;
}
std::vector<pid_t> ProcessTable::shadows() const {
  return keys_of(impl_->shadows);
}

void ProcessTable::add_body(pid_t pid, Body body) {
  impl_->ended_bodies.erase(pid);
  impl_->hidden.erase(pid);
  impl_->bodies.insert_or_assign(pid, body);
}
void ProcessTable::remove_body(pid_t pid) {
  auto found = impl_->bodies.find(pid);
  if (found == impl_->bodies.end()) return;
  impl_->ended_bodies.insert_or_assign(pid, found->second);
  impl_->bodies.erase(found);
  impl_->forget_empty_groups();
}
ProcessTable::Body* ProcessTable::find_body(pid_t pid) {
  auto found = impl_->bodies.find(pid);
  return found == impl_->bodies.end() ? nullptr : &found->second;
}
std::vector<pid_t> ProcessTable::bodies() const {
  return keys_of(impl_->bodies);
}
ProcessTable::Body* ProcessTable::find_group(pid_t group) {
  if (Body* living = find_body(group)) return living;
  impl_->forget_empty_groups();
  auto found = impl_->ended_bodies.find(group);
  return found == impl_->ended_bodies.end() ? nullptr : &found->second;
}

bool ProcessTable::has_groups() const {
  return !impl_->bodies.empty() || !impl_->ended_bodies.empty();
}

void ProcessTable::hide(pid_t pid) {
  std::erase_if(impl_->hidden, [](pid_t hidden) { return !exists(hidden); });
  impl_->hidden.insert(pid);
}
void ProcessTable::forget_hidden(pid_t pid) {
  impl_->hidden.erase(pid);
}
bool ProcessTable::is_hidden(pid_t pid) const {
  return impl_->hidden.contains(pid);
}

std::vector<pid_t> ProcessTable::local_processes() const {
  std::vector<pid_t> processes;
  std::unique_ptr<DIR, int (*)(DIR*)> proc(opendir("/proc"), closedir);
  if (!proc) return processes;
  while (const dirent* entry = readdir(proc.get())) {
    pid_t pid = 0;
    const char* end = entry->d_name + strlen(entry->d_name);
    auto [stop, error] = std::from_chars(entry->d_name, end, pid);
    if (error != std::errc{} || stop != end || pid == kInit || pid == getpid()) continue;
    if (!find_shadow(pid) && !is_hidden(pid)) processes.push_back(pid);
  }
  return processes;
}

void ProcessTable::add_stray(GlobalPid pid, NodeId home) {
  if (home != impl_->node.pids.origin(pid)) impl_->strays.insert_or_assign(pid.value, home);
}
void ProcessTable::forget_stray(GlobalPid pid) {
  impl_->strays.erase(pid.value);
}
NodeId ProcessTable::home_of(GlobalPid pid) const {
  const auto stray = impl_->strays.find(pid.value);
  return stray == impl_->strays.end() ? impl_->node.pids.origin(pid) : stray->second;
}
bool ProcessTable::executes_here(pid_t pid) const {
  return !find_shadow(pid) && (is_at_home(GlobalPid{pid}) || impl_->bodies.contains(pid));
}
bool ProcessTable::is_at_home(GlobalPid pid) const {
  return pid.value > 0 && home_of(pid) == impl_->node.self;
}

void ProcessTable::locate(GlobalPid pid, std::function<void(Result<NodeId>)> done) {
  if (pid.value <= 0) return done(errno_error("no such process", ESRCH));
  if (find_body(pid.value)) return done(impl_->node.self);
  const NodeId origin = home_of(pid);
  if (origin == impl_->node.self || origin.value >= impl_->node.node_count)
    return done(impl_->locate_here(pid.value));
  if (const auto known = impl_->copy_of(pid, origin)) return done(*known);
  exec_messages::Locate ask;
  ask.pid = pid.value;
  impl_->node.messenger.request(
      origin, ask, {}, [this, pid, origin, done = std::move(done)](Result<std::string> reply) {
        NodeId where;
        // A stray that has ended: the number may be another's by now.
        if (!reply && reply.error().errno_or(0) == ESRCH && impl_->strays.erase(pid.value) > 0)
          return locate(pid, done);
        if (!reply) return done(reply.error());
        if (reply->size() != sizeof where) return done(errno_error("locate", EPROTO));
        memcpy(&where, reply->data(), sizeof where);
        if (where != origin && impl_->places) impl_->places->fetch(pid.value);
        done(where);
      });
}

}  // namespace krg
