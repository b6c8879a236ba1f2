/* libkrg: the C interface of the original, for a program that runs under krgrun. Each call asks the
 * krgd of the node that the caller executes on; any thread may call.
 *
 * All return -1 and set errno on failure: ENOENT outside of a session, ESRCH, EPERM (the process
 * has not CAN_MIGRATE effective), ENODEV (no such node, or not online), ENOTSUP (it cannot move;
 * krgd.log has the reason), EHOSTDOWN.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Moves a process, with all its threads, to a node. Returns 0 when it executes there. */
int migrate(pid_t pid, int node);
/* Moves the caller's process. */
int migrate_self(int node);
/* Moves one thread of a process whose threads are on several nodes (krg_where --threads), by its
 * own id; the first thread of any other process stands for all of that. */
int thread_migrate(pid_t thread, int node);
/* The node that the caller executes on. */
int get_node_id(void);
/* How many nodes the cluster has. */
int get_nr_nodes(void);

#ifdef __cplusplus
}
#endif
