// SPDX-License-Identifier: GPL-2.0-or-later
#include "processor_share.h"

#include <fmt/core.h>
#include <sched.h>

namespace krg {
namespace {

// Machines of more than CPU_SETSIZE (1,024) processors are an error: EINVAL, sched_getaffinity(2).
Result<cpu_set_t> processors_of(pid_t pid) {
  cpu_set_t allowed;
  if (sched_getaffinity(pid, sizeof allowed, &allowed) != 0)
    return errno_error("sched_getaffinity");
  return allowed;
}

Status bind_to(const cpu_set_t& processors) {
  if (sched_setaffinity(0, sizeof processors, &processors) != 0)
    return errno_error("sched_setaffinity");
  return {};
}

}  // namespace

Status check_processor_shares(unsigned nodes, unsigned processors_per_node) {
  auto allowed = processors_of(0);
  if (!allowed) return allowed.error();
  const auto there = static_cast<unsigned long>(CPU_COUNT(&*allowed));
  const unsigned long needed = static_cast<unsigned long>(nodes) * processors_per_node;
  if (needed > there)
    return text_error(fmt::format("{} node{} with {} processor{} each need {}, there are {}", nodes,
                                  nodes == 1 ? "" : "s", processors_per_node,
                                  processors_per_node == 1 ? "" : "s", needed, there));
  return {};
}

Status take_processor_share(unsigned rank, unsigned processors_per_node) {
  if (auto enough = check_processor_shares(rank + 1, processors_per_node); !enough) return enough;
  auto allowed = processors_of(0);
  if (!allowed) return allowed.error();
  cpu_set_t share;
  CPU_ZERO(&share);
  const unsigned first = rank * processors_per_node;
  for (unsigned number = 0, seen = 0; seen < first + processors_per_node; ++number) {
    if (!CPU_ISSET(number, &*allowed)) continue;
    if (seen++ >= first) CPU_SET(number, &share);
  }
  return bind_to(share);
}

Status share_processors_of(pid_t pid) {
  auto own = processors_of(0), others = processors_of(pid);
  if (!own) return own.error();
  if (!others) return others.error();
  cpu_set_t common;
  CPU_AND(&common, &*own, &*others);
  return bind_to(CPU_COUNT(&common) > 0 ? common : *others);
}

}  // namespace krg
