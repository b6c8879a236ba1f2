// SPDX-License-Identifier: GPL-2.0-or-later
#include "processor_numbers.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace krg {

ProcessorSet set_of_mask(std::string_view mask) {
  ProcessorSet processors;
  for (unsigned i = 0; i < mask.size() * 8; ++i)
    if (static_cast<unsigned char>(mask[i / 8]) >> (i % 8) & 1) processors.insert(i);
  return processors;
}

std::string mask_of_set(const ProcessorSet& processors, size_t bytes) {
  std::string mask(bytes, '\0');
  for (unsigned i : processors) mask.at(i / 8) = static_cast<char>(mask[i / 8] | 1 << (i % 8));
  return mask;
}

ProcessorSet to_cluster(const ProcessorSet& allowed, const ProcessorNumbers& numbers) {
  ProcessorSet told;
  const bool unrestricted = std::all_of(numbers.own.begin(), numbers.own.end(),
                                        [&](unsigned cpu) { return allowed.contains(cpu); });
  const unsigned count = unrestricted ? numbers.total : static_cast<unsigned>(numbers.own.size());
  for (unsigned i = 0; i < count; ++i) {
    if (unrestricted)
      told.insert(i);
    else if (allowed.contains(numbers.own[i]))
      told.insert(numbers.first + i);
  }
  return told;
}

std::optional<ProcessorSet> to_node(const ProcessorSet& wanted, const ProcessorNumbers& numbers) {
  ProcessorSet here;
  for (unsigned i = 0; i < numbers.own.size(); ++i)
    if (wanted.contains(numbers.first + i)) here.insert(numbers.own[i]);
  if (here.empty()) return std::nullopt;
  return here;
}

std::vector<uint32_t> places_among(const ProcessorSet& own, const ProcessorSet& allowed) {
  std::vector<uint32_t> places;
  uint32_t place = 0;
  for (unsigned processor : own) {
    if (allowed.contains(processor)) places.push_back(place);
    ++place;
  }
  if (places.size() == own.size()) places.clear();
  return places;
}

ProcessorSet at_places(const std::vector<uint32_t>& places, const ProcessorSet& own) {
  if (places.empty() || own.empty()) return own;
  const std::vector<unsigned> all(own.begin(), own.end());
  ProcessorSet there;
  for (uint32_t place : places) there.insert(all[place % all.size()]);
  return there;
}

ProcessorSet processors_of_thread(pid_t tid) {
  constexpr size_t kMostBytes = 4096;
  std::string mask(kMostBytes, '\0');
  const long got = syscall(SYS_sched_getaffinity, tid, mask.size(), mask.data());
  if (got < 0) return {};
  mask.resize(static_cast<size_t>(got));
  return set_of_mask(mask);
}

void bind_thread(pid_t tid, const ProcessorSet& processors) {
  if (processors.empty()) return;
  const size_t words = *processors.rbegin() / (8 * sizeof(unsigned long)) + 1;
  const std::string mask = mask_of_set(processors, words * sizeof(unsigned long));
  static_cast<void>(
      sched_setaffinity(tid, mask.size(), reinterpret_cast<const cpu_set_t*>(mask.data())));
}

}  // namespace krg
