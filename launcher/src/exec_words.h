// Words as exec(3) takes them.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <vector>

namespace krg {

// The words' own bytes and a null pointer at the end; valid as long as `words` is not changed. exec
// takes pointers to mutable characters for C's sake only and changes none.
inline std::vector<char*> pointers_to(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace krg
