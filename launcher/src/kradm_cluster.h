// kradm cluster start|stop|status: clusters that live on their own, which krgrun then joins.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <span>
#include <string>

namespace krg {

int kradm_cluster(std::span<const std::string> arguments);

}  // namespace krg
