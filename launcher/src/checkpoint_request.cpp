// SPDX-License-Identifier: GPL-2.0-or-later
#include "checkpoint_request.h"

#include <fmt/core.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "krg/runtime/control_client.h"

namespace krg {
namespace {

[[noreturn]] void ask(const std::string& control_path, const nlohmann::json& arguments,
                      bool must_be) {
  auto krgd = ControlClient::connect(control_path);
  auto done =
      krgd ? krgd->call("checkpoint", arguments) : Result<ControlClient::Answer>(krgd.error());
  const bool is_needless = !done && !must_be && done.error().errno_or(0) == ESRCH;
  if (!done && !is_needless) {
    fmt::print(stderr, "krgrun: no checkpoint: {}\n", done.error().message());
    fflush(stderr);
  }
  _exit(done ? 0 : 1);
}

}  // namespace

CheckpointRequest::~CheckpointRequest() {
  if (child_ > 0) kill(child_, SIGKILL);
  finish();
}

void CheckpointRequest::start(const std::string& control_path, const nlohmann::json& arguments,
                              bool may_wait) {
  if (child_ > 0) {
    if (may_wait)
      next_ = [this, control_path, arguments] { start(control_path, arguments, false); };
    return;
  }
  fflush(nullptr);
  child_ = fork();
  if (child_ != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // krgrun's descriptors are not this one's: its end must not wait for us.
  ask(control_path, arguments, may_wait);
}

void CheckpointRequest::reap() {
  if (child_ <= 0 || waitpid(child_, nullptr, WNOHANG) != child_) return;
  child_ = 0;
  if (const auto next = std::exchange(next_, nullptr)) next();
}

void CheckpointRequest::finish() {
  if (child_ > 0) waitpid(child_, nullptr, 0);
  child_ = 0;
}

}  // namespace krg
