// SPDX-License-Identifier: GPL-2.0-or-later
#include "proc_sums.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <unordered_map>

#include "text_scan.h"

namespace krg {
namespace {

using Numbers = std::vector<uint64_t>;

// This node first: its order of keys and its values where no sum makes sense.
std::vector<const NodeText*> here_first(const std::vector<NodeText>& nodes) {
  std::vector<const NodeText*> ordered;
  for (const NodeText& node : nodes) ordered.push_back(&node);
  std::stable_partition(ordered.begin(), ordered.end(),
                        [](const NodeText* node) { return node->is_here; });
  return ordered;
}

void add_each(Numbers& sum, const Numbers& more) {
  sum.resize(std::max(sum.size(), more.size()));
  for (size_t i = 0; i < more.size(); ++i) sum[i] += more[i];
}

Numbers to_numbers(std::string_view words) {
  Numbers numbers;
  for (std::string_view word : split_words(words))
    numbers.push_back(to_number<uint64_t>(word).value_or(0));
  return numbers;
}

// Keys in order of first appearance, each with a sum.
template <class Value>
class OrderedSums {
 public:
  Value& operator[](std::string_view key) {
    auto [at, is_new] = index_.try_emplace(std::string(key), entries_.size());
    if (is_new) entries_.emplace_back(std::string(key), Value{});
    return entries_[at->second].second;
  }
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }

 private:
  std::vector<std::pair<std::string, Value>> entries_;
  std::unordered_map<std::string, size_t> index_;
};

// "key<spaces>: value" of cpuinfo.
struct CpuinfoLine {
  std::string_view label;  // all up to the value
  std::string_view key, value;
};
CpuinfoLine parse_cpuinfo_line(std::string_view line) {
  size_t colon = line.find(':');
  if (colon == std::string_view::npos) return {line, trimmed(line), {}};
  size_t value = line.find_first_not_of(" \t", colon + 1);
  if (value == std::string_view::npos) return {line, trimmed(line.substr(0, colon)), {}};
  return {line.substr(0, value), trimmed(line.substr(0, colon)), line.substr(value)};
}

// The processor that a block of cpuinfo is about; nothing for a block about the machine.
std::optional<unsigned> processor_of(std::string_view block) {
  while (!block.empty()) {
    CpuinfoLine line = parse_cpuinfo_line(next_line(block));
    if (line.key == "processor") return to_number<unsigned>(line.value);
  }
  return std::nullopt;
}

std::string renumber_block(std::string_view block, unsigned processor, unsigned first_package) {
  std::string text;
  while (!block.empty()) {
    std::string_view whole = next_line(block);
    CpuinfoLine line = parse_cpuinfo_line(whole);
    if (line.key == "processor")
      text += fmt::format("{}{}\n", line.label, processor);
    else if (auto package = to_number<unsigned>(line.value); line.key == "physical id" && package)
      text += fmt::format("{}{}\n", line.label, *package + first_package);
    else
      text.append(whole) += '\n';
  }
  return text;
}

// Takes the next block, ended by an empty line, off `rest`.
std::string_view next_block(std::string_view& rest) {
  while (!rest.empty() && rest.front() == '\n') rest.remove_prefix(1);
  size_t end = rest.find("\n\n");
  std::string_view block = rest.substr(0, end == std::string_view::npos ? end : end + 1);
  rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 2);
  return block;
}

// Appends the node's processors to `processors`, and what is not about one to `machine`.
void append_cpuinfo(const NodeText& node, bool renumber, std::string& processors,
                    std::string& machine) {
  std::string_view rest = node.text;
  while (!rest.empty()) {
    std::string_view block = next_block(rest);
    if (block.empty()) continue;
    auto local = processor_of(block);
    if (!local) {
      machine.append(block) += block.back() == '\n' ? "\n" : "\n\n";
      continue;
    }
    auto number = node.cpus.cluster_number(*local);
    if (!number) continue;
    processors += renumber ? renumber_block(block, *number, node.cpus.first_package)
                           : renumber_block(block, *local, 0);
    processors += '\n';
  }
}

struct MeminfoValue {
  uint64_t sum = 0;
  size_t width = 0;  // of the number, with the blanks before it but the first
  std::string_view unit;
};

// These describe one machine: adding them up would mean nothing.
bool is_size_of_a_machine(std::string_view key) {
  return key == "Hugepagesize" || key == "VmallocTotal";
}

void add_meminfo(OrderedSums<MeminfoValue>& sums, std::string_view text) {
  while (!text.empty()) {
    std::string_view line = next_line(text);
    size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::string_view words = line.substr(colon + 1);
    std::string_view value = next_word(words);
    auto number = to_number<uint64_t>(value);
    if (!number) continue;
    MeminfoValue& entry = sums[line.substr(0, colon)];
    bool is_first = entry.width == 0;
    if (is_first) {
      // At least one blank and one digit, whatever the text.
      size_t width = static_cast<size_t>(value.end() - line.begin()) - colon - 2;
      entry = {0, std::max<size_t>(width, 1), next_word(words)};
    }
    if (is_first || !is_size_of_a_machine(line.substr(0, colon))) entry.sum += *number;
  }
}

// "cpu12" names a processor; "cpu" is the sum of all.
std::optional<unsigned> cpu_line_number(std::string_view key) {
  if (key.substr(0, 3) != "cpu") return std::nullopt;
  return to_number<unsigned>(key.substr(3));
}

// One node's /proc/stat: all lines by key, the processors apart.
struct StatSums {
  OrderedSums<Numbers> lines;
  std::vector<std::pair<unsigned, Numbers>> processors;
};

