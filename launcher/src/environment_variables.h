// Variables in an environment as execve(2) takes it: "NAME=value" each. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace krg {

using Environment = std::vector<std::string>;

// Empty, too, when there is no such variable.
std::string_view value_of(const Environment& environment, std::string_view name);
void set_variable(Environment& environment, const std::string& name, const std::string& value);
// To the front of a list whose items colons part, as LD_LIBRARY_PATH is one.
void put_first(Environment& environment, const std::string& name, const std::string& item);

}  // namespace krg
