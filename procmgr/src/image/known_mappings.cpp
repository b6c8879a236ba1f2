// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/known_mappings.h"

#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

// False when the line is one of the values below a mapping.
bool parse_first_line(std::string_view line, MappingText& mapping) {
  int name_at = 0;
  unsigned major = 0, minor = 0;
  const std::string text(line);
  if (sscanf(text.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n",
             &mapping.start, &mapping.end, mapping.permissions, &mapping.offset, &major, &minor,
             &mapping.inode, &name_at) < 7)
    return false;
  mapping.device = makedev(major, minor);
  mapping.name = line.substr(std::min(static_cast<size_t>(name_at), line.size()));
  return true;
}

std::vector<MappingText> parse(std::string_view rest) {
  std::vector<MappingText> all;
  while (!rest.empty()) {
    const std::string_view line = next_line(rest);
    MappingText mapping;
    if (line.starts_with("VmFlags:") && !all.empty())
      all.back().flags = split_words(line.substr(line.find(':') + 1));
    else if (parse_first_line(line, mapping))
      all.push_back(std::move(mapping));
  }
  return all;
}

}  // namespace

bool is_programs_own(std::string_view mapping_name) {
  return mapping_name.empty() || mapping_name == "[heap]" || mapping_name.starts_with("[stack") ||
         mapping_name.starts_with("[anon:");
}

bool MappingText::continues(const MappingText& before) const {
  if (memcmp(permissions, before.permissions, sizeof permissions) != 0 || name != before.name ||
      inode != before.inode || offset != before.offset)
    return false;
  if (start == before.start) return inode == 0 || end == before.end;
  return end == before.end && name == "[stack]";
}

Result<MappingTexts> MappingTexts::read(pid_t pid, const char* file) {
  auto text = read_whole_file(fmt::format("/proc/{}/{}", pid, file));
  if (!text || text->empty()) return errno_error("no such process", ESRCH);
  MappingTexts read;
  read.texts_.push_back(std::make_shared<const std::string>(std::move(*text)));
  read.all_ = parse(*read.texts_.front());
  return read;
}

Result<MappingTexts> MappingTexts::read_maps(pid_t pid) {
  return read(pid, "maps");
}

Result<MappingTexts> MappingTexts::read_smaps(pid_t pid) {
  return read(pid, "smaps");
}

bool MappingTexts::take_flags_of(const MappingTexts& before) {
  auto known = before.all_.begin();
  for (MappingText& mapping : all_) {
    // Both are in order of address.
    while (known != before.all_.end() && known->end <= mapping.start) ++known;
    if (known == before.all_.end() || !mapping.continues(*known)) return false;
    mapping.flags = known->flags;
  }
  texts_.insert(texts_.end(), before.texts_.begin(), before.texts_.end());
  return true;
}

}  // namespace krg
