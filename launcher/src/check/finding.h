// Finding: what one probe of this machine found, and run_in_child(), which keeps a probe from
// harming whoever asks: it runs in a child of its own, with a deadline.
//
// Owner: the probes. Threads: the caller must have one thread only (it forks).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

namespace krg {

enum class ProbeState : uint8_t {
  kOk,       // all that we use is there
  kLimited,  // works, with less than the best
  kLacking,  // does not work
};

std::string_view to_string(ProbeState state);

struct Finding {
  ProbeState state = ProbeState::kLacking;
  std::string detail;  // what was found, or why it does not work
  std::string
      mend{};  // the line that mends it here, when the probe knows better than its table row
};

Finding found(std::string detail);
Finding limited(std::string detail);
Finding lacking(std::string detail);
// "WHAT: reason of errno".
Finding lacking_errno(std::string_view what);

inline constexpr std::chrono::milliseconds kProbeDeadline{10'000};

// Runs `probe` in a child and returns its finding. A probe that dies or outlives the deadline is
// kLacking, with that as the detail; the processes that it started in its process group are ended.
// May be nested: a probe's child can run a part of it in a child of its own.
Finding run_in_child(const std::function<Finding()>& probe,
                     std::chrono::milliseconds deadline = kProbeDeadline);

}  // namespace krg
