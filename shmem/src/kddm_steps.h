// The steps that the protocol and its recovery share. Private to shmem.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/shmem/kddm_protocol.h"

namespace krg::kddm {

// True in every state in which this node owns the object, existing or not, waiting or not.
bool is_owner(const Entry& entry);
// Nothing is under way about the object that this node has asked for, promised or been asked for.
bool is_at_rest(const Entry& entry);
void send(Actions& actions, NodeId to, Message message);
void drop_data(Entry& entry, Actions& actions);
// The object is gone; its owner stays the owner of what does not exist, until the next first touch.
void finish_removal(Entry& entry, Actions& actions);
// Does all that can be done now. Local operations and remote requests take turns, so that neither
// starves.
void progress(Entry& entry, const Place& place, Actions& actions);

}  // namespace krg::kddm
