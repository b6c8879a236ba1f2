// SPDX-License-Identifier: GPL-2.0-or-later
#include "openmp_runtime.h"

#include <elf.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include "environment_variables.h"
#include "launch_environment.h"

namespace krg {
namespace {

// A file's bytes as ELF sections; every access is checked against its length.
class ElfFile {
 public:
  explicit ElfFile(std::string bytes) : bytes_(std::move(bytes)) {
    const auto header = at<Elf64_Ehdr>(0);
    if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return;
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_shentsize != sizeof(Elf64_Shdr))
      return;
    for (unsigned i = 0; i < header->e_shnum; ++i) {
      if (auto section = at<Elf64_Shdr>(header->e_shoff + i * sizeof(Elf64_Shdr)))
        sections_.push_back(*section);
    }
  }

  template <class T>
  [[nodiscard]] std::optional<T> at(uint64_t offset) const {
    if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, bytes_.data() + offset, sizeof value);
    return value;
  }
  [[nodiscard]] const Elf64_Shdr* section(uint32_t type) const {
    for (const Elf64_Shdr& one : sections_)
      if (one.sh_type == type) return &one;
    return nullptr;
  }
  // A string of the table that `section` is linked with.
  [[nodiscard]] std::string text(const Elf64_Shdr& section, uint64_t index) const {
    if (section.sh_link >= sections_.size()) return "";
    const uint64_t offset = sections_[section.sh_link].sh_offset + index;
    return offset < bytes_.size() ? std::string(bytes_.c_str() + offset) : "";
  }

 private:
  std::string bytes_;
  std::vector<Elf64_Shdr> sections_;
};

Result<ElfFile> read_elf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return text_error("cannot read " + path);
  char magic[SELFMAG] = {};
  file.read(magic, sizeof magic);
  if (std::memcmp(magic, ELFMAG, SELFMAG) != 0) return ElfFile("");
  file.seekg(0);
  return ElfFile(std::string(std::istreambuf_iterator<char>(file), {}));
}

// Empty: not found; whoever executes it will say so.
std::string path_of(const std::string& program, const std::vector<std::string>& environment) {
  if (program.find('/') != std::string::npos) return program;
  std::string folders(value_of(environment, "PATH"));
  while (!folders.empty()) {
    const size_t colon = folders.find(':');
    const std::string path = folders.substr(0, colon) + "/" + program;
    if (access(path.c_str(), X_OK) == 0) return path;
    folders = colon == std::string::npos ? "" : folders.substr(colon + 1);
  }
  return "";
}

}  // namespace

Result<std::vector<std::string>> versions_needed(const std::string& file,
                                                 const std::string& library) {
  auto elf = read_elf(file);
  if (!elf) return elf.error();
  std::vector<std::string> names;
  const Elf64_Shdr* section = elf->section(SHT_GNU_verneed);
  if (!section) return names;
  uint64_t offset = section->sh_offset;
  for (unsigned i = 0; i < section->sh_info; ++i) {
    const auto need = elf->at<Elf64_Verneed>(offset);
    if (!need) break;
    uint64_t version = offset + need->vn_aux;
    for (unsigned j = 0; j < need->vn_cnt && elf->text(*section, need->vn_file) == library; ++j) {
      const auto entry = elf->at<Elf64_Vernaux>(version);
      if (!entry) break;
      names.push_back(elf->text(*section, entry->vna_name));
      version += entry->vna_next;
    }
    offset += need->vn_next;
  }
  return names;
}

Result<std::vector<std::string>> versions_defined(const std::string& file) {
  auto elf = read_elf(file);
  if (!elf) return elf.error();
  std::vector<std::string> names;
  const Elf64_Shdr* section = elf->section(SHT_GNU_verdef);
  if (!section) return names;
  uint64_t offset = section->sh_offset;
  for (unsigned i = 0; i < section->sh_info; ++i) {
    const auto definition = elf->at<Elf64_Verdef>(offset);
    if (!definition) break;
    if (const auto name = elf->at<Elf64_Verdaux>(offset + definition->vd_aux))
      names.push_back(elf->text(*section, name->vda_name));
    offset += definition->vd_next;
  }
  return names;
}

Status use_libkrgomp(std::vector<std::string>& environment, const std::string& program) {
  const std::string folder = libexec_dir() + "/omp";
  const auto defined = versions_defined(folder + "/libgomp.so.1");
  if (!defined) return defined.error();
  const std::string path = path_of(program, environment);
  // Of a program that cannot be read, ld.so will tell what it lacks.
  const auto needed = versions_needed(path, "libgomp.so.1");
  for (const std::string& version : needed ? *needed : std::vector<std::string>()) {
    if (std::find(defined->begin(), defined->end(), version) == defined->end())
      return text_error(
          fmt::format("{} needs {} of libgomp, which libkrgomp does not have: it "
                      "gets the system's libgomp",
                      program, version));
  }
  put_first(environment, "LD_LIBRARY_PATH", folder);
  return {};
}

}  // namespace krg
