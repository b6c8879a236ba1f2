// Terminals that a family has open: krgrun's, whose settings are noted, and pseudo-terminals whose
// masters are members', which are made again with what was in flight.
//
// Threads: the loop's thread, the members being stopped.
// Source: pty(7), tty_ioctl(4). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "image/frozen_process.h"
#include "krg/procmgr/process_family.h"
#include "krg/runtime/unique_fd.h"
#include "process_fds.h"

namespace krg {

bool is_terminal(const StolenFd& fd);
// FamilyTerminal, of krgrun's.
std::string terminal_bytes(const StolenFd& fd, pid_t owner);

// Of which pseudo-terminal that is the master, or a slave ("/dev/pts/NUMBER", or /dev/tty of one).
std::optional<uint32_t> number_of_master(int fd);
std::optional<uint32_t> number_of_slave(int fd);
// What it is, with what its ends have not read, which stays there: `contents` of a master's file.
// `has_slaves`: some member has one open. Errors: of the calls.
Result<std::string> describe_pseudo_terminal(int master, bool has_slaves);

// The master of such a one, for a family that is restarted; its slaves are locked or not as before.
// The number is the one before where it is free. Any thread. Errors: EBADMSG; of the calls.
Result<UniqueFd> make_pseudo_terminal(const FamilyFile& file);

// A member that has just begun a session has the terminal that it had, before it has children.
// Files are where `first_slot` says.
Status take_terminal(const ProcessFamily& family, int first_slot, const FamilyMember& member,
                     FrozenProcess& process);
// Groups are in the foreground that were. REQUIRES: all have joined theirs.
Status put_foregrounds_back(const ProcessFamily& family, int first_slot,
                            const std::function<FrozenProcess&(uint32_t member)>& process);

}  // namespace krg
