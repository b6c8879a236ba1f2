// A shadow becomes the process itself again: it is lent, frozen, to who makes that of it
// (image/homecoming.h); then BodyMoves says that the body is here, or it is a shadow again.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/frozen_process.h"
#include "krg/procmgr/shadow_host.h"
#include "krg/runtime/log.h"
#include "process_status.h"
#include "shadow_host_impl.h"

namespace krg {

using namespace exec_messages;

void ShadowHost::lend(pid_t pid, std::function<void(Result<LentShadow>)> done) {
  Impl* impl = impl_.get();
  Impl::Hosted* shadow = impl->find(pid);
  if (!shadow || shadow->is_ending) return done(errno_error("shadow", ESRCH));
  if (shadow->is_returning) return done(errno_error("shadow", EBUSY));
  shadow->is_returning = true;
  shadow->settling.reset();
  FrozenProcess::freeze(
      impl->node.loop, *impl->node.children, pid,
      [this, impl, pid, done = std::move(done)](Result<std::shared_ptr<FrozenProcess>> frozen) {
        Impl::Hosted* lent = impl->find(pid);
        if (!frozen || !lent) {
          if (lent) lent->is_returning = false;
          const auto stat = read_process_stat(pid);
          if (lent && (!stat || stat->is_zombie())) impl->on_shadow_end(pid);
          return done(frozen ? errno_error("shadow", ESRCH) : frozen.error());
        }
        done(LentShadow{std::move(*frozen), lent->shadow->control()});
      });
}

void ShadowHost::take_back(FrozenProcess& process) {
  const pid_t pid = process.pid();
  Impl::Hosted* lent = impl_->find(pid);
  if (!lent || !lent->is_returning) return;
  if (process.is_alive()) {
    auto shadow = Shadow::become_shadow(impl_->node.loop, process, impl_->program.get(),
                                        impl_->events_of(pid));
    if (shadow) {
      lent->is_returning = false;
      lent->shadow = std::move(*shadow);
      return;
    }
    log_warn("exec", "shadow {}: {}", pid, shadow.error().message());
  }
  lent->is_returning = false;
  impl_->on_shadow_end(pid);  // its body dies, too
}

// From here on it is a process like any other of this node.
Status ShadowHost::Impl::came_home(pid_t pid) {
  Hosted* shadow = find(pid);
  if (!shadow->is_returning) return errno_error("shadow", ESRCH);
  forget(pid);
  ThawBody thaw;
  thaw.pid = pid;
  return node.messenger.send(node.self, thaw);
}

}  // namespace krg
