// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/capabilities.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <system_error>

namespace krg {
namespace {

constexpr std::array<std::string_view, kCapabilityCount> kNames = {
    "CHANGE_KERRIGHED_CAP",
    "CAN_MIGRATE",
    "DISTANT_FORK",
    "FORK_DELAY",
    "CHECKPOINTABLE",
    "USE_REMOTE_MEMORY",
    "USE_INTRA_CLUSTER_KERSTREAMS",
    "USE_INTER_CLUSTER_KERSTREAMS",
    "USE_WORLD_VISIBLE_KERSTREAMS",
    "SEE_LOCAL_PROC_STAT",
    "DEBUG",
    "SYSCALL_EXIT_HOOK",
    "DISTANT_THREAD",
};

constexpr CapabilitySet kAllCapabilities{(1u << kCapabilityCount) - 1};
constexpr size_t kTabColumns = 8;
constexpr size_t kLineColumns = 80;

CapabilitySet only(Capability c) {
  return capability_set({c});
}

Result<CapabilitySet> parse_octal(std::string_view text) {
  uint32_t bits = 0;
  auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), bits, 8);
  if (failure != std::errc{} || end != text.data() + text.size())
    return errno_error(fmt::format("'{}' is not an octal number", text), EINVAL);
  if (!CapabilitySet{bits}.is_subset_of(kAllCapabilities))
    return errno_error(fmt::format("'{}' has bits that name no capability", text), EINVAL);
  return CapabilitySet{bits};
}

// One line of names, broken where 80 columns do not suffice.
std::string name_lines(CapabilitySet set) {
  std::string text;
  size_t column = kLineColumns;
  for (unsigned i = 0; i < kCapabilityCount; ++i) {
    auto c = static_cast<Capability>(i);
    if (!set.has(c)) continue;
    std::string_view name = capability_name(c);
    bool fits = column + name.size() + 2 < kLineColumns;
    if (fits) {
      text += ", ";
      column += 2;
    } else {
      text += text.empty() ? "\t" : "\n\t";
      column = kTabColumns;
    }
    text += name;
    column += name.size();
  }
  return text + '\n';
}

Error broken_rule(const char* rule, CapabilitySet offending) {
  return errno_error(fmt::format("{}: {}", rule, capability_names(offending)), EINVAL);
}

}  // namespace

CapabilitySets initial_capabilities() {
  CapabilitySet change = only(Capability::kChangeKerrighedCap);
  return {change, kSupportedCapabilities, change, kSupportedCapabilities};
}

Result<CapabilitySets> initial_capabilities(std::string_view list) {
  CapabilitySets sets = initial_capabilities();
  if (list.empty()) return sets;
  Result<CapabilitySet> effective = parse_capability_set(list, sets.effective);
  if (!effective) return effective.error();
  return change_capabilities(sets, {.effective = *effective, .inheritable_effective = *effective});
}

Result<CapabilitySets> change_capabilities(const CapabilitySets& old,
                                           const CapabilityChange& change, CapabilitySet in_use) {
  CapabilitySets wanted{change.effective.value_or(old.effective),
                        change.permitted.value_or(old.permitted),
                        change.inheritable_effective.value_or(old.inheritable_effective),
                        change.inheritable_permitted.value_or(old.inheritable_permitted)};
  CapabilitySet all = wanted.effective | wanted.permitted | wanted.inheritable_effective |
                      wanted.inheritable_permitted;
  if (!all.is_subset_of(kSupportedCapabilities))
    return errno_error("not supported: " + capability_names(all.without(kSupportedCapabilities)),
                       ENOSYS);

  if (!wanted.effective.is_subset_of(wanted.permitted))
    return broken_rule("effective, but not permitted", wanted.effective.without(wanted.permitted));
  if (!wanted.inheritable_permitted.is_subset_of(wanted.permitted))
    return broken_rule("inheritable permitted, but not permitted",
                       wanted.inheritable_permitted.without(wanted.permitted));
  if (!wanted.inheritable_effective.is_subset_of(wanted.inheritable_permitted))
    return broken_rule("inheritable effective, but not inheritable permitted",
                       wanted.inheritable_effective.without(wanted.inheritable_permitted));

  if (!old.effective.has(Capability::kChangeKerrighedCap))
    return errno_error("CHANGE_KERRIGHED_CAP is not effective", EPERM);
  if (CapabilitySet dropped = in_use.without(wanted.effective); dropped.bits)
    return errno_error("in use: " + capability_names(dropped), EBUSY);

  CapabilitySet permitted = wanted.permitted & old.permitted;
  return CapabilitySets{wanted.effective & permitted, permitted,
                        wanted.inheritable_effective & permitted,
                        wanted.inheritable_permitted & permitted};
}

std::string_view capability_name(Capability capability) {
  return kNames[static_cast<unsigned>(capability)];
}

std::optional<Capability> find_capability(std::string_view name) {
  constexpr std::string_view kPrefix = "CAP_";
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  if (name == "CAN_CHECKPOINT") return Capability::kCheckpointable;
  if (name == "USE_CONTAINERS") return Capability::kUseRemoteMemory;
  for (unsigned i = 0; i < kCapabilityCount; ++i)
    if (kNames[i] == name) return static_cast<Capability>(i);
  return std::nullopt;
}

Result<CapabilitySet> parse_capability_set(std::string_view text, CapabilitySet old) {
  if (text.empty()) return errno_error("an empty list of capabilities", EINVAL);
  if (text[0] >= '0' && text[0] <= '9') return parse_octal(text);
  bool is_change = text[0] == '+' || text[0] == '-';
  CapabilitySet set = is_change ? old : CapabilitySet{};
  bool adds = true;
  for (size_t at = 0; at <= text.size();) {
    size_t comma = std::min<size_t>(text.find(',', at), text.size());
    std::string_view word = text.substr(at, comma - at);
    at = comma + 1;
    if (!word.empty() && (word[0] == '+' || word[0] == '-')) {
      adds = word[0] == '+';
      word.remove_prefix(1);
    }
    std::optional<Capability> capability = find_capability(word);
    if (!capability)
      return errno_error(fmt::format("'{}' is no capability; the capabilities are {}", word,
                                     capability_names(kAllCapabilities)),
                         EINVAL);
    set = adds ? set | only(*capability) : set.without(only(*capability));
  }
  return set;
}

std::string capability_names(CapabilitySet set, std::string_view separator) {
  std::string text;
  for (unsigned i = 0; i < kCapabilityCount; ++i) {
    auto c = static_cast<Capability>(i);
    if (!set.has(c)) continue;
    if (!text.empty()) text += separator;
    text += capability_name(c);
  }
  return text;
}

std::string format_capabilities(const CapabilitySets& sets) {
  std::string text;
  auto add = [&text](std::string_view title, CapabilitySet set) {
    text += fmt::format("{} Capabilities: 0{:o}\n", title, set.bits);
    text += name_lines(set);
  };
  add("Permitted", sets.permitted);
  add("Effective", sets.effective);
  add("Inheritable Permitted", sets.inheritable_permitted);
  add("Inheritable Effective", sets.inheritable_effective);
  return text;
}

}  // namespace krg
