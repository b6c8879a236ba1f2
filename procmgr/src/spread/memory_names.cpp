// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/memory_names.h"

#include <fmt/format.h>

#include <iterator>

#include "image/known_mappings.h"
#include "krg/shmem/page_set.h"
#include "process_spec.h"

namespace krg {
namespace {

std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

std::string program_path(pid_t pid) {
  return read_link(fmt::format("/proc/{}/exe", pid)).value_or("");
}

}  // namespace

// Anonymous memory right behind a file's is that file's, too (.bss).
MemoryNames MemoryNames::of_process(pid_t pid) {
  MemoryNames names;
  names.program_ = program_path(pid);
  auto mappings = MappingTexts::read_maps(pid);
  if (!mappings) return names;
  Named last;
  for (const MappingText& mapping : mappings->all()) {
    Named named;
    named.end = mapping.end;
    named.name = std::string(mapping.name);
    if (mapping.inode != 0) {
      named.file = named.name;
      named.base = last.file == named.file ? last.base : mapping.start - mapping.offset;
    } else if (named.name.empty() && !last.file.empty() && last.end == mapping.start) {
      named.file = last.file;
      named.base = last.base;
    } else if (named.name.empty()) {
      named.name = fmt::format("a mapping of {} KiB", (mapping.end - mapping.start) / 1024);
    }
    last = named;
    names.put(mapping.start, std::move(named));
  }
  return names;
}

void MemoryNames::add(RemoteAddr start, uint64_t bytes, std::string name) {
  Named named;
  named.end = start.value + bytes;
  named.name = std::move(name);
  put(start.value, std::move(named));
}

// Its first page is its own, but for what the allocator has before it.
void MemoryNames::add(const Allocation& allocation) {
  const uint64_t start = allocation.start.value / kPageBytes * kPageBytes;
  if (allocation.goes_on) {
    auto known = all_.find(start);
    if (known == all_.end() || known->second.sites.empty()) return;
    std::vector<uint64_t>& sites = known->second.sites;
    sites.insert(sites.end(), allocation.sites.begin(), allocation.sites.end());
    return;
  }
  if (allocation.sites.empty()) return;
  Named named;
  named.end = allocation.start.value + allocation.bytes;
  named.sites = allocation.sites;
  put(start, std::move(named));
}

std::vector<uint64_t> MemoryNames::sites_at(uint64_t address) const {
  uint64_t start = 0;
  const Named* named = find(address, &start);
  return named ? named->sites : std::vector<uint64_t>();
}

void MemoryNames::put(uint64_t start, Named named) {
  cut(start);
  cut(named.end);
  all_.erase(all_.lower_bound(start), all_.lower_bound(named.end));
  all_[start] = std::move(named);
}

void MemoryNames::cut(uint64_t at) {
  auto after = all_.upper_bound(at);
  if (after == all_.begin()) return;
  auto& [start, lower] = *std::prev(after);
  if (start == at || lower.end <= at) return;
  Named upper = lower;
  lower.end = at;
  all_[at] = std::move(upper);
}

const MemoryNames::Named* MemoryNames::find(uint64_t address, uint64_t* start) const {
  auto after = all_.upper_bound(address);
  if (after == all_.begin()) return nullptr;
  const auto& [begin, named] = *std::prev(after);
  if (named.end <= address) return nullptr;
  *start = begin;
  return &named;
}

const DataSymbols& MemoryNames::symbols_of(const std::string& file) {
  auto found = symbols_.find(file);
  if (found != symbols_.end()) return found->second;
  auto read = DataSymbols::read(file);
  return symbols_[file] = read ? std::move(*read) : DataSymbols();
}

std::string MemoryNames::name_of(const Named& named) {
  if (named.sites.empty()) return named.name;
  const std::string function = symbols_of(program_).at(named.sites.front() - 1);
  return fmt::format("allocated in {} of {}", function.empty() ? "a function" : function,
                     base_name(program_));
}

std::string MemoryNames::word_at(uint64_t address) {
  uint64_t start = 0;
  const Named* named = find(address, &start);
  if (!named) return fmt::format("{:#x}", address);
  if (named->file.empty()) return fmt::format("{} at +{:#x}", name_of(*named), address - start);
  const DataSymbols& symbols = symbols_of(named->file);
  const std::string variable = symbols.at(address - named->base + symbols.first_address());
  if (!variable.empty()) return fmt::format("{} of {}", variable, base_name(named->file));
  return fmt::format("static data of {} at +{:#x}", base_name(named->file), address - named->base);
}

std::optional<MemoryNames::InFile> MemoryNames::in_file(uint64_t address) {
  uint64_t start = 0;
  const Named* named = find(address, &start);
  if (!named || named->file.empty()) return std::nullopt;
  return InFile{named->file, address - named->base + symbols_of(named->file).first_address()};
}

std::string MemoryNames::region_at(uint64_t address) {
  uint64_t start = 0;
  const Named* named = find(address, &start);
  if (!named) return "memory that is unmapped";
  if (named->file.empty()) return name_of(*named);
  std::string word = word_at(address);
  if (word.rfind("static data", 0) == 0) return "static data of " + base_name(named->file);
  const size_t offset = word.find('+'), of = word.find(" of ");
  return offset < of ? word.substr(0, offset) + word.substr(of) : word;
}

}  // namespace krg
