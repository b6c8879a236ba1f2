// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/wait_policy.h"

#include <strings.h>

#include <string>

#include "process_environment.h"

namespace krg {

Patience::Kind patience_of(std::string_view policy) {
  constexpr std::string_view kBlanks = " \t";
  const size_t first = policy.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return Patience::Kind::kUsual;
  const size_t last = policy.find_last_not_of(kBlanks);
  const std::string word(policy.substr(first, last + 1 - first));
  if (strcasecmp(word.c_str(), "active") == 0) return Patience::Kind::kEndless;
  if (strcasecmp(word.c_str(), "passive") == 0) return Patience::Kind::kNone;
  return Patience::Kind::kUsual;
}

Patience::Kind patience_of_process(pid_t pid) {
  return patience_of(environment_variable(pid, "OMP_WAIT_POLICY").value_or(""));
}

}  // namespace krg
