// SpreadProcess: threads that come home when they get less done on several nodes than on one, and
// are sent away again, ever more seldom, to see whether it pays by now. Where anybody has said
// where a thread is to run (its program by its affinity, OMP_PLACES, a user by krg_migrate) nothing
// is gathered any more. At home, where some of them share a processor, they have short turns if
// they get on faster with them. SPDX-License-Identifier: GPL-2.0-or-later
#include <utility>

#include "krg/runtime/log.h"
#include "krg/runtime/short_turns.h"
#include "spread/gathering.h"
#include "spread/spread_process.h"

namespace krg {
namespace {

// As short as krgd's own: a word that was written is found by who looks for it behind one of them.
constexpr std::chrono::microseconds kShortTurn{100};
// Threads that use less of home's processors than one part of so many rest most of the time; others
// that get no more may have to share them with other programs.
constexpr int64_t kBusyPart = 10;

}  // namespace

void SpreadProcess::begin_gathering() {
  gathering_ = std::make_unique<Gathering>();
  gathering_timer_ = parts_.node.loop.every(Gathering::kPeriod, [this] { look_whether_it_pays(); });
}

void SpreadProcess::stop_gathering() {
  gathering_timer_.reset();
  gathering_.reset();
  short_turns_.reset();
}

void SpreadProcess::look_whether_it_pays() {
  if (gathering_->is_gathered()) take_short_turns();
  if (is_standing() || fork_ || inspection_ || is_stopped_ || is_asked_for_usage_ ||
      gathering_->rests(Gathering::Clock::now()))
    return;
  is_asked_for_usage_ = true;
  usage([this, alive = std::weak_ptr(alive_)](const Usage& elsewhere) {
    if (alive.expired()) return;
    is_asked_for_usage_ = false;
    if (gathering_ && !has_ended_) take_advice(elsewhere);
  });
}

int64_t SpreadProcess::computed_at_home() const {
  int64_t computed = 0;
  for (const auto& [tid, thread] : threads_)
    if (const auto times = read_task_times(parts_.pid, tid)) computed += times->used.user_ns;
  return computed;
}

ProcessorSet SpreadProcess::processors_at_home() const {
  return parts_.processors ? parts_.processors->own_numbers({}) : processors_of_thread(0);
}

void SpreadProcess::take_advice(const Usage& elsewhere) {
  const PageSetStatistics faults = parts_.pages->statistics();
  const Gathering::Sample sample{
      .at = Gathering::Clock::now(),
      .computed = std::chrono::nanoseconds(computed_at_home() + elsewhere.process.user_ns),
      .spun = std::chrono::nanoseconds(signs_->sum().spun_ns + elsewhere.faults.spun_ns),
      .returns = faults.read_faults + faults.write_faults - faults.answered_here,
      .returns_elsewhere = elsewhere.faults.returns,
      .waited = std::chrono::nanoseconds(signs_->sum().waited_ns + elsewhere.faults.waited_ns),
      .threads = static_cast<unsigned>(threads_.size()),
      .processors = static_cast<unsigned>(processors_at_home().size())};
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
  computed_gathered_ = computed_at_home();
  turn_trial_ = TurnTrial(stops_);
  gathered_from_.clear();
  for (const auto& [tid, thread] : std::map(threads_)) {
    if (thread->move || thread->node == parts_.node.self) continue;
    gathered_from_[tid] = thread->node;
    begin_move(thread, parts_.node.self, [](const Status&) {});
  }
}

// Once in each period.
void SpreadProcess::take_short_turns() {
  const ProcessorSet processors = processors_at_home();
  const auto period_ns = std::chrono::nanoseconds(Gathering::kPeriod).count();
  const int64_t computed = computed_at_home();
  const bool is_busy = computed - std::exchange(computed_gathered_, computed) >
                       static_cast<int64_t>(processors.size()) * period_ns / kBusyPart;
  const bool had_shown = turn_trial_.has_shown();
  const bool wanted = turn_trial_.look(stops_, is_busy && threads_.size() > processors.size());
  if (turn_trial_.has_shown() && !had_shown)
    log_info("spread", "process {} gets on faster with short turns", parts_.pid);
  if (!wanted) return short_turns_.reset();
  if (!short_turns_) short_turns_ = std::make_unique<ShortTurns>(processors, kShortTurn);
}

void SpreadProcess::spread_again() {
  short_turns_.reset();
  log_info("spread", "process {} has its threads on several nodes again, to see", parts_.pid);
  for (const auto& [tid, node] : std::exchange(gathered_from_, {})) {
    auto found = threads_.find(tid);
    if (found == threads_.end() || found->second->move || found->second->node == node) continue;
    begin_move(found->second, node, [](const Status&) {});
  }
}

}  // namespace krg
