// An Error from what an MPI call returned. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>

#include "krg/runtime/result.h"

namespace krg {

Error mpi_error(std::string context, int returned);

}  // namespace krg
