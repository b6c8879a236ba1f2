// SPDX-License-Identifier: GPL-2.0-or-later
#include "openmp_runtime.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "environment_variables.h"
#include "krg/runtime/unique_fd.h"
#include "launch_environment.h"

namespace krg {
namespace {

constexpr size_t kLongestName = 256;
constexpr const char* kLibgomp = "libgomp.so.1";

// An ELF file's sections; a few of its bytes are read when they are asked for, since programs may
// be large.
class ElfFile {
 public:
  explicit ElfFile(UniqueFd file) : file_(std::move(file)) {
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
    T value;
    if (pread(file_.get(), &value, sizeof value, static_cast<off_t>(offset)) != sizeof value)
      return std::nullopt;
    return value;
  }
  [[nodiscard]] const Elf64_Shdr* section(uint32_t type) const {
    for (const Elf64_Shdr& one : sections_)
      if (one.sh_type == type) return &one;
    return nullptr;
  }
  // A string of the table that `section` is linked with; empty when it is longer than a name may
  // be.
  [[nodiscard]] std::string text(const Elf64_Shdr& section, uint64_t index) const {
    if (section.sh_link >= sections_.size()) return "";
    std::array<char, kLongestName> name{};
    const uint64_t offset = sections_[section.sh_link].sh_offset + index;
    if (pread(file_.get(), name.data(), name.size(), static_cast<off_t>(offset)) < 0) return "";
    return std::memchr(name.data(), 0, name.size()) ? name.data() : "";
  }

 private:
  UniqueFd file_;
  std::vector<Elf64_Shdr> sections_;
};

Result<ElfFile> read_elf(const std::string& path) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return text_error("cannot read " + path);
  return ElfFile(std::move(file));
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

bool needs_libgomp(const std::vector<std::string>& environment, const std::string& program) {
  const auto needed = versions_needed(path_of(program, environment), kLibgomp);
  return needed && !needed->empty();
}

Status use_libkrgomp(std::vector<std::string>& environment, const std::string& program) {
  const std::string folder = libexec_dir() + "/omp";
  const auto defined = versions_defined(folder + "/libgomp.so.1");
  if (!defined) return defined.error();
  const std::string path = path_of(program, environment);
  // Of a program that cannot be read, ld.so will tell what it lacks.
  const auto needed = versions_needed(path, kLibgomp);
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
