// SPDX-License-Identifier: GPL-2.0-or-later
#include "gdb_thread_locals.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "krg/runtime/hex.h"

namespace krg {
namespace {

constexpr const char* kModule = "_thread_db_link_map_l_tls_modid";
constexpr const char* kVector = "_thread_db_pthread_dtvp";
constexpr const char* kEntry = "_thread_db_dtv_dtv";
constexpr const char* kBlock = "_thread_db_dtv_t_pointer_val";
constexpr std::array kNames = {kModule, kVector, kEntry, kBlock};
constexpr uint64_t kNotAllocated = ~0ULL;
constexpr uint64_t kModuleOfProgram = 1;

}  // namespace

// qSymbol:ADDRESS:NAME, both empty at first.
std::string GdbThreadLocals::answer(const std::string& packet) {
  const size_t address = packet.find(':') + 1, name = packet.find(':', address) + 1;
  if (name < packet.size())
    symbols_[from_hex(packet.substr(name))] = std::strtoull(packet.c_str() + address, nullptr, 16);
  else  // more of the program is known
    std::erase_if(symbols_, [](const auto& symbol) { return symbol.second == 0; });
  const auto next = std::find_if(kNames.begin(), kNames.end(),
                                 [this](const char* known) { return !symbols_.contains(known); });
  return next == kNames.end() ? "OK" : "qSymbol:" + to_hex(std::string(*next));
}

Result<uint64_t> GdbThreadLocals::find(uint64_t thread, uint64_t link_map, uint64_t offset) const {
  auto vector = field(kVector), entry = field(kEntry), block = field(kBlock);
  if (!vector) return vector.error();
  if (!entry) return entry.error();
  if (!block) return block.error();
  uint64_t module = kModuleOfProgram;
  if (link_map != 0) {
    auto known = field(kModule);
    auto read =
        known ? word(link_map + known->offset, known->bits / 8) : Result<uint64_t>(known.error());
    if (!read) return read.error();
    module = *read;
  }
  auto blocks = word(thread + vector->offset, sizeof(uint64_t));
  if (!blocks) return blocks.error();
  auto start =
      word(*blocks + entry->offset + module * (entry->bits / 8) + block->offset, sizeof(uint64_t));
  if (!start) return start.error();
  if (*start == 0 || *start == kNotAllocated)
    return errno_error("the thread has not used variables of that object yet", ENODATA);
  return *start + offset;
}

Result<GdbThreadLocals::Field> GdbThreadLocals::field(const char* name) const {
  const auto symbol = symbols_.find(name);
  if (symbol == symbols_.end() || symbol->second == 0) return errno_error(name, ENOENT);
  auto bytes = read_(symbol->second, sizeof(Field));
  if (!bytes || bytes->size() != sizeof(Field)) return errno_error(name, EFAULT);
  Field field;
  std::memcpy(&field, bytes->data(), sizeof field);
  return field;
}

Result<uint64_t> GdbThreadLocals::word(uint64_t address, size_t bytes) const {
  uint64_t value = 0;
  if (bytes > sizeof value) return errno_error("a word of glibc's", EBADMSG);
  auto read = read_(address, bytes);
  if (!read || read->size() != bytes) return errno_error("a word of glibc's", EFAULT);
  std::memcpy(&value, read->data(), bytes);
  return value;
}

}  // namespace krg
