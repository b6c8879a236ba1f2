// IoctlTaker: a tree of krgfs some of whose files take ioctl(2).
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "krg/procmgr/session_fs.h"

namespace krg {

struct IoctlRequest {
  uint64_t handle = 0;
  uint32_t command = 0;
  uint64_t argument = 0;
  std::string_view in;  // what the kernel has brought, valid during the call
};

class IoctlTaker {
 public:
  virtual ~IoctlTaker() = default;
  // The answer: what the kernel is to put where the argument points.
  virtual void ioctl(const FsCaller& caller, const IoctlRequest& asked,
                     FsReply<std::string> reply) = 0;
};

}  // namespace krg
