// SpreadProcess: threads that are told to run elsewhere (krg_migrate). One that is away comes home
// first; one at home is sent from the next stop in which it is about to run the program's code.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "image/known_mappings.h"
#include "spread/spread_process.h"

namespace krg {
namespace {

// What the kernel's own code reads there is another node's clock from one instruction to the next.
bool is_in_vdso(pid_t pid, uint64_t instruction) {
  auto mappings = MappingTexts::read_maps(pid);
  if (!mappings) return false;
  return std::any_of(mappings->all().begin(), mappings->all().end(),
                     [&](const MappingText& mapping) {
                       return mapping.name == "[vdso]" && mapping.start <= instruction &&
                              instruction < mapping.end;
                     });
}

}  // namespace

void SpreadProcess::move(pid_t tid, NodeId target, Done done) {
  if (is_put_off([this, tid, target, done] { move(tid, target, done); })) return;
  auto found = threads_.find(tid);
  if (found == threads_.end()) return done(errno_error("no such thread", ESRCH));
  const ThreadPtr thread = found->second;
  if (thread->move) return done(errno_error("it is about to move already", ENOTSUP));
  if (thread->node == target) return done({});
  const bool is_known =
      target == parts_.node.self ||
      std::find(parts_.nodes.begin(), parts_.nodes.end(), target) != parts_.nodes.end();
  if (!is_known)
    return done(
        errno_error(fmt::format("its process is not spread to node {}", target.value), ENOTSUP));
  stop_gathering();
  begin_move(thread, target, std::move(done));
}

void SpreadProcess::begin_move(const ThreadPtr& thread, NodeId target, Done done) {
  thread->move = Thread::Move{target, std::move(done)};
  go_on_move(thread);
}

void SpreadProcess::go_on_move(const ThreadPtr& thread) {
  if (thread->node != parts_.node.self) {
    if (!thread->is_recalled) recall(thread);
    if (thread->is_in_call) thread->traced->interrupt();
    return;
  }
  if (thread->move->target == parts_.node.self) return end_move(thread, {});
  thread->traced->interrupt();
  if (thread->stands == Stands::kInTeamCall) teams_.interrupt(thread->traced->tid());
}

// At home, in a stop, about to run on.
void SpreadProcess::stand_for_move(const ThreadPtr& thread) {
  if (!thread->move) return resume(thread);
  if (thread->node != parts_.node.self) return thread->traced->resume(PTRACE_SYSCALL);
  const NodeId target = thread->move->target;
  if (target == parts_.node.self) {
    end_move(thread, {});
    return resume(thread);
  }
  auto registers = thread->traced->registers();
  if (!registers) return;  // its end is told
  if (is_in_vdso(parts_.pid, registers->rip)) {
    return resume(thread);
  }
  send_away(thread, target);
}

void SpreadProcess::end_move(const ThreadPtr& thread, const Status& moved) {
  if (auto move = std::exchange(thread->move, std::nullopt)) move->done(moved);
}

// It has come home in the middle of a call that it made for itself, and goes on behind it here.
void SpreadProcess::stay_in_call(const ThreadPtr& thread) {
  static_cast<void>(thread->traced->set_extended_state(thread->returned->extended_state));
  thread->returned.reset();
  runs_on(thread, parts_.node.self);
  thread->is_recalled = false;
  thread->is_in_call = false;
  thread->call.reset();
}

}  // namespace krg
