// Which running cluster a tool means.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <optional>
#include <string>

#include "krg/runtime/control_client.h"

namespace krg {

// The folder of the running cluster `name`; of the only one that `kradm cluster start` began when
// the name is empty. Nothing when none runs. Errors: no cluster of that name; several where none
// was named.
Result<std::optional<std::string>> find_cluster(const std::string& name);

// Connects to a krgd: of the session that this process runs in, else of the cluster that
// find_cluster() finds. Error: ENOENT with a sentence when there is none.
Result<ControlClient> connect_to_cluster(const std::string& name);

// The name of a cluster that belongs to one krgrun.
std::string private_cluster_name(int pid);

}  // namespace krg
