// Which address of this machine a node's endpoint has. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>

#include "krg/runtime/result.h"

namespace krg {

// `wanted`: an interface's name, an IPv4 address, or empty: then the interface of the default
// route, else the first one that is up and not the loopback, else the loopback.
// Errors: ENODEV when there is no such interface or it has no IPv4 address.
Result<std::string> source_address(const std::string& wanted);

}  // namespace krg
