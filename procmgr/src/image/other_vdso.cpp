// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/other_vdso.h"

#include <elf.h>
#include <sys/syscall.h>

#include <cstring>
#include <map>
#include <optional>

#include "process_spec.h"

namespace krg {
namespace {

struct Function {
  uint64_t offset = 0, bytes = 0;
};
using Functions = std::map<std::string, Function, std::less<>>;

// movabs $address, %rax; jmp *%rax: no argument is there.
constexpr size_t kJumpBytes = 12;
std::string jump_to(uint64_t address) {
  std::string code = "\x48\xb8";
  code.append(reinterpret_cast<const char*>(&address), sizeof address);
  return code + "\xff\xe0";
}

// mov $number, %eax; syscall; ret: of at most three arguments, which lie where the call has them.
std::string system_call(uint32_t number) {
  std::string code = "\xb8";
  code.append(reinterpret_cast<const char*>(&number), sizeof number);
  return code + "\x0f\x05\xc3";
}

std::optional<uint32_t> call_of(std::string_view name) {
  static constexpr std::pair<std::string_view, uint32_t> kCalls[] = {
      {"clock_gettime", SYS_clock_gettime},
      {"gettimeofday", SYS_gettimeofday},
      {"time", SYS_time},
      {"clock_getres", SYS_clock_getres},
      {"getcpu", SYS_getcpu},
      {"getrandom", SYS_getrandom}};
  constexpr std::string_view kPrefix = "__vdso_";
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  for (const auto& [known, number] : kCalls)
    if (name == known) return number;
  return std::nullopt;
}

template <class T>
bool read_at(std::string_view image, uint64_t at, T& value) {
  if (at > image.size() || sizeof value > image.size() - at) return false;
  std::memcpy(&value, image.data() + at, sizeof value);
  return true;
}

// The table of symbols, whose end is where that of their names begins (ld(1) puts them so).
Functions functions_of(std::string_view image) {
  Elf64_Ehdr header;
  Functions functions;
  if (!read_at(image, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return {};
  Elf64_Phdr segment, dynamic{};
  for (unsigned i = 0; i < header.e_phnum; ++i)
    if (read_at(image, header.e_phoff + i * sizeof segment, segment) &&
        segment.p_type == PT_DYNAMIC)
      dynamic = segment;
  uint64_t symbols = 0, names = 0;
  Elf64_Dyn entry;
  for (uint64_t at = 0; at < dynamic.p_memsz && read_at(image, dynamic.p_offset + at, entry);
       at += sizeof entry) {
    if (entry.d_tag == DT_SYMTAB) symbols = entry.d_un.d_ptr;
    if (entry.d_tag == DT_STRTAB) names = entry.d_un.d_ptr;
  }
  Elf64_Sym symbol;
  for (uint64_t at = symbols; at < names && read_at(image, at, symbol); at += sizeof symbol) {
    const bool is_function = ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_shndx != 0;
    const uint64_t name_at = names + symbol.st_name;
    if (!is_function || name_at >= image.size()) continue;
    const std::string_view name = image.substr(name_at, image.find('\0', name_at) - name_at);
    functions.emplace(name, Function{symbol.st_value, symbol.st_size});
  }
  return functions;
}

}  // namespace

Result<std::string> lead_vdso(std::string other, std::string_view own, RemoteAddr own_at) {
  const Functions wanted = functions_of(other), known = functions_of(own);
  for (const auto& [name, function] : wanted) {
    const auto same = known.find(name);
    const auto call = call_of(name);
    if (same == known.end() && !call) continue;  // nobody but the C library calls any
    const std::string code =
        same != known.end() ? jump_to(own_at.value + same->second.offset) : system_call(*call);
    if (function.bytes < kJumpBytes || function.offset > other.size() ||
        code.size() > other.size() - function.offset)
      return cannot_move("another kernel's vdso, of which " + name +
                         " cannot be led to this one's");
    other.replace(function.offset, code.size(), code);
  }
  if (wanted.empty()) return cannot_move("another kernel's vdso");
  return other;
}

}  // namespace krg
