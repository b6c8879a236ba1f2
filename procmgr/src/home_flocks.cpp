// SPDX-License-Identifier: GPL-2.0-or-later
#include "home_flocks.h"

#include <sys/file.h>

#include <algorithm>

#include "in_worker.h"
#include "krg/runtime/run_after.h"

namespace krg {
namespace {

// flock(2) cannot wait here: how long it is left alone between two tries.
constexpr std::chrono::microseconds kFirstPause{500}, kLongestPause{20000};

int flags_of(FlockRequest::What what) {
  switch (what) {
    case FlockRequest::What::kShared:
      return LOCK_SH | LOCK_NB;
    case FlockRequest::What::kExclusive:
      return LOCK_EX | LOCK_NB;
    default:
      return LOCK_UN;
  }
}

}  // namespace

void HomeFlocks::lock(StreamOperation operation, std::shared_ptr<UniqueFd> description,
                      const StreamFlock& asked, Messenger::Reply reply) {
  waits_.emplace(operation, Wait{std::move(description), flags_of(asked.what), asked.waits != 0,
                                 kFirstPause, std::move(reply)});
  attempt(operation);
}

void HomeFlocks::attempt(StreamOperation operation) {
  auto found = waits_.find(operation);
  if (found == waits_.end()) return;
  in_worker(
      node_.workers,
      [description = found->second.description, flags = found->second.flags] {
        return flock(description->get(), flags) == 0 ? 0 : errno;
      },
      [this, operation](int error) { on_attempt(operation, error); });
}

void HomeFlocks::on_attempt(StreamOperation operation, int error) {
  auto found = waits_.find(operation);
  if (found == waits_.end()) return;
  Wait& wait = found->second;
  if (error == EWOULDBLOCK && wait.waits && !wait.is_cancelled) {
    run_after(node_.loop, wait.pause, [this, operation] { attempt(operation); });
    wait.pause = std::min(wait.pause * 2, kLongestPause);
    return;
  }
  if (error == 0)
    wait.reply.ok();
  else
    wait.reply.fail(wait.is_cancelled ? EINTR : error);
  waits_.erase(found);
}

// Answered at its next try, which may still succeed.
void HomeFlocks::cancel(StreamOperation operation) {
  if (auto found = waits_.find(operation); found != waits_.end()) found->second.is_cancelled = true;
}

void HomeFlocks::forget_node(NodeId node) {
  std::erase_if(waits_, [&](const auto& wait) { return wait.first.node == node; });
}

}  // namespace krg
