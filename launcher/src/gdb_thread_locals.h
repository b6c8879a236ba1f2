// GdbThreadLocals: where a thread's thread-local variables lie, as glibc lays them out. It says so
// itself by some words that it keeps for debuggers (nptl_db, libthread_db(3) of Solaris); gdb is
// asked where these lie in the program ("qSymbol").
//
// Threads: one at a time. Owned by krg_gdb's stub.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "krg/runtime/result.h"

namespace krg {

class GdbThreadLocals {
 public:
  // Of the program's memory. Errors: EFAULT.
  using Read = std::function<Result<std::string>(uint64_t address, size_t bytes)>;
  explicit GdbThreadLocals(Read read) : read_(std::move(read)) {}

  // The answer to a qSymbol packet, or to one that follows it: the next symbol's name, or "OK".
  std::string answer(const std::string& packet);
  // `thread`: its pointer (fs_base); `link_map`: of the object that has the variable, at `offset`
  // in its block. Errors: ENOENT (no glibc is known), ENODATA (the thread has no such block yet).
  Result<uint64_t> find(uint64_t thread, uint64_t link_map, uint64_t offset) const;

 private:
  struct Field {
    uint32_t bits = 0, count = 0, offset = 0;
  };
  Result<Field> field(const char* name) const;
  Result<uint64_t> word(uint64_t address, size_t bytes) const;

  const Read read_;
  std::map<std::string, uint64_t> symbols_;  // 0: not there
};

}  // namespace krg
