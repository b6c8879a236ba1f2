// SPDX-License-Identifier: GPL-2.0-or-later
#include "gdb_registers.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "krg/runtime/hex.h"

namespace krg {
namespace {

// XSAVE's layout: the legacy region, a header that begins with what is there, AVX's upper halves.
constexpr size_t kHeader = 512, kUpperHalves = 576, kUpperHalfBytes = 16;
constexpr uint64_t kHasUpperHalves = 1 << 2;
constexpr size_t kVectors = 16;

constexpr const char* kTypes =
    R"(<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>
<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>
<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>
<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>
<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>
<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>
<field name="uint128" type="uint128"/></union>)";

struct Bit {
  const char* name;
  unsigned number;
};

std::string flags(const char* id, std::initializer_list<Bit> bits) {
  std::string text = fmt::format(R"(<flags id="{}" size="4">)", id);
  for (const Bit& bit : bits)
    text +=
        fmt::format(R"(<field name="{}" start="{}" end="{}"/>)", bit.name, bit.number, bit.number);
  return text + "</flags>";
}

std::string registers(std::initializer_list<const char*> names, unsigned bits, const char* type) {
  std::string text;
  for (const char* name : names)
    text += fmt::format(R"(<reg name="{}" bitsize="{}" type="{}"/>)", name, bits, type);
  return text;
}

std::string numbered(const char* pattern, unsigned count, unsigned bits, const char* type) {
  std::string text;
  for (unsigned i = 0; i < count; ++i)
    text += registers({fmt::format(fmt::runtime(pattern), i).c_str()}, bits, type);
  return text;
}

std::string feature(const char* name, const std::string& contents) {
  return fmt::format(R"(<feature name="org.gnu.gdb.i386.{}">{}</feature>)", name, contents);
}

std::string core() {
  return flags("i386_eflags", {{"CF", 0},
                               {"PF", 2},
                               {"AF", 4},
                               {"ZF", 6},
                               {"SF", 7},
                               {"TF", 8},
                               {"IF", 9},
                               {"DF", 10},
                               {"OF", 11}}) +
         registers({"rax", "rbx", "rcx", "rdx", "rsi", "rdi"}, 64, "int64") +
         registers({"rbp", "rsp"}, 64, "data_ptr") +
         registers({"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}, 64, "int64") +
         registers({"rip"}, 64, "code_ptr") + registers({"eflags"}, 32, "i386_eflags") +
         registers({"cs", "ss", "ds", "es", "fs", "gs"}, 32, "int32") +
         numbered("st{}", 8, 80, "i387_ext") +
         registers({"fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"}, 32,
                   "int");
}

std::string sse() {
  return kTypes +
         flags("i386_mxcsr", {{"IE", 0},
                              {"DE", 1},
                              {"ZE", 2},
                              {"OE", 3},
                              {"UE", 4},
                              {"PE", 5},
                              {"DAZ", 6},
                              {"IM", 7},
                              {"DM", 8},
                              {"ZM", 9},
                              {"OM", 10},
                              {"UM", 11},
                              {"PM", 12},
                              {"FZ", 15}}) +
         numbered("xmm{}", kVectors, 128, "vec128") + registers({"mxcsr"}, 32, "i386_mxcsr");
}

void append(std::string& bytes, uint64_t value, size_t width) {
  bytes.append(reinterpret_cast<const char*>(&value), width);
}

std::string general_bytes(const user_regs_struct& r) {
  std::string bytes;
  for (uint64_t value : {r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10,
                         r.r11, r.r12, r.r13, r.r14, r.r15, r.rip})
    append(bytes, value, sizeof value);
  for (uint64_t value : {r.eflags, r.cs, r.ss, r.ds, r.es, r.fs, r.gs}) append(bytes, value, 4);
  return bytes;
}

// The floating-point stack, its control words, the vector registers (SSE).
std::string vector_bytes(const user_fpregs_struct& r) {
  constexpr size_t kOfStack = 8, kStackBytes = 10, kSlotBytes = 16;
  std::string bytes;
  const auto* stack = reinterpret_cast<const char*>(r.st_space);
  for (size_t i = 0; i < kOfStack; ++i) bytes.append(stack + i * kSlotBytes, kStackBytes);
  const std::initializer_list<uint64_t> control = {
      r.cwd, r.swd, r.ftw, r.rip >> 32, r.rip & UINT32_MAX, r.rdp >> 32, r.rdp & UINT32_MAX, r.fop};
  for (uint64_t value : control) append(bytes, value, 4);
  bytes.append(reinterpret_cast<const char*>(r.xmm_space), sizeof r.xmm_space);
  append(bytes, r.mxcsr, 4);
  return bytes;
}

std::string system_bytes(const user_regs_struct& r) {
  std::string bytes;
  for (uint64_t value : {r.orig_rax, r.fs_base, r.gs_base}) append(bytes, value, sizeof value);
  return bytes;
}

// Zeros while the thread has not used them.
std::string upper_halves(const std::string& extended) {
  std::string bytes(kVectors * kUpperHalfBytes, '\0');
  uint64_t has = 0;
  std::memcpy(&has, extended.data() + kHeader, sizeof has);
  if (has & kHasUpperHalves) bytes = extended.substr(kUpperHalves, bytes.size());
  return bytes;
}

}  // namespace

std::string gdb_target_description() {
  return "<target><architecture>i386:x86-64</architecture><osabi>GNU/Linux</osabi>" +
         feature("core", core()) + feature("sse", sse()) +
         feature("linux", registers({"orig_rax"}, 64, "int")) +
         feature("segments", registers({"fs_base", "gs_base"}, 64, "int")) +
         feature("avx", numbered("ymm{}h", kVectors, 128, "uint128")) + "</target>";
}

std::string gdb_registers(const std::optional<user_regs_struct>& general,
                          const std::string& extended) {
  const auto told = [](bool is_known, const std::string& bytes) {
    return is_known ? to_hex(bytes) : std::string(2 * bytes.size(), 'x');
  };
  const user_regs_struct r = general.value_or(user_regs_struct{});
  user_fpregs_struct vectors{};
  const bool has_vectors = extended.size() >= sizeof vectors;
  if (has_vectors) std::memcpy(&vectors, extended.data(), sizeof vectors);
  const bool has_upper = extended.size() >= kUpperHalves + kVectors * kUpperHalfBytes;
  return told(general.has_value(), general_bytes(r)) + told(has_vectors, vector_bytes(vectors)) +
         told(general.has_value(), system_bytes(r)) +
         told(has_upper,
              has_upper ? upper_halves(extended) : std::string(kVectors * kUpperHalfBytes, '\0'));
}

}  // namespace krg
