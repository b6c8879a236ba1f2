// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/data_symbols.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>
#include <vector>

#include "krg/shmem/page_set.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr uint64_t kMostSymbols = 1u << 20;

// The `count` items at an offset; fewer where the file ends.
template <class T>
std::vector<T> items(const std::string& file, uint64_t offset, uint64_t count) {
  std::vector<T> all;
  for (uint64_t i = 0; i < count && offset + (i + 1) * sizeof(T) <= file.size(); ++i) {
    T item;
    std::memcpy(&item, file.data() + offset + i * sizeof(T), sizeof item);
    all.push_back(item);
  }
  return all;
}

std::string text_at(const std::string& file, uint64_t offset) {
  if (offset >= file.size()) return {};
  return file.substr(offset, std::min(file.find('\0', offset), file.size()) - offset);
}

std::optional<Elf64_Shdr> section(const std::vector<Elf64_Shdr>& sections, uint32_t type) {
  auto found = std::find_if(sections.begin(), sections.end(),
                            [&](const Elf64_Shdr& section) { return section.sh_type == type; });
  if (found == sections.end()) return std::nullopt;
  return *found;
}

}  // namespace

Result<DataSymbols> DataSymbols::read(const std::string& path) {
  auto file = read_whole_file(path, 256u << 20);
  if (!file) return file.error();
  const auto headers = items<Elf64_Ehdr>(*file, 0, 1);
  if (headers.empty() || std::memcmp(headers[0].e_ident, ELFMAG, SELFMAG) != 0 ||
      headers[0].e_ident[EI_CLASS] != ELFCLASS64 || headers[0].e_ident[EI_DATA] != ELFDATA2LSB)
    return errno_error(path, ENOEXEC);
  const Elf64_Ehdr& header = headers[0];
  DataSymbols symbols;
  for (const Elf64_Phdr& part : items<Elf64_Phdr>(*file, header.e_phoff, header.e_phnum))
    if (part.p_type == PT_LOAD) {
      symbols.first_address_ = (part.p_vaddr - part.p_offset) / kPageBytes * kPageBytes;
      break;
    }
  const auto sections = items<Elf64_Shdr>(*file, header.e_shoff, header.e_shnum);
  auto table = section(sections, SHT_SYMTAB);
  if (!table) table = section(sections, SHT_DYNSYM);
  if (!table || table->sh_link >= sections.size()) return symbols;
  const uint64_t names = sections[table->sh_link].sh_offset;
  const uint64_t count = std::min(table->sh_size / sizeof(Elf64_Sym), kMostSymbols);
  for (const Elf64_Sym& symbol : items<Elf64_Sym>(*file, table->sh_offset, count))
    if ((ELF64_ST_TYPE(symbol.st_info) == STT_OBJECT ||
         ELF64_ST_TYPE(symbol.st_info) == STT_FUNC) &&
        symbol.st_size > 0 && symbol.st_value > 0)
      symbols.symbols_[symbol.st_value] = {text_at(*file, names + symbol.st_name), symbol.st_size};
  return symbols;
}

std::string DataSymbols::at(uint64_t address) const {
  auto after = symbols_.upper_bound(address);
  if (after == symbols_.begin()) return {};
  const auto& [start, symbol] = *std::prev(after);
  if (address - start >= symbol.bytes) return {};
  return address == start ? symbol.name : fmt::format("{}+{}", symbol.name, address - start);
}

}  // namespace krg
