// FrozenShadow: a frozen process that can become a shadow at once: it has a connection to krgd and
// the shadow's program among its descriptors. Until become() it can still go on as it was.
//
// Threads: the loop's thread, which is the tracer. Owned by who makes the process a shadow; the
// process outlives it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <span>

#include "image/frozen_process.h"
#include "krg/runtime/unique_fd.h"
#include "shadow.h"

namespace krg {

class FrozenShadow {
 public:
  // `program`: krg_shadow opened for reading. Errors: the process is as it was: EMFILE: it has no
  // room for two more descriptors; ESRCH.
  static Result<std::unique_ptr<FrozenShadow>> prepare(FrozenProcess& process, int program);
  // Unless it has become a shadow, the process has neither descriptor any more.
  ~FrozenShadow();
  FrozenShadow(const FrozenShadow&) = delete;
  FrozenShadow& operator=(const FrozenShadow&) = delete;

  // As Shadow::become_shadow(); once. Errors: the process has died or been killed.
  Result<std::unique_ptr<Shadow>> become(EventLoop& loop, Shadow::Events events,
                                         std::span<const int> kept);

 private:
  explicit FrozenShadow(FrozenProcess& process) : process_(process) {}
  Status connect(int program);
  Status receive_program();
  Status exec(std::span<const int> kept);

  FrozenProcess& process_;
  UniqueFd connection_;
  int socket_ = -1, program_ = -1;  // the process's numbers
  bool has_become_ = false;
};

}  // namespace krg
