// SpreadProcess: threads that come home when they get less done on several nodes than on one, and
// are sent away again, ever more seldom, to see whether it pays by now. Where anybody has said
// where a thread is to run (its program by its affinity, OMP_PLACES, a user by krg_migrate) nothing
// is gathered any more. SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include "krg/runtime/log.h"
#include "spread/gathering.h"
#include "spread/spread_process.h"

namespace krg {

void SpreadProcess::begin_gathering() {
  gathering_ = std::make_unique<Gathering>();
  gathering_timer_ = parts_.node.loop.every(Gathering::kPeriod, [this] { look_whether_it_pays(); });
}

void SpreadProcess::stop_gathering() {
  gathering_timer_.reset();
  gathering_.reset();
}

void SpreadProcess::look_whether_it_pays() {
  if (is_standing() || fork_ || inspection_ || is_stopped_ || is_asked_for_usage_ ||
      gathering_->rests(Gathering::Clock::now()))
    return;
  is_asked_for_usage_ = true;
  usage([this, alive = std::weak_ptr(alive_)](const Usage& elsewhere) {
    if (alive.expired()) return;
    is_asked_for_usage_ = false;
    if (gathering_ && !has_ended_) take_advice(elsewhere.process.user_ns);
  });
}

void SpreadProcess::take_advice(int64_t elsewhere_ns) {
  int64_t computed = elsewhere_ns;
  for (const auto& [tid, thread] : threads_)
    if (const auto times = read_task_times(parts_.pid, tid)) computed += times->used.user_ns;
  const PageSetStatistics faults = parts_.pages->statistics();
  const size_t processors = parts_.processors ? parts_.processors->own_numbers({}).size()
                                              : static_cast<size_t>(sysconf(_SC_NPROCESSORS_ONLN));
  const Gathering::Sample sample{
      .at = Gathering::Clock::now(),
      .computed = std::chrono::nanoseconds(computed),
      .returns = faults.read_faults + faults.write_faults - faults.answered_here,
      .threads = static_cast<unsigned>(threads_.size()),
      .processors = static_cast<unsigned>(processors)};
  switch (gathering_->look(sample)) {
    case Gathering::Advice::kStay:
      return;
    case Gathering::Advice::kGather:
      return gather();
    case Gathering::Advice::kSpread:
      return spread_again();
  }
}

void SpreadProcess::gather() {
  log_info("spread", "process {} waits for pages more than it computes: its threads come home",
           parts_.pid);
  parts_.on_gathered();
  gathered_from_.clear();
  for (const auto& [tid, thread] : std::map(threads_)) {
    if (thread->move || thread->node == parts_.node.self) continue;
    gathered_from_[tid] = thread->node;
    begin_move(thread, parts_.node.self, [](const Status&) {});
  }
}

void SpreadProcess::spread_again() {
  log_info("spread", "process {} has its threads on several nodes again, to see", parts_.pid);
  for (const auto& [tid, node] : std::exchange(gathered_from_, {})) {
    auto found = threads_.find(tid);
    if (found == threads_.end() || found->second->move || found->second->node == node) continue;
    begin_move(found->second, node, [](const Status&) {});
  }
}

}  // namespace krg
