// SocketUsers: which processes of this node have a listening socket, as far as they have been
// found; and whether one of them would accept a connection now.
// Threads: any; acceptance_of() and find_user() block. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace krg {

struct SocketUsers {
  std::vector<pid_t> pids;  // who accepted last comes first
  std::chrono::steady_clock::time_point looked_everywhere{};
};

struct Acceptance {
  bool has_connection = false;  // one waits there already
  bool is_awaited = false;      // a thread waits for one
  SocketUsers users;            // as they are known now
};

// Who is known is looked at first. All other processes are only when none of those has the socket
// any more, they have not been looked at for a while, or `is_thorough`.
Acceptance acceptance_of(ino_t inode, SocketUsers known, bool is_thorough);

bool has_socket(pid_t pid, ino_t inode);
size_t count_sockets(pid_t pid, ino_t inode);
// As /proc shows it.
std::string link_of_socket(ino_t inode);
// Any process but this one that has it; 0: none.
pid_t find_user(ino_t inode);

}  // namespace krg
