// The namespaces of a session: what krgd_boot and krg_host make, krgd hands out as descriptors, and
// krgrun joins.
//
// Threads: setns(2) and unshare(2) of users need a process with a single thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// A set of namespaces, each by its name in /proc/PID/ns ("user", "pid", "mnt", ...) and a
// descriptor.
class NamespaceSet {
 public:
  void add(std::string name, UniqueFd fd);
  // Adds this process's own namespace `name`. Errors: what open(2) says.
  Status add_own(std::string name);

  // Joins them all, the user namespace first (it gives the right to join the others), the mount
  // namespace last; those that the process is in already are left alone. A PID namespace is joined
  // by the children made from now on. The working directory becomes the new root. Errors: what
  // setns(2) says, with the namespace's name.
  Status enter() const;

  std::vector<std::string> names() const;
  std::vector<int> descriptors() const;

 private:
  std::vector<std::pair<std::string, UniqueFd>> members_;
};

// True when this process may make namespaces without a user namespace of its own.
bool has_admin_capability();

// Moves this process into a new user namespace in which its user and group keep their numbers (and
// no others exist) and in which it has all capabilities. Errors: a sentence that says what forbids
// it.
Status enter_new_user_namespace();

// Lets the capabilities that this process has pass to what it execs, also when its user is not root
// (ambient capabilities, capabilities(7)); undone by drop_ambient_capabilities().
Status keep_capabilities_over_exec();
Status drop_ambient_capabilities();
// Of them all, only the one to choose the ids of processes and threads (CAP_CHECKPOINT_RESTORE).
Status keep_thread_id_choice();

// Stops mounts made here from reaching the rest of the system, while those of the system still
// arrive (autofs).
Status make_mounts_slave();

// Sends `signal` to this process when its parent ends. False when it has ended already: `pipe_end`
// is an end of a pipe whose other end only the parent holds (a parent outside of the PID namespace
// has no pid to compare).
bool die_with_parent(int signal, int pipe_end);

// Runs `work` in a thread that has entered namespace `fd` of kind `flag` (not a user or mount
// namespace).
Status in_namespace(int fd, int flag, const std::function<Status()>& work);

}  // namespace krg
