/* libkrg: a program's own part in its checkpoints. Any thread may call, but not in a callback.
 *
 * All return -1 and set errno on failure: ENOENT outside of a session, EPERM (the application has
 * not CHECKPOINTABLE effective), EBUSY (it is being saved already), ENOTSUP (it has what cannot be
 * saved; krg_checkpoint(1) tells the reason), ETIMEDOUT (callbacks take longer than 30 seconds),
 * EAGAIN (one of its processes has disabled checkpoints for 30 seconds).
 *
 * A child of fork(2) has none of what its parent has registered here.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Saves the caller's application as the next version in `folder`. Returns the version's number when
 * the program goes on after that, and 0 in the program that was restarted from it. */
int application_checkpoint(const char* folder);
/* Has a version in `folder` (0: the newest) run again, with the same pids: krgrun --restart, as a
 * child of the caller, in a cluster that runs already or in one that is started for it
 * (KRGRUN_NODES and the like say how). Standard streams, terminal and environment of krgrun are the
 * caller's. Returns when the program runs: krgrun's process id, which ends with the program's exit
 * status, and hands signals on to it. For outside of a session: ENOTSUP in one. Else -1 with errno,
 * the reason being on standard error: ENOENT (no such folder or version, or no krgrun in PATH),
 * EEXIST (one of its pids is in use), EINVAL, EIO and others. */
pid_t application_restart(const char* folder, int version);
/* The application of a process stands until it is told to go on. Not for one's own. */
int application_freeze(pid_t pid);
/* `signal`: sent to its first process; 0: none. */
int application_unfreeze(pid_t pid, int signal);

/* What the program is to have done at each checkpoint, whoever asks for it: before all stand still
 * (their results are not looked at), when it goes on, and when it has been restarted.
 * They run in a thread of the library's own, in which all signals are blocked; those before a
 * checkpoint in reverse order. It is there from the first of these calls on. */
int cr_register_chkpt_callback(int (*callback)(void*), void* argument);
int cr_register_continue_callback(int (*callback)(void*), void* argument);
int cr_register_restart_callback(int (*callback)(void*), void* argument);
/* The same: all run in that thread. */
int cr_register_chkpt_thread_callback(int (*callback)(void*), void* argument);
int cr_register_continue_thread_callback(int (*callback)(void*), void* argument);
int cr_register_restart_thread_callback(int (*callback)(void*), void* argument);

/* From cr_disable() to cr_enable() of the same process its application is not saved: who asks for
 * it waits, for 30 seconds at the most. A process enters once its application has been saved, where
 * that is under way. A process that ends, or execs, has left. Not in callbacks, nor waited for by
 * them. EALREADY: it is disabled, or enabled, already. */
int cr_disable(void);
int cr_enable(void);

/* Memory that checkpoints are not to have: what can be computed anew, or is not in use. Whole pages
 * in it (of huge pages, those wholly in it) are as if never written after a restart: zeros, or what
 * the program's file has there; all else is saved. `restored` (or null) is called then, before the
 * restart callbacks. Memory that is shared with other processes is saved all the same. EBUSY: there
 * is one that begins at `data`; ENOSPC: there are 1,024. */
int cr_exclude_on(void* data, size_t bytes, int (*restored)(void*), void* argument);
/* EINVAL: there is none that begins at `data`. */
int cr_exclude_off(void* data);

/* 64 bits that an application keeps with itself, over restarts too; 0 until they are set. */
int application_set_userdata(uint64_t data);
/* Of the application that a process is of. */
int application_get_userdata(pid_t pid, uint64_t* data);

#ifdef __cplusplus
}
#endif
