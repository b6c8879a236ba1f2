// ListenerShape's functions: sockets that listen like others, and connections to them.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <optional>
#include <set>

#include "act_as.h"
#include "krg/runtime/unique_fd.h"
#include "listener_messages.h"

namespace krg {

// What tells how to make one like `socket`, which listens. Error: ENOTSUP.
Result<ListenerShape> listener_shape_of(int socket);
// Listens there. Errors: of socket(2), bind(2), listen(2).
Result<UniqueFd> listen_at(ListenerShape& shape);
// At the same address and port where these are free here, else at this node's own; a unix socket at
// a name of the kernel's choice: the real one's is taken.
Result<UniqueFd> listen_like(ListenerShape& shape);
// Who has connected to it, as unix(7) tells (SO_PEERCRED); none of other sockets.
std::optional<FileUser> peer_of(int socket);
// Does not wait. To a unix socket: in that user's name, where krgd may. Errors: EAGAIN when the
// queue is full, ECONNREFUSED when it is closed.
Result<UniqueFd> connect_to(ListenerShape shape, std::optional<FileUser> as);
// The same to `socket` of this node itself, wherever its name leads by now. Errors: as above.
Result<UniqueFd> connect_to_queue(int socket, std::optional<FileUser> as);
// Whether `place` is the address and port of `shape`, or one of all that it listens at.
bool is_place_of(const ListenerShape& place, const ListenerShape& shape);
// The inodes of all sockets that listen in this network namespace.
std::set<ino_t> listening_inodes();

}  // namespace krg
