// MemoryNames: what the memory of a spread process is, in its programmer's words: a variable of a
// program's static data, the heap, a thread's stack, a mapping. Threads: the loop's thread. Owned
// by who counts faults. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "krg/runtime/types.h"
#include "spread/data_symbols.h"

namespace krg {

class MemoryNames {
 public:
  // As its mappings are now.
  static MemoryNames of_process(pid_t pid);
  // What was there is called otherwise from now on.
  void add(RemoteAddr start, uint64_t bytes, std::string name);

  // What the program tells of memory that it has allocated (allocation_call.h).
  struct Allocation {
    RemoteAddr start;
    uint64_t bytes = 0;
    bool goes_on = false;  // with more sites of what it has told before
    std::vector<uint64_t> sites;
  };
  void add(const Allocation& allocation);

  // The region: of static data the variable (in "program"), of what the program has told that it
  // allocated where that was, else the mapping.
  std::string region_at(uint64_t address);
  // Where that was: behind which calls in the program's file, the innermost first.
  std::vector<uint64_t> sites_at(uint64_t address) const;
  const std::string& program() const { return program_; }
  // The same, and how far into it.
  std::string word_at(uint64_t address);
  // Where a file has what is mapped there: its path and the address that its own tables know it by.
  struct InFile {
    std::string path;
    uint64_t address = 0;
  };
  std::optional<InFile> in_file(uint64_t address);

 private:
  struct Named {
    uint64_t end = 0;
    std::string name;
    std::string file;   // of static data
    uint64_t base = 0;  // where the file's first byte is mapped
    std::vector<uint64_t> sites;
  };
  const Named* find(uint64_t address, uint64_t* start) const;
  void cut(uint64_t at);
  std::string name_of(const Named& named);
  const DataSymbols& symbols_of(const std::string& file);
  void put(uint64_t start, Named named);

  std::map<uint64_t, Named> all_;  // by start
  std::string program_;            // its file
  std::map<std::string, DataSymbols> symbols_;
};

}  // namespace krg
