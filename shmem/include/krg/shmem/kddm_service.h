// KddmService: lets programs of this node use KDDM sets through client.h. The control command
// `kddm.connect` gives a program a socket and shared memory; what it asks for there is done here in
// its name. When the socket closes, because the program says so or dies, its pins are put (bytes
// that it was writing are dropped: the object stays as it was) and what it waits for is forgotten.
//
// Threads: the loop's thread. Owned by krgd's main; the Kddm outlives it. Limits: kMaxClients
// programs; kPinArenaBytes pinned, and kMaxClientReplies unread replies, by each.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "krg/runtime/control_server.h"
#include "krg/runtime/messenger.h"
#include "krg/shmem/kddm.h"

namespace krg {

inline constexpr size_t kMaxClients = 1024;
inline constexpr size_t kMaxClientReplies = 16384;

class KddmService {
 public:
  KddmService(Messenger& messenger, Kddm& kddm);
  ~KddmService();
  KddmService(const KddmService&) = delete;
  KddmService& operator=(const KddmService&) = delete;

  //   kddm.connect {} -> {"node": ID, "nodes": N}, descriptors: socket, memory (client_wire.h)
  void add_commands(ControlServer& server);
  size_t client_count() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
