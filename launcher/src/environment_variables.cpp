// SPDX-License-Identifier: GPL-2.0-or-later
#include "environment_variables.h"

namespace krg {
namespace {

bool is_entry_of(const std::string& entry, std::string_view name) {
  return entry.size() > name.size() && entry[name.size()] == '=' &&
         entry.compare(0, name.size(), name) == 0;
}

}  // namespace

std::string_view value_of(const Environment& environment, std::string_view name) {
  for (const std::string& entry : environment)
    if (is_entry_of(entry, name)) return std::string_view(entry).substr(name.size() + 1);
  return {};
}

void set_variable(Environment& environment, const std::string& name, const std::string& value) {
  std::erase_if(environment, [&](const std::string& entry) { return is_entry_of(entry, name); });
  environment.push_back(name + "=" + value);
}

void put_first(Environment& environment, const std::string& name, const std::string& item) {
  const std::string before(value_of(environment, name));
  set_variable(environment, name, before.empty() ? item : item + ":" + before);
}

}  // namespace krg
