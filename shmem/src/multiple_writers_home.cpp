// The home of pages with several writers: which pages they are, and their copies elsewhere.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstring>
#include <utility>

#include "krg/runtime/log.h"
#include "multiple_writers.h"

namespace krg {

// --- which pages --------------------------------------------------------------------------------

// What this node, or the asking one, and another have touched in this phase decides.
void MultipleWriters::consider(NodeId from, PageIndex page, RemoteAddr address,
                               ContestedPages::Touches touched) {
  if (has(page) || contested_.is_refused(page)) return;
  if (!options_->allows(address)) return contested_.refuse(page);
  auto& nominated = nominated_[page.value];
  bool conflict = false, is_written_twice = false;
  const auto compare = [&](const ContestedPages::Touches& other) {
    conflict |= ContestedPages::conflict(touched, other);
    is_written_twice |= ContestedPages::has_write(other);
  };
  if (from != options_->self) compare(contested_.touched(page));
  for (const auto& [node, nomination] : nominated)
    if (node != from && nomination.phase == contested_.phase()) compare(nomination.touched);
  nominated[from] = {contested_.phase(), std::move(touched)};
  if (!conflict && !is_written_twice) return;
  const bool is_beside = has({page.value - 1}) || has({page.value + 1});
  if (contested_.judge(page, conflict, is_beside)) return begin(page);
  if (conflict)
    log_debug("pages", "page {}: two nodes touch the same place in one phase", page.value);
}

void MultipleWriters::begin(PageIndex index) {
  pages_[index.value] = {};
  parts_.holder->keep(index, [this, index, alive = std::weak_ptr(alive_)](const Status& kept) {
    if (!alive.expired()) begun(index, kept);
  });
}

void MultipleWriters::begun(PageIndex index, const Status& kept) {
  auto nominated = nominated_.extract(index.value);
  auto found = pages_.find(index.value);
  if (!kept) {
    pages_.erase(found);
    return;
  }
  ++statistics_.pages_begun;
  log_debug("pages", "page {} has several writers", index.value);
  Page& page = found->second;
  page.is_here = true;
  contested_.forget(index);
  // Faults to write shall be seen here, too.
  parts_.spaces.protect(index, 1);
  if (page.is_leaving) {  // already
    page.is_leaving = false;
    page.left_to_answer = 0;
  } else {
    for (NodeId other : options_->others) {
      const bool wants = !nominated.empty() && nominated.mapped().contains(other);
      wants ? give_copy(other, index, page, Kind::kBecome) : send(other, Kind::kBecome, index);
    }
    for (const ProgramFault& fault : parts_.take_waiting(index)) handle(fault, page);
    return;
  }
  auto faults = parts_.take_waiting(index);
  pages_.erase(found);
  parts_.holder->give_up(index);
  for (const ProgramFault& fault : faults) parts_.serve(fault);
}

void MultipleWriters::give_copy(NodeId to, PageIndex index, Page& page, Kind kind) {
  auto twin = std::make_unique<Twin>();
  std::memcpy(twin->bytes.data(), parts_.frames.page(index).data(), kPage);
  send(to, kind, index, {reinterpret_cast<const char*>(twin->bytes.data()), kPage});
  page.twins[to] = std::move(twin);
}

// --- one writer again ---------------------------------------------------------------------------

void MultipleWriters::leave(PageIndex index) {
  auto found = pages_.find(index.value);
  if (found == pages_.end() || std::exchange(found->second.is_leaving, true)) return;
  Page& page = found->second;
  if (!page.is_here) return;  // begun() sees it
  ++statistics_.pages_ended;
  log_debug("pages", "page {} has one writer again", index.value);
  page.left_to_answer = options_->others.size();
  for (NodeId other : options_->others) send(other, Kind::kStop, index);
}

void MultipleWriters::left(PageIndex index) {
  auto found = pages_.find(index.value);
  if (found == pages_.end() || --found->second.left_to_answer > 0) return;
  const Page page = std::move(found->second);
  pages_.erase(found);
  drop(index, page);
  parts_.holder->give_up(index);
  for (const ProgramFault& fault : page.waiting) parts_.serve(fault);
}

// --- what others know ---------------------------------------------------------------------------

void MultipleWriters::begin_flush(NodeId from, uint64_t number) {
  const uint64_t token = next_flush_++;
  size_t asked = 0;
  for (NodeId other : options_->others) {
    if (other == from) continue;
    send(other, Kind::kFlush, {}, {}, token);
    ++asked;
  }
  flushes_[token] = {from, number, asked};
}

}  // namespace krg
