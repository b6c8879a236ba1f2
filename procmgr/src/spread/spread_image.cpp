// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_image.h"

#include <sys/mman.h>

#include "image/image_files.h"
#include "image/moved_process.h"
#include "krg/procmgr/process_family.h"
#include "packed_bytes.h"

namespace krg {
namespace {

template <class T>
void put_all(PackedWriter& out, const std::vector<T>& items) {
  out.put(static_cast<uint32_t>(items.size()));
  for (const T& item : items) out.put(item);
}

template <class T>
std::vector<T> get_all(PackedReader& in) {
  std::vector<T> items;
  const auto count = in.get<uint32_t>();
  for (uint32_t i = 0; i < count && in.ok(); ++i) items.push_back(in.get<T>());
  return items;
}

}  // namespace

Result<SpreadImage> SpreadImage::parse(std::string_view bytes) {
  PackedReader in(bytes);
  auto image = ProcessImage::parse(in.get_string());
  if (!image) return image.error();
  SpreadImage spread;
  spread.image = std::move(*image);
  spread.ranges = get_all<SpreadRange>(in);
  spread.pages = get_all<PageRange>(in);
  spread.contents = in.get_string();
  const bool fits = spread.contents.size() == total_bytes(spread.pages);
  if (!in.ok() || !in.at_end() || !fits) return errno_error("spread process", EBADMSG);
  return spread;
}

std::string SpreadImage::serialize() const {
  PackedWriter out;
  out.put_string(image.serialize());
  put_all(out, ranges);
  put_all(out, pages);
  out.put_string(contents);
  return out.take();
}

void leave_shared_at_home(ProcessImage& image) {
  const auto is_shared = [](const ImageFile& file) {
    return file.path.starts_with(kSharedMemoryPrefix) || file.modified_ns == ImageFile::kMayChange;
  };
  std::erase_if(image.mappings, [&](const ImageMapping& mapping) {
    return mapping.kind == ImageMapping::Kind::kFile && (mapping.advice & ImageMapping::kShared) &&
           is_shared(image.files[mapping.file]);
  });
  std::vector<bool> is_dropped(image.files.size(), true);
  is_dropped.front() = false;  // the program
  for (const ImageMapping& mapping : image.mappings)
    if (mapping.kind == ImageMapping::Kind::kFile) is_dropped[mapping.file] = false;
  drop_files(image, is_dropped);
}

bool is_to_be_spread(const ImageMapping& mapping) {
  if (mapping.kind == ImageMapping::Kind::kKernel || mapping.bytes > kMostSpreadBytes) return false;
  if (mapping.advice & (ImageMapping::kShared | ImageMapping::kDroppable)) return false;
  return mapping.kind == ImageMapping::Kind::kAnonymous || (mapping.protection & PROT_WRITE) != 0;
}

}  // namespace krg
