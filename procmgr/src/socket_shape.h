// What a socket is besides its connection, for a node that makes one in its place. Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// Of one that is neither bound nor connected: all that it is, and what was set on it. None: it is
// no such socket, or of no kind that is known: unix, TCP and UDP are.
std::optional<std::string> describe_new_socket(int socket);
// `flags`: as F_GETFL said. Errors: EPROTO; of socket(2).
Result<UniqueFd> make_new_socket(std::string_view description, int flags);

// Of a connected one that a relay stands for: how long its process lets calls wait, for how many
// bytes. What else was set on it is its transport's, which the relay has not.
std::string limits_of_socket(int socket);
void set_options(int socket, std::string_view options);

// What the recipe of such a one has as its "path".
struct ConnectedSocket {
  std::string options;
  std::string carried;  // CarriedSocket; empty: there was no relay
};
std::string encode_connected(const ConnectedSocket& socket);
// Errors: EPROTO.
Result<ConnectedSocket> decode_connected(std::string_view bytes);

}  // namespace krg
