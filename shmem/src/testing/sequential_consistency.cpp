// SPDX-License-Identifier: GPL-2.0-or-later
#include "sequential_consistency.h"

#include <fmt/format.h>

#include <map>
#include <unordered_map>
#include <utility>

namespace krg::kddm {
namespace {

using Access = AccessHistory::Access;
constexpr size_t kNone = SIZE_MAX;

// Who made one value of an object, who saw it, and who wrote the next one.
struct Value {
  bool made = false;
  size_t writer = kNone;  // none: the object began with it
  size_t overwriter = kNone;
  std::vector<size_t> readers;
};

struct KeyHash {
  size_t operator()(const std::pair<unsigned, uint64_t>& key) const {
    return key.second * 0x9e3779b97f4a7c15ull ^ key.first;
  }
};
using Values = std::unordered_map<std::pair<unsigned, uint64_t>, Value, KeyHash>;

std::string text(const Access& access) {
  std::string words =
      fmt::format("thread {} reads object {} = {}", access.thread, access.object, access.read);
  if (access.wrote != AccessHistory::kNothing) words += fmt::format(", writes {}", access.wrote);
  return words;
}

// The order constraints between accesses, as edges from the earlier to the later one.
class Graph {
 public:
  explicit Graph(size_t nodes) : later_(nodes), missing_(nodes) {}

  void add(size_t earlier, size_t later) {
    if (earlier == later || earlier == kNone || later == kNone) return;
    later_[earlier].push_back(later);
    ++missing_[later];
  }

  // Takes away what can come first, over and over; what is left holds a cycle.
  std::vector<size_t> find_cycle() {
    std::vector<size_t> first;
    for (size_t i = 0; i < missing_.size(); ++i)
      if (missing_[i] == 0) first.push_back(i);
    size_t ordered = 0;
    while (!first.empty()) {
      const size_t next = first.back();
      first.pop_back();
      ++ordered;
      for (size_t later : later_[next])
        if (--missing_[later] == 0) first.push_back(later);
    }
    return ordered == missing_.size() ? std::vector<size_t>{} : walk_back();
  }

 private:
  // Everything left has something left before it: walking back must come round.
  std::vector<size_t> walk_back() const {
    std::vector<size_t> before(missing_.size(), kNone), visited_at(missing_.size(), kNone), path;
    size_t at = kNone;
    for (size_t i = 0; i < missing_.size(); ++i) {
      if (missing_[i] == 0) continue;
      at = i;
      for (size_t later : later_[i])
        if (missing_[later] > 0) before[later] = i;
    }
    while (visited_at[at] == kNone) {
      visited_at[at] = path.size();
      path.push_back(at);
      at = before[at];
    }
    return {path.rbegin(), path.rend() - static_cast<std::ptrdiff_t>(visited_at[at])};
  }

  std::vector<std::vector<size_t>> later_;
  std::vector<size_t> missing_;  // how many earlier accesses are not ordered yet
};

}  // namespace

std::string AccessHistory::violation() const {
  Values values;
  for (const Access& start : initial_) values[{start.object, start.wrote}].made = true;
  for (size_t i = 0; i < accesses_.size(); ++i) {
    const Access& access = accesses_[i];
    if (access.wrote == kNothing) continue;
    Value& value = values[{access.object, access.wrote}];
    if (std::exchange(value.made, true)) return "written twice: " + text(access);
    value.writer = i;
  }
  for (size_t i = 0; i < accesses_.size(); ++i) {
    const Access& access = accesses_[i];
    Value& value = values[{access.object, access.read}];
    if (!value.made) return "a value from nowhere: " + text(access);
    value.readers.push_back(i);
    if (access.wrote == kNothing) continue;
    if (value.overwriter != kNone)
      return "a write was lost: " + text(access) + "; " + text(accesses_[value.overwriter]);
    value.overwriter = i;
  }
  Graph graph(accesses_.size());
  std::map<unsigned, size_t> last_of_thread;
  for (size_t i = 0; i < accesses_.size(); ++i) {
    auto [last, first] = last_of_thread.try_emplace(accesses_[i].thread, i);
    if (!first) graph.add(std::exchange(last->second, i), i);
  }
  for (const auto& [key, value] : values)
    for (size_t reader : value.readers) {
      graph.add(value.writer, reader);
      graph.add(reader, value.overwriter);
    }
  std::string cycle;
  for (size_t i : graph.find_cycle())
    cycle += (cycle.empty() ? "" : ", before ") + text(accesses_[i]);
  return cycle.empty() ? "" : "no order explains this: " + cycle;
}

}  // namespace krg::kddm
