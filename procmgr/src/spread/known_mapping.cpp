// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/known_mapping.h"

#include <sys/mman.h>

#include <algorithm>

#include "image/capture_parts.h"
#include "image/content_ranges.h"
#include "image/known_mappings.h"
#include "packed_bytes.h"

namespace krg {
namespace {

bool is_plain_file(const MappingText& mapping) {
  return mapping.inode != 0 && !mapping.is_shared() && mapping.permissions[1] != 'w' &&
         mapping.name.starts_with('/') && mapping.name.find('\\') == std::string_view::npos &&
         !mapping.is_deleted();
}

bool has_own_contents(pid_t pid, const MappingText& mapping) {
  auto has_any = has_content(pid, {.start = mapping.start, .end = mapping.end, .has_file = true});
  return !has_any || *has_any;
}

}  // namespace

Result<KnownMapping> KnownMapping::parse(std::string_view bytes) {
  PackedReader in(bytes);
  KnownMapping known;
  known.kind = in.get<Kind>();
  known.range = in.get<SpreadRange>();
  known.set_pages = in.get<uint64_t>();
  known.offset = in.get<uint64_t>();
  known.file.path = in.get_string();
  known.file.bytes = in.get<uint64_t>();
  known.file.modified_ns = in.get<int64_t>();
  known.scratch = in.get<RemoteAddr>();
  if (!in.ok() || !in.at_end()) return errno_error("a mapping", EBADMSG);
  return known;
}

std::string KnownMapping::serialize() const {
  PackedWriter out;
  out.put(kind).put(range).put(set_pages).put(offset);
  out.put_string(file.path).put(file.bytes).put(file.modified_ns).put(scratch);
  return out.take();
}

KnownMapping KnownMapping::of_file(pid_t pid, RemoteAddr address) {
  auto mappings = MappingTexts::read_maps(pid);
  if (!mappings) return {};
  for (const MappingText& mapping : mappings->all()) {
    if (address.value < mapping.start || mapping.end <= address.value) continue;
    if (!is_plain_file(mapping) || has_own_contents(pid, mapping)) return {};
    auto file = identify_file(std::string(mapping.name));
    if (!file) return {};
    KnownMapping known;
    known.kind = Kind::kFile;
    known.range.start = RemoteAddr{mapping.start};
    known.range.bytes = mapping.end - mapping.start;
    known.range.protection = (mapping.permissions[0] == 'r' ? PROT_READ : 0) |
                             (mapping.permissions[2] == 'x' ? PROT_EXEC : 0);
    known.offset = mapping.offset;
    known.file = std::move(*file);
    return known;
  }
  return {};
}

}  // namespace krg
