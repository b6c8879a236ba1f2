// SPDX-License-Identifier: GPL-2.0-or-later
#include "named_functions.h"

#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

constexpr uint64_t kMostNameBytes = 8u << 20, kMostItems = 4096;

// The `count` items at an offset; none where the file has not so many.
template <class T>
std::vector<T> items(int file, uint64_t offset, uint64_t count) {
  std::vector<T> all(std::min(count, kMostItems));
  const size_t bytes = all.size() * sizeof(T);
  const ssize_t got = pread(file, all.data(), bytes, static_cast<off_t>(offset));
  if (got < 0 || static_cast<size_t>(got) != bytes) all.clear();
  return all;
}

bool is_elf(const Elf64_Ehdr& header) {
  return std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
         header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_phentsize == sizeof(Elf64_Phdr);
}

// Where in the file what is loaded at an address lies; 0: nowhere.
uint64_t offset_of(uint64_t address, const std::vector<Elf64_Phdr>& parts) {
  for (const Elf64_Phdr& part : parts)
    if (part.p_type == PT_LOAD && address >= part.p_vaddr && address - part.p_vaddr < part.p_filesz)
      return part.p_offset + (address - part.p_vaddr);
  return 0;
}

// The dynamic string table; empty where there is none.
std::string names_in(int file) {
  const auto headers = items<Elf64_Ehdr>(file, 0, 1);
  if (headers.empty() || !is_elf(headers[0])) return {};
  const auto parts = items<Elf64_Phdr>(file, headers[0].e_phoff, headers[0].e_phnum);
  uint64_t address = 0, bytes = 0;
  for (const Elf64_Phdr& part : parts) {
    if (part.p_type != PT_DYNAMIC) continue;
    for (const auto& entry :
         items<Elf64_Dyn>(file, part.p_offset, part.p_filesz / sizeof(Elf64_Dyn))) {
      if (entry.d_tag == DT_STRTAB) address = entry.d_un.d_ptr;
      if (entry.d_tag == DT_STRSZ) bytes = std::min<uint64_t>(entry.d_un.d_val, kMostNameBytes);
    }
  }
  const uint64_t offset = offset_of(address, parts);
  if (offset == 0) return {};
  std::string names(bytes, '\0');
  const ssize_t got = pread(file, names.data(), bytes, static_cast<off_t>(offset));
  names.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return names;
}

}  // namespace

Result<bool> names_function(const std::string& path, std::string_view function) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error(path);
  std::string whole(1, '\0');  // names stand between zeros
  whole.append(function).append(1, '\0');
  return names_in(file.get()).find(whole) != std::string::npos;
}

}  // namespace krg
