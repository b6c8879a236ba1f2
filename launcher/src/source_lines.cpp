// SPDX-License-Identifier: GPL-2.0-or-later
#include "source_lines.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

namespace krg {
namespace {

using nlohmann::json;

std::string quoted(const std::string& word) {
  std::string text = "'";
  for (char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
  return text + "'";
}

std::string first_line_of(const std::string& command) {
  std::unique_ptr<FILE, int (*)(FILE*)> output(popen(command.c_str(), "re"), pclose);
  char line[4096] = "";
  if (!output || !fgets(line, sizeof line, output.get())) return {};
  std::string text = line;
  while (text.ends_with('\n')) text.pop_back();
  return text;
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
  const std::string line =
      short_line(first_line_of(fmt::format("addr2line -e {} {:#x} 2> /dev/null", quoted(file),
                                           place.value("address", uint64_t{0}) - before)));
  if (!line.empty()) place["line"] = line;
}

}  // namespace

void add_source_lines(json& processes) {
  for (json& process : processes)
    for (json& part : process["parallel"]) {
      add_line(part["region"], 0);
      add_line(part["barrier"], 1);
    }
}

}  // namespace krg
