// Cuts the TCP connections of a libfabric endpoint to one peer. libfabric 1.17 has no call for it
// (fi_av_remove leaves rxm's connection as it is), yet it must be done when a peer is declared dead
// that only stands still: when it goes on, its answers would be written into memory that the
// transport's user has long used for something else.
// Threads: the thread that enters libfabric. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>

namespace krg {

// `local`, `peer`: the endpoints' addresses as fi_getname(3) gave them. Shuts down this process's
// connections from `local`'s port to the peer's host and to `peer`; with `shares_host` (other peers
// have the same IP address) only the latter, since the former cannot be told apart. Returns how
// many there were; 0 for providers whose addresses are not IPv4.
int cut_connections(const std::string& local, const std::string& peer, bool shares_host);

// Whether both addresses are of one host.
bool same_host(const std::string& a, const std::string& b);

}  // namespace krg
