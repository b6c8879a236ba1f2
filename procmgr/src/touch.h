// Whether krgd would wait for itself if it touched a process's memory: pages of page sets that are
// not in its page table are served by krgd's own loop. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <functional>
#include <string_view>

#include "krg/runtime/types.h"

namespace krg {

// How procfs names what a process maps of a page set (page_frames.cpp).
inline constexpr std::string_view kPageSetName = "/memfd:krg-pages";

// `is_served`: whether what the process maps there is a page set's; asked where it is not there.
// Source: pagemap (Linux
// Documentation, admin-guide/mm/pagemap.rst).
bool touch_would_fault(pid_t tid, RemoteAddr address, size_t bytes, bool write,
                       const std::function<bool(pid_t pid, RemoteAddr at)>& is_served);

}  // namespace krg
