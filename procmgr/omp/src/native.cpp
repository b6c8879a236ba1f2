// Functions of libgomp that this library does not have (forwarded.txt: OpenACC, offloading to other
// devices, plugins of both). A program that needs one when it starts is started again with the
// system's libgomp in place of this library. One that needs one later (dlopen) has its calls passed
// on to the system's libgomp, loaded beside this library; what of OpenMP the program uses stays
// here.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "places.h"
#include "settings.h"
#include "team.h"

// Written by the build from forwarded.txt.
extern "C" {
extern const char* const krg_omp_forwarded_names[];
extern const unsigned long krg_omp_forwarded_count;
extern void* krg_omp_forwarded[];
void* krg_omp_find_native(unsigned long index);
}

namespace krg::omp {
namespace {

bool is_forwarded(const char* name) {
  if (name[0] != 'a' && name[0] != 'G') return false;
  for (unsigned long i = 0; i < krg_omp_forwarded_count; ++i) {
    if (std::strcmp(name, krg_omp_forwarded_names[i]) == 0) return true;
  }
  return false;
}

// Where ld.so put an object's tables of symbols.
struct Symbols {
  const ElfW(Sym) * table = nullptr;
  const char* names = nullptr;
  const ElfW(Word) * hash = nullptr;
  const ElfW(Word) * gnu_hash = nullptr;

  // Those without a definition come before the ones that a GNU hash table holds.
  [[nodiscard]] ElfW(Word) count() const {
    if (hash != nullptr) return hash[1];
    return gnu_hash != nullptr ? gnu_hash[1] : 0;
  }
};

Symbols symbols_of(const dl_phdr_info& object) {
  Symbols found;
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    if (object.dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    const auto* entry =
        reinterpret_cast<const ElfW(Dyn)*>(object.dlpi_addr + object.dlpi_phdr[i].p_vaddr);
    for (; entry->d_tag != DT_NULL; ++entry) {
      // The vDSO's are not relocated.
      const ElfW(Addr) address = entry->d_un.d_ptr < object.dlpi_addr
                                     ? entry->d_un.d_ptr + object.dlpi_addr
                                     : entry->d_un.d_ptr;
      if (entry->d_tag == DT_SYMTAB) found.table = reinterpret_cast<const ElfW(Sym)*>(address);
      if (entry->d_tag == DT_STRTAB) found.names = reinterpret_cast<const char*>(address);
      if (entry->d_tag == DT_HASH) found.hash = reinterpret_cast<const ElfW(Word)*>(address);
      if (entry->d_tag == DT_GNU_HASH)
        found.gnu_hash = reinterpret_cast<const ElfW(Word)*>(address);
    }
  }
  return found;
}

int find_in_object(dl_phdr_info* object, std::size_t, void* result) {
  const Symbols symbols = symbols_of(*object);
  if (symbols.table == nullptr || symbols.names == nullptr) return 0;
  for (ElfW(Word) i = 1; i < symbols.count(); ++i) {
    const ElfW(Sym)& symbol = symbols.table[i];
    const char* name = symbols.names + symbol.st_name;
    if (symbol.st_shndx != SHN_UNDEF || !is_forwarded(name)) continue;
    *static_cast<const char**>(result) = name;
    return 1;
  }
  return 0;
}

// The folder that this library was loaded from.
bool own_folder(char (&folder)[PATH_MAX]) {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&krg_omp_find_native), &info) == 0) return false;
  if (realpath(info.dli_fname, folder) == nullptr) return false;
  char* slash = std::strrchr(folder, '/');
  if (slash == nullptr) return false;
  *slash = '\0';
  return true;
}

// Calls `visit` with each folder of LD_LIBRARY_PATH but this library's own, until it says true.
template <class Visit>
bool other_folders(const Visit& visit) {
  char own[PATH_MAX];
  const char* at = std::getenv("LD_LIBRARY_PATH");
  if (at == nullptr || !own_folder(own)) return false;
  while (true) {
    const std::size_t length = std::strcspn(at, ":;");
    char folder[PATH_MAX], real[PATH_MAX];
    std::snprintf(folder, sizeof folder, "%.*s", int(length), at);
    const bool is_own = realpath(folder, real) != nullptr && std::strcmp(real, own) == 0;
    if (!is_own && visit(folder)) return true;
    if (at[length] == '\0') return false;
    at += length + 1;
  }
}

void start_again(char** arguments, const char* needed) {
  const char* before = std::getenv("LD_LIBRARY_PATH");
  if (before == nullptr) return;
  static char after[1 << 17];
  std::size_t length = 0;
  bool first = true;
  other_folders([&](const char* folder) {
    const int added =
        std::snprintf(after + length, sizeof after - length, "%s%s", first ? "" : ":", folder);
    length += std::size_t(added);
    first = false;
    return length >= sizeof after;
  });
  if (length >= sizeof after || std::strlen(after) == std::strlen(before)) return;
  complain("%s needs %s, which libkrgomp does not have: it gets the system's libgomp, on one node",
           arguments[0], needed);
  if (first) {
    unsetenv("LD_LIBRARY_PATH");
  } else {
    setenv("LD_LIBRARY_PATH", after, 1);
  }
  execve("/proc/self/exe", arguments, environ);
}

void* open_native() {
  void* library = nullptr;
  const auto open = [&](const char* folder) {
    char path[PATH_MAX + 16];
    std::snprintf(path, sizeof path, "%s/libgomp.so.1", folder);
    library = access(path, R_OK) == 0 ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    return library != nullptr;
  };
  if (other_folders(open)) return library;
  for (const char* folder :
       {KRG_OMP_NATIVE_FOLDER, "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"}) {
    if (open(folder)) return library;
  }
  return nullptr;
}

// Before the program's own constructors, since nothing that the program links is below this library
// but the C library.
[[gnu::constructor]] void begin(int, char** arguments, char**) {
  const char* needed = nullptr;
  dl_iterate_phdr(find_in_object, &needed);
  if (needed != nullptr) start_again(arguments, needed);
  prepare_process();
  read_environment();
}

}  // namespace
}  // namespace krg::omp

void* krg_omp_find_native(unsigned long index) {
  using namespace krg::omp;
  const char* name = krg_omp_forwarded_names[index];
  static void* const library = open_native();
  void* function = library != nullptr ? dlsym(library, name) : nullptr;
  if (function == nullptr)
    fatal("%s is not offered by libkrgomp, and no other libgomp.so.1 has it", name);
  complain("%s is not offered by libkrgomp: calls go to the system's libgomp, on one node", name);
  __atomic_store_n(&krg_omp_forwarded[index], function, __ATOMIC_RELEASE);
  return function;
}
