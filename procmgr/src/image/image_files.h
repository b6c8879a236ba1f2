// drop_files(): takes files out of an image that no mapping of it names any more.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "image/process_image.h"

namespace krg {

// `is_dropped`: for each of the image's files. REQUIRES: no mapping is of such a one.
void drop_files(ProcessImage& image, const std::vector<bool>& is_dropped);

}  // namespace krg
