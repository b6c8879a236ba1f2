// SpreadProcess: threads that bind themselves, or each other, to processors of the cluster
// (sched_setaffinity(2), by the numbers of /proc/cpuinfo). One that asks for another node's goes
// there and is bound there; one that asks for some of its own node's stays. Its original, which
// makes its system calls, has what is at home of what was asked for, or all of home's.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "krg/runtime/log.h"
#include "pid_call_table.h"
#include "spread/spread_process.h"

namespace krg {

// Before the process was spread: to other processors than the first thread, and so to this node's.
bool SpreadProcess::has_bound_itself(pid_t tid) const {
  return processors_of_thread(tid) != processors_of_thread(parts_.pid);
}

// It stays bound wherever it is from now on, and behind a restart.
void SpreadProcess::note_binding(const ThreadPtr& thread) {
  stop_gathering();
  if (!parts_.processors) return;
  parts_.processors->name(processors_of_thread(thread->traced->tid()),
                          [thread, alive = std::weak_ptr(alive_)](const ProcessorSet& bound) {
                            if (!alive.expired() && !thread->affinity) thread->affinity = bound;
                          });
}

void SpreadProcess::begin_affinity(const ThreadPtr& thread) {
  const auto named = static_cast<pid_t>(thread->entry.rdi);
  const auto found = named == 0 ? threads_.end() : threads_.find(named);
  const ThreadPtr target = found != threads_.end() ? found->second : thread;
  if (!parts_.processors || (named != 0 && found == threads_.end())) return resume(thread);
  const size_t bytes = std::min<size_t>(static_cast<uint32_t>(thread->entry.rsi), kMaxCallBuffer);
  read_memory(RemoteAddr{thread->entry.rdx}, bytes,
              [this, thread, target, alive = std::weak_ptr(alive_)](Result<std::string> mask) {
                if (alive.expired() || thread->is_gone) return;
                if (!mask || target->is_gone) return resume(thread);  // the kernel says why
                bind(thread, target, set_of_mask(*mask));
              });
}

void SpreadProcess::bind(const ThreadPtr& thread, const ThreadPtr& target,
                         const ProcessorSet& wanted) {
  parts_.processors->divide(wanted, [this, thread, target, wanted, alive = std::weak_ptr(alive_)](
                                        const SpreadProcessors::Parts& parts) {
    if (alive.expired() || thread->is_gone) return;
    const NodeId self = parts_.node.self;
    const auto has_replica = [&](NodeId node) {
      return node == self ||
             std::find(parts_.nodes.begin(), parts_.nodes.end(), node) != parts_.nodes.end();
    };
    const NodeId present = target->move ? target->move->target : target->node;
    auto chosen = parts.find(present);
    if (chosen == parts.end())
      chosen = std::find_if(parts.begin(), parts.end(),
                            [&](const auto& part) { return has_replica(part.first); });
    // An error of the kernel's.
    if (target->is_gone || chosen == parts.end()) return resume(thread);
    target->affinity = wanted;
    stop_gathering();
    if (chosen->first == self && present == self) return resume(thread);
    const NodeId node = chosen->first;
    const auto at_home = parts.find(self);
    bind_thread(
        target->traced->tid(),
        parts_.processors->own_numbers(at_home == parts.end() ? ProcessorSet{} : at_home->second));
    if (node == present && !target->move) bind_elsewhere(target);
    // The caller itself goes before its call ends; of another one it does not wait for that: it may
    // be binding the caller.
    if (node == present) return skip(thread, 0);
    move(target->traced->tid(), node, [tid = target->traced->tid(), node](const Status& moved) {
      if (!moved)
        log_info("spread", "thread {} does not go to its processors on node {}: {}", tid,
                 node.value, moved.error().message());
    });
    skip(thread, 0);
  });
}

// It runs elsewhere, where it is to have these processors.
void SpreadProcess::bind_elsewhere(const ThreadPtr& thread) {
  BindThread ask;
  ask.set = set().value;
  ask.tid = thread->traced->tid();
  parts_.processors->divide(
      *thread->affinity, [this, node = thread->node, ask,
                          alive = std::weak_ptr(alive_)](const SpreadProcessors::Parts& parts) {
        const auto own = parts.find(node);
        if (alive.expired() || own == parts.end()) return;
        const size_t bytes = *own->second.rbegin() / 8 + 1;
        static_cast<void>(parts_.node.messenger.send(node, ask, mask_of_set(own->second, bytes)));
      });
}

std::optional<ProcessorSet> SpreadProcess::affinity_of(pid_t tid) const {
  auto found = threads_.find(tid);
  if (found == threads_.end()) return std::nullopt;
  const Thread& thread = *found->second;
  if (!thread.affinity) return std::nullopt;
  const ProcessorSet own =
      parts_.processors->part(*thread.affinity, thread.move ? thread.move->target : thread.node);
  // All of the cluster's, or none of those that it asked for.
  if (thread.affinity->size() >= parts_.processors->count() || own.empty()) return std::nullopt;
  return own;
}

}  // namespace krg
