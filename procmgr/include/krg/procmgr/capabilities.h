// The capabilities of the original: 13 bits, four sets per process, their rules and their
// inheritance; their names and how tools write and print them. Pure: no system calls. Source of the
// semantics: krgcapset(1), kerrighed_capabilities(7) and the kernel of Kerrighed; DISTANT_THREAD is
// ours.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/result.h"

namespace krg {

enum class Capability : unsigned {
  kChangeKerrighedCap = 0,
  kCanMigrate = 1,
  kDistantFork = 2,
  kForkDelay = 3,
  kCheckpointable = 4,
  kUseRemoteMemory = 5,
  kUseIntraClusterKerstreams = 6,
  kUseInterClusterKerstreams = 7,
  kUseWorldVisibleKerstreams = 8,
  kSeeLocalProcStat = 9,
  kDebug = 10,
  kSyscallExitHook = 11,
  kDistantThread = 12,
};
inline constexpr unsigned kCapabilityCount = 13;

// A set of capabilities, one bit each.
struct CapabilitySet {
  uint32_t bits = 0;
  bool has(Capability c) const { return bits >> static_cast<unsigned>(c) & 1; }
  bool is_subset_of(CapabilitySet other) const { return (bits & ~other.bits) == 0; }
  CapabilitySet operator&(CapabilitySet other) const { return {bits & other.bits}; }
  CapabilitySet operator|(CapabilitySet other) const { return {bits | other.bits}; }
  CapabilitySet without(CapabilitySet other) const { return {bits & ~other.bits}; }
  auto operator<=>(const CapabilitySet&) const = default;
};

constexpr CapabilitySet capability_set(std::initializer_list<Capability> members) {
  CapabilitySet set;
  for (Capability c : members) set.bits |= 1u << static_cast<unsigned>(c);
  return set;
}

// What this version honours. Others cannot be set: ENOSYS.
inline constexpr CapabilitySet kSupportedCapabilities = capability_set(
    {Capability::kChangeKerrighedCap, Capability::kCanMigrate, Capability::kDistantFork,
     Capability::kCheckpointable, Capability::kUseRemoteMemory, Capability::kSeeLocalProcStat,
     Capability::kDistantThread});

struct CapabilitySets {
  CapabilitySet effective, permitted, inheritable_effective, inheritable_permitted;
  auto operator<=>(const CapabilitySets&) const = default;

  // What a child has after fork: P' = IP, E' = IE ∩ IP; IE and IP as the parent's.
  CapabilitySets at_fork() const {
    return {{inheritable_effective.bits & inheritable_permitted.bits},
            inheritable_permitted,
            inheritable_effective,
            inheritable_permitted};
  }
};

// The new value of some of the four sets.
struct CapabilityChange {
  std::optional<CapabilitySet> effective = {}, permitted = {}, inheritable_effective = {},
                               inheritable_permitted = {};
};

// What a job's first process starts with, as the original's init: everything supported is permitted
// and inheritable permitted, CHANGE_KERRIGHED_CAP is effective and inheritable effective.
CapabilitySets initial_capabilities();
// The same with a list ("+DISTANT_FORK"; may be empty) applied to both effective sets (krgrun
// --caps). Errors: as parse_capability_set() and change_capabilities().
Result<CapabilitySets> initial_capabilities(std::string_view list);

// The sets that a process with `old` has after `change`: what is not in the permitted set of `old`
// is left out of all four. Errors, the first that holds: ENOSYS (a capability that is not
// supported), EINVAL (E or IP not within P, IE not within IP), EPERM (CHANGE_KERRIGHED_CAP is not
// effective in `old`), EBUSY (one in `in_use` would not be effective any more).
Result<CapabilitySets> change_capabilities(const CapabilitySets& old,
                                           const CapabilityChange& change,
                                           CapabilitySet in_use = {});

// "DISTANT_FORK". REQUIRES: one of the enumeration.
std::string_view capability_name(Capability capability);
// By name, also with the names of the original's first releases (CAN_CHECKPOINT, USE_CONTAINERS)
// and with CAP_ before it.
std::optional<Capability> find_capability(std::string_view name);

// Reads what a person typed: an octal number ("043"), a list ("A,B": exactly these) or changes of
// `old` ("+A,-B"; a name without a sign has that of the name before it). Errors: EINVAL with the
// word that is wrong.
Result<CapabilitySet> parse_capability_set(std::string_view text, CapabilitySet old);

// "DISTANT_FORK, DEBUG": the names in bit order, `separator` between them.
std::string capability_names(CapabilitySet set, std::string_view separator = ", ");
// The four sets as the original's tool prints them: "Effective Capabilities: 043", then a line with
// a tab and the names (more lines where 80 columns do not suffice).
std::string format_capabilities(const CapabilitySets& sets);

}  // namespace krg
