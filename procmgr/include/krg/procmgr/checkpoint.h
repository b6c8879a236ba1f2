/* libkrg: a program's own part in its checkpoints. Any thread may call, but not in a callback.
 *
 * All return -1 and set errno on failure: ENOENT outside of a session, EPERM (the application has
 * not CHECKPOINTABLE effective), EBUSY (it is being saved already), ENOTSUP (it has what cannot be
 * saved; krg_checkpoint(1) tells the reason), ETIMEDOUT (callbacks take longer than 30 seconds).
 * SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Saves the caller's application as the next version in `folder`. Returns the version's number when
 * the program goes on after that, and 0 in the program that was restarted from it. */
int application_checkpoint(const char* folder);
/* The application of a process stands until it is told to go on. Not for one's own. */
int application_freeze(pid_t pid);
/* `signal`: sent to its first process; 0: none. */
int application_unfreeze(pid_t pid, int signal);

/* What the program is to have done at each checkpoint, whoever asks for it: before all stand still
 * (their results are not looked at), when it goes on, and when it has been restarted.
 * They run in a thread of the library's own, in which all signals are blocked; those before a
 * checkpoint in reverse order. It is there from the first of these calls on. A child of fork(2) has
 * none of them. */
int cr_register_chkpt_callback(int (*callback)(void*), void* argument);
int cr_register_continue_callback(int (*callback)(void*), void* argument);
int cr_register_restart_callback(int (*callback)(void*), void* argument);

#ifdef __cplusplus
}
#endif
