// What is the same on all nodes: faults, and the changes that are told. The home's part is in
// multiple_writers_home.cpp. SPDX-License-Identifier: GPL-2.0-or-later
#include "multiple_writers.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "krg/runtime/check.h"
#include "krg/runtime/log.h"
#include "page_changes.h"

namespace krg {
namespace {

// A page that was looked at so often without having changed is protected, and looked at again when
// it is written: a fault costs as much as some hundred looks.
constexpr unsigned kStill = 64;
constexpr size_t kChangesTogether = 256u << 10;
constexpr unsigned kAround = 16;  // pages mapped together
// How often it is looked whether there is memory for a copy, and for how long: the kernel takes it
// from the programs, all of which may have to go first.
constexpr std::chrono::milliseconds kLook{1};
constexpr std::chrono::seconds kLongestWait{60};

}  // namespace

MultipleWriters::~MultipleWriters() {
  if (is_on())
    log_info("pages", "several writers: {} pages begun, {} ended; {} pages told in {} bytes",
             statistics_.pages_begun, statistics_.pages_ended, statistics_.pages_told,
             statistics_.bytes_told);
}

void MultipleWriters::allow(MultipleWritersOptions options) {
  options_ = std::move(options);
  log_debug("pages", "pages may have several writers");
}

void MultipleWriters::send(NodeId to, Kind kind, PageIndex page, std::string_view payload,
                           uint64_t number, bool flag) const {
  Header header;
  header.kind = kind;
  header.page = page.value;
  header.number = number;
  header.flag = flag;
  std::string message(reinterpret_cast<const char*>(&header), sizeof header);
  message += payload;
  options_->send(to, std::move(message));
}

void MultipleWriters::take_message(NodeId from, std::string_view message) {
  Header header;
  if (!is_on() || message.size() < sizeof header) return;
  std::memcpy(&header, message.data(), sizeof header);
  message.remove_prefix(sizeof header);
  const PageIndex page{header.page};
  switch (header.kind) {
    case Kind::kNominate: {
      std::vector<ContestedPages::Touch> touched(message.size() / sizeof(ContestedPages::Touch));
      std::memcpy(touched.data(), message.data(), touched.size() * sizeof touched[0]);
      return consider(from, page, RemoteAddr{header.number}, std::move(touched));
    }
    case Kind::kRefuse:
      if (header.flag) contested_.refuse(page);
      return leave(page);
    case Kind::kBecome:
      return become(page, message);
    case Kind::kFetch:
      if (auto found = pages_.find(page.value);
          found != pages_.end() && found->second.is_here && !found->second.is_leaving)
        give_copy(from, page, found->second, Kind::kCopy);
      return;
    case Kind::kCopy:
      return take_copy(page, message);
    case Kind::kChanges:
      return check(take_changes_from(from, message), "changes are of pages that are known here");
    case Kind::kStop:
      return stop(page);
    case Kind::kLeft:
      check(take_changes_from(from, message), "changes are of pages that are known here");
      return left(page);
    case Kind::kAcquire:
      return begin_flush(from, header.number);
    case Kind::kFlush:
      publish(options_->home);
      return send(options_->home, Kind::kFlushed, {}, {}, header.number);
    case Kind::kFlushed: {
      auto found = flushes_.find(header.number);
      if (found == flushes_.end() || --found->second.left > 0) return;
      publish(found->second.from);
      send(found->second.from, Kind::kAcquired, {}, {}, found->second.number);
      flushes_.erase(found);
      return;
    }
    case Kind::kAcquired:
      settling_.clear();
      for (auto& then : std::exchange(acquiring_, {})) then();
      if (acquiring_.empty() && !to_acquire_.empty()) begin_acquire();
      return;
  }
}

// --- faults -------------------------------------------------------------------------------------

bool MultipleWriters::serves(const ProgramFault& fault) {
  auto found = pages_.find(fault.page.value);
  if (found == pages_.end() || (is_home() && !found->second.is_here)) return false;
  handle(fault, found->second);
  return true;
}

// A thread that runs has been woken with another that waited for the page: what it lacks still it
// asks for again.
void MultipleWriters::handle(const ProgramFault& fault, Page& page) {
  if (page.is_here && !page.is_leaving) {
    const StandsAt stands = look_at_instruction(fault);
    if (stands == StandsAt::kNothing) return parts_.spaces.wake(fault.at);
    if (stands == StandsAt::kOther) {
      if (fault.write) scan(fault.page, page);
      return show(fault);
    }
  }
  page.waiting.push_back(fault);
  if (is_home()) return leave(fault.page);
  if (page.is_here) return send(options_->home, Kind::kRefuse, fault.page, {}, 0, true);
  if (!std::exchange(page.is_asked, true)) send(options_->home, Kind::kFetch, fault.page);
}

// Copies are mapped for writing by faults to write alone, so that no atomic one goes unseen: its
// page is refused.
StandsAt MultipleWriters::look_at_instruction(const ProgramFault& fault) {
  if (!fault.write) return StandsAt::kOther;
  const StandsAt stands = stands_at(static_cast<pid_t>(fault.thread), [&](RemoteAddr at) {
    return !parts_.spaces.mapped_in(at, 16).empty();
  });
  if (stands != StandsAt::kAtomic) return stands;
  log_debug("pages", "page {}: an atomic instruction at {:x}", fault.page.value, fault.exact.value);
  contested_.refuse(fault.page);
  return stands;
}

void MultipleWriters::show(const ProgramFault& fault) {
  if (!parts_.spaces.shows(fault.at, fault.page)) return parts_.spaces.wake(fault.at);
  if (parts_.spaces.is_mapped(fault.at)) {
    fault.write ? parts_.spaces.allow_writing(fault.at, 1) : parts_.spaces.wake(fault.at);
  } else if (fault.write) {
    parts_.spaces.map(fault.at, 1, true);
  } else {
    const unsigned count =
        parts_.spaces.run_length(fault.at, 1, kAround, false, [&](PageIndex page) {
          auto found = pages_.find(page.value);
          return found != pages_.end() && found->second.is_here && !found->second.is_leaving;
        });
    parts_.spaces.map(fault.at, std::max(count, 1u), false);
  }
  parts_.told(fault);
}

// It begins for all threads here, one after the other.
void MultipleWriters::begin_phase(uint32_t thread, uint64_t phase) {
  if (std::exchange(phase_, phase) != phase || in_phase_.contains(thread)) {
    contested_.begin_phase();
    in_phase_.clear();
  }
  in_phase_.insert(thread);
}

void MultipleWriters::on_fault(const ProgramFault& fault) {
  const unsigned anew = contested_.on_fault(fault.page, fault.exact.value, fault.write);
  if (!fault.write || anew == 0 || contested_.is_refused(fault.page)) return;
  const StandsAt stands = look_at_instruction(fault);
  if (stands == StandsAt::kAtomic && !is_home())
    send(options_->home, Kind::kRefuse, fault.page, {}, 0, true);
  if (stands != StandsAt::kOther) return;
  const auto touched = contested_.touched(fault.page);
  if (is_home()) return consider(options_->self, fault.page, fault.exact, touched);
  send(options_->home, Kind::kNominate, fault.page,
       {reinterpret_cast<const char*>(touched.data()), touched.size() * sizeof touched[0]},
       fault.exact.value);
}

void MultipleWriters::reclaim(PageIndex first, size_t count, bool for_good) {
  if (!is_on() || pages_.empty()) return;
  std::vector<PageIndex> pages;
  if (count <= pages_.size()) {
    for (uint64_t page = first.value; page < first.value + count; ++page)
      if (has({page})) pages.push_back({page});
  } else {
    for (const auto& [page, known] : pages_)
      if (page >= first.value && page - first.value < count) pages.push_back({page});
  }
  for (PageIndex page : pages) {
    if (for_good) contested_.refuse(page);
    is_home() ? leave(page) : send(options_->home, Kind::kRefuse, page, {}, 0, for_good);
  }
}

// --- changes ------------------------------------------------------------------------------------

void MultipleWriters::scan(PageIndex index, Page& page) {
  page.still = 0;
  if (!std::exchange(page.is_scanned, true)) scanned_.emplace_back(index, &page);
}

// It is none of those any more.
void MultipleWriters::drop(PageIndex index, const Page& page) {
  if (page.is_scanned) std::erase_if(scanned_, [&](const auto& e) { return e.first == index; });
}

void MultipleWriters::publish(NodeId to) {
  if (!is_on() || scanned_.empty()) return;
  if (!is_home()) to = options_->home;
  std::string changes;
  std::vector<PageIndex> still;
  for (const auto& [index, known] : scanned_) {
    Page& page = *known;
    auto twin = page.twins.find(to);
    if (page.is_leaving || twin == page.twins.end()) continue;
    const size_t before = changes.size();
    changes.append(reinterpret_cast<const char*>(&index.value), sizeof index.value);
    if (take_changes(parts_.frames.page(index), twin->second->bytes, changes)) {
      page.still = 0;
      ++statistics_.pages_told;
    } else {
      changes.resize(before);
      if (++page.still >= kStill * page.twins.size()) still.push_back(index);
    }
    if (changes.size() >= kChangesTogether) send_changes(to, changes);
  }
  if (!still.empty()) make_still(still);
  send_changes(to, changes);
}

void MultipleWriters::send_changes(NodeId to, std::string& changes) {
  if (changes.empty()) return;
  statistics_.bytes_told += changes.size();
  send(to, Kind::kChanges, {}, changes);
  changes.clear();
}

// A page that was written just before it was protected is still looked at.
void MultipleWriters::make_still(const std::vector<PageIndex>& pages) {
  auto sorted = pages;
  std::sort(sorted.begin(), sorted.end());
  for (size_t begin = 0; begin < sorted.size();) {
    size_t end = begin + 1;
    while (end < sorted.size() && sorted[end].value == sorted[begin].value + (end - begin)) ++end;
    parts_.spaces.protect(sorted[begin], end - begin);
    begin = end;
  }
  for (PageIndex index : sorted) {
    Page& page = pages_.at(index.value);
    page.still = 0;
    const auto bytes = parts_.frames.page(index);
    page.is_scanned = std::any_of(page.twins.begin(), page.twins.end(), [&](const auto& twin) {
      return std::memcmp(bytes.data(), twin.second->bytes.data(), kPage) != 0;
    });
  }
  std::erase_if(scanned_, [](const auto& entry) { return !entry.second->is_scanned; });
}

// The home looks at a page that one node has changed for the others' sake.
bool MultipleWriters::take_changes_from(NodeId from, std::string_view payload) {
  while (!payload.empty()) {
    PageIndex index;
    if (payload.size() < sizeof index.value) return false;
    std::memcpy(&index.value, payload.data(), sizeof index.value);
    payload.remove_prefix(sizeof index.value);
    auto found = pages_.find(index.value);
    if (found == pages_.end()) return false;
    Page& page = found->second;
    auto twin = page.twins.find(from);
    if (twin == page.twins.end()) return false;
    const auto bytes = page.coming ? std::span(page.coming->bytes) : parts_.frames.page(index);
    if (!put_changes(payload, bytes, twin->second->bytes)) return false;
    if (page.twins.size() > 1) scan(index, page);
  }
  return true;
}

void MultipleWriters::on_page_leaves() {
  if (!is_on() || scanned_.empty()) return;
  if (!is_home()) return publish(options_->home);
  // Of several nodes each asks (acquire).
  if (options_->others.size() == 1) publish(options_->others.front());
}

// --- pages that come from nodes other than the home
// ------------------------------------------------

void MultipleWriters::on_page_came(PageIndex page) {
  if (is_on() && !is_home() && options_->asks_home && !pages_.empty()) fresh_.insert(page.value);
}

void MultipleWriters::acquire(std::function<void()> then) {
  if (!is_on() || is_home() || !options_->asks_home) return then();
  if (pages_.empty() && acquiring_.empty()) {
    fresh_.clear();
    return then();
  }
  to_acquire_.push_back(std::move(then));
  if (acquiring_.empty()) begin_acquire();
}

void MultipleWriters::begin_acquire() {
  acquiring_ = std::exchange(to_acquire_, {});
  settling_ = std::exchange(fresh_, {});
  send(options_->home, Kind::kAcquire, {});
}

// --- elsewhere ----------------------------------------------------------------------------------

void MultipleWriters::become(PageIndex index, std::string_view bytes) {
  Page& page = pages_[index.value];
  page = {};
  contested_.forget(index);
  if (!bytes.empty()) take_copy(index, bytes);
  for (const ProgramFault& fault : parts_.take_waiting(index)) handle(fault, pages_[index.value]);
}

void MultipleWriters::take_copy(PageIndex index, std::string_view bytes) {
  auto found = pages_.find(index.value);
  if (found == pages_.end() || bytes.size() != kPage) return;
  Page& page = found->second;
  page.is_asked = true;
  page.coming = std::make_unique<Twin>();
  std::memcpy(page.coming->bytes.data(), bytes.data(), kPage);
  page.twins[options_->home] = std::make_unique<Twin>(*page.coming);
  if (place_copy(index)) return;
  if (without_room_.empty()) {
    log_warn("pages", "no memory for page {}: its copy waits", index.value);
    without_room_since_ = std::chrono::steady_clock::now();
  }
  without_room_.push_back(index);
  look_for_memory();
}

// Returns whether that is done, or there is none any more.
bool MultipleWriters::place_copy(PageIndex index) {
  auto found = pages_.find(index.value);
  if (found == pages_.end() || !found->second.coming) return true;
  if (!parts_.make_room(index)) return false;
  Page& page = found->second;
  parts_.frames.write(index, std::exchange(page.coming, nullptr)->bytes);
  page.is_asked = false;
  page.is_here = true;
  for (const ProgramFault& fault : std::exchange(page.waiting, {})) handle(fault, page);
  return true;
}

// The loop goes on meanwhile: others hold a node for dead that stands still.
void MultipleWriters::look_for_memory() {
  if (room_timer_) return;
  room_timer_ = parts_.loop.after(kLook, [this] {
    room_timer_.reset();
    while (!without_room_.empty() && place_copy(without_room_.front())) {
      without_room_.pop_front();
      without_room_since_ = std::chrono::steady_clock::now();
    }
    check(std::chrono::steady_clock::now() - without_room_since_ < kLongestWait,
          "there is memory for pages");
    if (!without_room_.empty()) look_for_memory();
  });
}

// Nobody writes it any more when its last changes are taken.
void MultipleWriters::stop(PageIndex index) {
  auto found = pages_.extract(index.value);
  std::string changes;
  if (!found.empty()) {
    Page& page = found.mapped();
    if (page.is_here) {
      parts_.spaces.protect(index, 1);
      changes.append(reinterpret_cast<const char*>(&index.value), sizeof index.value);
      if (!take_changes(parts_.frames.page(index), page.twins.begin()->second->bytes, changes))
        changes.clear();
      parts_.frames.punch(index, 1);
      parts_.spaces.forget(index, 1);
    }
    drop(index, page);
  }
  send(options_->home, Kind::kLeft, index, changes);
  if (found.empty()) return;
  for (ProgramFault fault : found.mapped().waiting) {
    fault.was_mapped = false;
    parts_.serve(fault);
  }
}

}  // namespace krg
