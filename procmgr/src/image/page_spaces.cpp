// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_spaces.h"

#include <sched.h>
#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "krg/runtime/log.h"

namespace krg {

using Outcome = PageSpace::Outcome;

PageSpaces::PageSpaces(EventLoop& loop, std::shared_ptr<UserfaultfdGroup> group, Handlers handlers)
    : loop_(loop),
      group_(std::move(group)),
      handlers_(std::move(handlers)),
      token_(group_->join([this] { read_all_events(); })) {}

PageSpaces::~PageSpaces() {
  finish_copies();
  group_->leave(token_);
}

Status PageSpaces::add_first(UniqueFd userfaultfd, const PageList& pages,
                             const std::vector<PrivateMapping>& mappings) {
  auto space = PageSpace::create(std::move(userfaultfd), pages, mappings);
  return space ? add(std::move(*space), true) : space.error();
}

Status PageSpaces::add(std::unique_ptr<PageSpace> pages, bool is_first) {
  auto space = std::make_unique<Space>(Space{std::move(pages), is_first});
  auto watch = loop_.watch(space->pages->fd(), EPOLLIN, [this, at = space.get()](uint32_t) {
    read_events(*at);
    tell_later();
  });
  if (!watch) return watch.error();
  space->watch = std::move(*watch);
  spaces_.push_back(std::move(space));
  return {};
}

// --- pages --------------------------------------------------------------------------------------

template <class Call>
Outcome PageSpaces::insist(Space& space, const Call& call) {
  while (is_waiting(space)) {
    const Outcome outcome = call(*space.pages);
    if (outcome == Outcome::kGone) space.is_gone = true;
    if (outcome != Outcome::kChanging) return outcome;
    group_->read_all();
    sched_yield();
  }
  return Outcome::kDone;
}

Status PageSpaces::put(uint64_t first, uint64_t count, PageSpace::Content content,
                       const std::byte* bytes) {
  finish_copies();
  // A child may be added meanwhile: what its parent did not have then it has to get, too.
  for (size_t i = 0; i < spaces_.size(); ++i) {
    const Outcome outcome = insist(
        *spaces_[i], [&](PageSpace& pages) { return pages.put(first, count, content, bytes); });
    if (outcome == Outcome::kFailed) return errno_error("a page cannot be put in", EIO);
  }
  return {};
}

Status PageSpaces::put_runs(const std::vector<Run>& runs) {
  using Content = PageSpace::Content;
  for (const Run& run : runs) {
    const auto content = run.bytes ? Content::kBytes : Content::kZeros;
    if (Status done = put(run.first, run.count, content, run.bytes); !done) return done;
  }
  return {};
}

void PageSpaces::put_aside(WorkerPool& workers, std::vector<Run> runs,
                           std::function<void(Status)> done) {
  if (spaces_.size() != 1 || spaces_.front()->is_gone)
    return loop_.post([done = std::move(done), put = put_runs(runs)] { done(put); });
  std::vector<PageSpace::Piece> pieces;
  const PageSpace& space = *spaces_.front()->pages;
  for (const Run& run : runs)
    std::ranges::copy(space.awaited_pieces(run.first, run.count, run.bytes),
                      std::back_inserter(pieces));
  auto copy = std::make_shared<PageCopy>(space.fd(), std::move(pieces));
  copies_.push_back(copy);
  workers.submit([copy] { copy->run(); },
                 alive_.guard([this, copy, runs = std::move(runs), done = std::move(done)] {
                   if (auto found = std::ranges::find(copies_, copy); found != copies_.end()) {
                     copies_.erase(found);
                     note(*copy);
                   }
                   const bool is_whole = std::ranges::all_of(runs, [this](const Run& run) {
                     return std::ranges::all_of(spaces_, [&](const auto& one) {
                       return one->is_gone ||
                              one->pages->awaited_pieces(run.first, run.count, {}).empty();
                     });
                   });
                   done(is_whole ? Status() : put_runs(runs));
                 }));
}

void PageSpaces::finish_copies() {
  for (const auto& copy : std::exchange(copies_, {})) {
    copy->run();
    note(*copy);
  }
}

void PageSpaces::note(const PageCopy& copy) {
  for (const PageSpace::Piece& piece : copy.done())
    spaces_.front()->pages->note_put(piece.first, piece.count);
}

bool PageSpaces::put_early(RemoteAddr at, const std::byte* bytes) {
  finish_copies();
  return spaces_.front()->pages->put_early(at, bytes);
}

void PageSpaces::fill_gaps(bool first, RemoteAddr address, uint64_t bytes) {
  finish_copies();
  for (size_t i = 0; i < spaces_.size(); ++i)
    if (spaces_[i]->is_first == first)
      insist(*spaces_[i], [&](PageSpace& pages) { return pages.fill_gaps(address, bytes); });
}

bool PageSpaces::awaits_any() const {
  return std::ranges::any_of(spaces_, [this](const auto& space) { return is_waiting(*space); });
}

bool PageSpaces::first_awaits() {
  finish_copies();
  return std::ranges::any_of(
      spaces_, [this](const auto& space) { return space->is_first && is_waiting(*space); });
}

std::vector<uint64_t> PageSpaces::awaited(bool first, RemoteAddr address, uint64_t bytes) {
  finish_copies();
  std::vector<uint64_t> pages;
  const uint64_t end = address.value + bytes;
  for (const auto& space : spaces_) {
    if (space->is_first != first || !is_waiting(*space)) continue;
    for (uint64_t at = address.value / kMovedPageBytes * kMovedPageBytes; at < end;
         at += kMovedPageBytes)
      if (auto page = space->pages->awaited_at(RemoteAddr{at})) pages.push_back(*page);
  }
  return pages;
}

void PageSpaces::find_ended() {
  for (auto& space : spaces_) space->is_gone |= space->pages->is_gone();
}

void PageSpaces::sweep() {
  if (!copies_.empty()) return;  // it is called again when they have been put in
  std::erase_if(spaces_, [this](const auto& space) { return !is_waiting(*space); });
}

// --- events -------------------------------------------------------------------------------------

void PageSpaces::read_events(Space& space) {
  finish_copies();
  if (space.is_gone) return;
  PageSpace::Events events;
  const Outcome outcome = space.pages->read_events(events);
  space.is_gone |= outcome == Outcome::kGone;
  read_again_ |= outcome == Outcome::kChanging;
  if (space.is_gone) space.watch.reset();
  std::ranges::copy(events.faults, std::back_inserter(faults_));
  for (auto& child : events.children)
    if (Status added = add(std::move(child), false); !added)
      log_error("pages", "a forked child: {}", added.error().message());
}

// May run in the middle of anything.
void PageSpaces::read_all_events() {
  for (size_t i = 0; i < spaces_.size(); ++i) read_events(*spaces_[i]);
  tell_later();
}

void PageSpaces::tell_later() {
  if (std::exchange(will_tell_, true)) return;
  loop_.post(alive_.guard([this] { tell(); }));
}

void PageSpaces::tell() {
  will_tell_ = false;
  if (std::exchange(read_again_, false)) read_all_events();
  if (auto faults = std::exchange(faults_, {}); !faults.empty())
    handlers_.faults(std::move(faults));
  handlers_.changed();
}

}  // namespace krg
