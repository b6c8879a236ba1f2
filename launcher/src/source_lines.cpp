// SPDX-License-Identifier: GPL-2.0-or-later
#include "source_lines.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace krg {
namespace {

using nlohmann::json;

std::string quoted(const std::string& word) {
  std::string text = "'";
  for (char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
  return text + "'";
}

// What addr2line says of an address; of a call that was inlined, one line for each function.
std::vector<std::string> lines_at(const std::string& file, uint64_t address) {
  const std::string command =
      fmt::format("addr2line -i -e {} {:#x} 2> /dev/null", quoted(file), address);
  std::unique_ptr<FILE, int (*)(FILE*)> output(popen(command.c_str(), "re"), pclose);
  std::vector<std::string> lines;
  char line[4096] = "";
  while (output && fgets(line, sizeof line, output.get())) {
    lines.emplace_back(line);
    while (lines.back().ends_with('\n')) lines.back().pop_back();
  }
  return lines;
}

// "/home/me/main.c:42 (discriminator 3)" as "main.c:42"; nothing where no line is known.
std::string short_line(std::string told) {
  told = told.substr(0, told.find(' '));
  told = told.substr(told.rfind('/') + 1);
  const size_t colon = told.rfind(':');
  if (colon == std::string::npos || told[0] == '?') return {};
  const char first = told.c_str()[colon + 1];
  return first >= '1' && first <= '9' ? told : std::string();
}

// A call's own line: the address behind it may be the next one's.
void add_line(json& place, unsigned before) {
  const std::string file = place.value("file", "");
  if (file.empty()) return;
  const auto lines = lines_at(file, place.value("address", uint64_t{0}) - before);
  const std::string line = lines.empty() ? std::string() : short_line(lines.front());
  if (!line.empty()) place["line"] = line;
}

// The innermost line that is not in a header of the system's, as templates' are.
void add_line_of_site(json& memory) {
  if (!memory.contains("site")) return;
  const json& site = memory["site"];
  for (const json& address : site["addresses"])
    for (const std::string& told : lines_at(site.value("file", ""), address.get<uint64_t>() - 1)) {
      const std::string line = short_line(told);
      if (line.empty() || told.rfind("/usr/", 0) == 0) continue;
      memory["line"] = line;
      return;
    }
}

}  // namespace

void add_source_lines(json& processes) {
  for (json& process : processes) {
    for (json& part : process["parallel"]) {
      add_line(part["region"], 0);
      add_line(part["barrier"], 1);
    }
    for (const char* list : {"regions", "false_sharing"})
      if (process.contains(list))
        for (json& memory : process[list]) add_line_of_site(memory);
  }
}

}  // namespace krg
