// DataSymbols: the variables that a program or library has in its static data, and its functions,
// by address, as its symbol table names them (of a stripped file: those that it offers to others).
// Pure but for reading the file. Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "krg/runtime/result.h"

namespace krg {

class DataSymbols {
 public:
  // Errors: of open(2), read(2); ENOEXEC: no 64-bit ELF file of this machine's byte order.
  static Result<DataSymbols> read(const std::string& path);

  // Where the file's first byte is mapped, its addresses begin.
  uint64_t first_address() const { return first_address_; }
  // The variable or function at that address of the file, and how far into it: "name" or "name+8".
  // Empty: none.
  std::string at(uint64_t address) const;

 private:
  struct Symbol {
    std::string name;
    uint64_t bytes;
  };
  uint64_t first_address_ = 0;
  std::map<uint64_t, Symbol> symbols_;
};

}  // namespace krg