void add_stat(StatSums& sums, const NodeText& node, bool renumber) {
  Numbers total, shown_total;
  size_t processors = 0, shown = 0;
  std::string_view text = node.text;
  while (!text.empty()) {
    std::string_view words = next_line(text);
    std::string_view key = next_word(words);
    if (key.empty()) continue;
    Numbers numbers = to_numbers(words);
    if (key == "cpu") {
      total = numbers;
    } else if (auto local = cpu_line_number(key)) {
      ++processors;
      auto number = node.cpus.cluster_number(*local);
      if (!number) continue;
      ++shown;
      add_each(shown_total, numbers);
      sums.processors.emplace_back(renumber ? *number : *local, std::move(numbers));
    } else if (key != "btime" || sums.lines["btime"].empty()) {
      add_each(sums.lines[key], numbers);
    }
  }
  add_each(sums.lines["cpu"], shown < processors ? shown_total : total);
}

void append_numbers(std::string& text, const Numbers& numbers) {
  for (uint64_t number : numbers) text += fmt::format(" {}", number);
  text += '\n';
}

std::string format_stat(StatSums sums) {
  std::string text = "cpu ";  // the kernel writes two blanks after this one
  append_numbers(text, sums.lines["cpu"]);
  std::stable_sort(sums.processors.begin(), sums.processors.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [number, values] : sums.processors) {
    text += fmt::format("cpu{}", number);
    append_numbers(text, values);
  }
  for (const auto& [key, values] : sums.lines) {
    if (key == "cpu") continue;
    text += key;
    append_numbers(text, values);
  }
  return text;
}

// "12.34" in hundredths; procfs always writes two decimals.
uint64_t to_hundredths(std::string_view text) {
  size_t dot = text.find('.');
  uint64_t whole = to_number<uint64_t>(text.substr(0, dot)).value_or(0);
  uint64_t parts = 0;
  if (dot != std::string_view::npos)
    parts = to_number<uint64_t>(text.substr(dot + 1, 2)).value_or(0);
  return whole * 100 + parts;
}

std::string from_hundredths(uint64_t value) {
  return fmt::format("{}.{:02}", value / 100, value % 100);
}

}  // namespace

std::string sum_cpuinfo(const std::vector<NodeText>& nodes) {
  std::string processors, machine;
  for (const NodeText& node : nodes) {
    std::string about_node;
    append_cpuinfo(node, true, processors, about_node);
    if (node.is_here || machine.empty()) machine = about_node;
  }
  return processors + machine;
}

std::string own_cpuinfo(const NodeText& node) {
  std::string processors, machine;
  append_cpuinfo(node, false, processors, machine);
  return processors + machine;
}

std::string sum_meminfo(const std::vector<NodeText>& nodes) {
  OrderedSums<MeminfoValue> sums;
  for (const NodeText* node : here_first(nodes)) add_meminfo(sums, node->text);
  std::string text;
  for (const auto& [key, value] : sums) {
    text += fmt::format("{}: {:>{}}", key, value.sum, value.width);
    if (!value.unit.empty()) text.append(" ").append(value.unit);
    text += '\n';
  }
  return text;
}

std::string sum_stat(const std::vector<NodeText>& nodes) {
  StatSums sums;
  for (const NodeText* node : here_first(nodes)) add_stat(sums, *node, true);
  return format_stat(std::move(sums));
}

std::string own_stat(const NodeText& node) {
  StatSums sums;
  add_stat(sums, node, false);
  return format_stat(std::move(sums));
}

std::string sum_loadavg(const std::vector<NodeText>& nodes) {
  std::array<uint64_t, 3> loads{};
  uint64_t running = 0, total = 0, last_pid = 0;
  for (const NodeText* node : here_first(nodes)) {
    std::string_view rest = node->text;
    for (uint64_t& load : loads) load += to_hundredths(next_word(rest));
    std::string_view counts = next_word(rest);
    size_t slash = counts.find('/');
    running += to_number<uint64_t>(counts.substr(0, slash)).value_or(0);
    if (slash != std::string_view::npos)
      total += to_number<uint64_t>(counts.substr(slash + 1)).value_or(0);
    if (last_pid == 0) last_pid = to_number<uint64_t>(trimmed(next_word(rest))).value_or(0);
  }
  return fmt::format("{} {} {} {}/{} {}\n", from_hundredths(loads[0]), from_hundredths(loads[1]),
                     from_hundredths(loads[2]), running, total, last_pid);
}

std::string sum_uptime(const std::vector<NodeText>& nodes) {
  uint64_t up = 0, idle = 0;
  for (const NodeText* node : here_first(nodes)) {
    std::string_view rest = trimmed(node->text);
    uint64_t node_up = to_hundredths(next_word(rest));
    if (up == 0) up = node_up;
    idle += to_hundredths(next_word(rest));
  }
  return fmt::format("{} {}\n", from_hundredths(up), from_hundredths(idle));
}

std::string sum_vmstat(const std::vector<NodeText>& nodes) {
  OrderedSums<uint64_t> sums;
  for (const NodeText* node : here_first(nodes)) {
    std::string_view text = node->text;
    while (!text.empty()) {
      std::string_view words = next_line(text);
      std::string_view key = next_word(words);
      if (auto number = to_number<uint64_t>(trimmed(words)); number && !key.empty())
        sums[key] += *number;
    }
  }
  std::string text;
  for (const auto& [key, sum] : sums) text += fmt::format("{} {}\n", key, sum);
  return text;
}

}  // namespace krg
