// LocalCapture's members whose pages are saved while they run: large ones of this node, that are
// watched. SPDX-License-Identifier: GPL-2.0-or-later
#include "family/local_capture.h"
#include "family/written_pages.h"
#include "in_worker.h"
#include "krg/runtime/log.h"
#include "process_spec.h"

namespace krg {
namespace {

constexpr uint64_t kLarge_KiB = 64u << 10;  // a fork of less takes less than two milliseconds

}  // namespace

// Who is spread may have pages on any node, each of which takes as long as many here.
bool LocalCapture::is_large(pid_t pid) const {
  using State = SpreadMembers::State;
  const State state = parts_.spread.state_of ? parts_.spread.state_of(pid) : State::kOrdinary;
  if (state != State::kOrdinary) return state == State::kSpread;
  const auto status = StatusText::read(pid);
  if (!status) return false;
  const std::string_view text = status->value("RssAnon");  // "262144 kB"
  return to_number<uint64_t>(text.substr(0, text.find(' '))).value_or(0) >= kLarge_KiB;
}

void LocalCapture::watch_large(std::function<void()> done) {
  watched_.clear();
  early_.clear();
  watch_ordinary();
  std::set<pid_t> spread;
  for (const auto& [pid, member] : members_)
    if (member.spread) spread.insert(pid);
  begin_early(std::move(spread), std::move(done));
}

void LocalCapture::begin_early(std::set<pid_t> left, std::function<void()> done) {
  const auto member = left.empty() ? members_.end() : members_.find(*left.begin());
  if (member == members_.end()) return done();
  left.erase(left.begin());
  member->second.spread->begin_early([self = shared_from_this(), pid = member->first,
                                      left = std::move(left),
                                      done = std::move(done)](std::shared_ptr<EarlyPages> early) {
    if (early) self->early_[pid] = std::move(early);
    self->begin_early(left, done);
  });
}

// One after the other.
void LocalCapture::read_early(std::set<pid_t> left, std::function<void()> done) {
  if (left.empty()) return done();
  const auto early = early_.at(*left.begin());
  left.erase(left.begin());
  early->read([self = shared_from_this(), left = std::move(left), done = std::move(done)] {
    self->read_early(left, done);
  });
}

void LocalCapture::watch_ordinary() {
  if (!parts_.tracking) return;
  for (const auto& [pid, member] : members_) {
    if (!member.process || member.spread || !is_large(pid)) continue;
    auto by = parts_.tracking->take_watch(*member.process);
    if (!by) continue;
    watched_.push_back({{pid, {}}, std::move(by)});
    if (parts_.left_out) watched_.back().member.left_out = parts_.left_out(pid);
  }
}

void LocalCapture::protect_large(std::function<void(uint64_t bytes)> done) {
  std::set<pid_t> spread;
  for (const auto& [pid, early] : early_) spread.insert(pid);
  read_early(std::move(spread),
             [self = shared_from_this(), done = std::move(done)] { self->protect_watched(done); });
}

// Not in the loop's thread, which has programs to answer meanwhile.
void LocalCapture::protect_watched(std::function<void(uint64_t bytes)> done) {
  if (watched_.empty()) return done(0);
  const auto protect = [watched = watched_] {
    std::vector<Watched> protecting;
    std::vector<LivePages::Member> members;
    for (const Watched& one : watched) {
      if (auto reset = one.by->reset(); !reset) {
        log_debug("checkpoint", "process {}: {}", one.member.pid, reset.error().message());
        continue;
      }
      protecting.push_back(one);
      members.push_back(one.member);
    }
    return std::pair(std::move(protecting), std::make_shared<LivePages>(std::move(members)));
  };
  watched_.clear();
  in_worker(parts_.node.workers, protect,
            [self = shared_from_this(), done = std::move(done)](const auto& protecting) {
              for (const Watched& one : protecting.first)
                self->parts_.tracking->begin_live(self->number_, one.member.pid, one.by,
                                                  one.member.left_out);
              self->live_ = protecting.second;
              done(self->live_->bytes());
            });
}

}  // namespace krg
