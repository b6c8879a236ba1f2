// SetService: what nodes ask each other beside the protocol: to destroy a set, to write an object
// back. (Names of sets: set_names.h.)
//
// Threads: the loop's thread. Owned by Kddm. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>

#include "kddm_server.h"

namespace krg::kddm {

class SetService : public std::enable_shared_from_this<SetService> {
 public:
  explicit SetService(std::shared_ptr<Server> server);
  // Takes the messages. Once, after it is owned.
  void start();

  void destroy(SetId set, std::function<void()> done);
  void sync(SetId set, ObjectId object, std::function<void(Status)> done);

 private:
  struct DestroyRequest;
  struct SyncRequest;

  void answer_sync(NodeId from, const SyncRequest& request, Messenger::Reply reply);
  void sync_here(SetId set, ObjectId object, Messenger::Reply reply);

  std::shared_ptr<Server> server_;
  Messenger& messenger_;
};

}  // namespace krg::kddm
