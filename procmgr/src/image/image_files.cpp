// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/image_files.h"

#include <utility>

namespace krg {

void drop_files(ProcessImage& image, const std::vector<bool>& is_dropped) {
  std::vector<uint32_t> numbers;
  std::vector<ImageFile> left;
  for (size_t i = 0; i < image.files.size(); ++i) {
    numbers.push_back(static_cast<uint32_t>(left.size()));
    if (!is_dropped[i]) left.push_back(std::move(image.files[i]));
  }
  image.files = std::move(left);
  for (ImageMapping& m : image.mappings)
    if (m.kind == ImageMapping::Kind::kFile) m.file = numbers[m.file];
}

}  // namespace krg
