// SPDX-License-Identifier: GPL-2.0-or-later
#include <utility>

#include "kddm_steps.h"
#include "krg/runtime/check.h"

namespace krg::kddm {

void direct(DirectoryEntry& directory, NodeId from, const Message& message, Actions& actions) {
  switch (message.type) {
    case MessageType::kReadRequest:
    case MessageType::kRemoveRequest:
    case MessageType::kWriteRequest: {
      Message request = message;
      request.directed = true;
      const NodeId to = directory.tail;
      if (message.type == MessageType::kWriteRequest) {
        request.promise = ++directory.promise;
        directory.tail = message.requester;
      }
      return send(actions, to, std::move(request));
    }
    case MessageType::kGiveRequest: {
      // The node may be the tail again, by a later promise, while it still has the object by an
      // earlier one.
      const bool granted = directory.tail == from && directory.promise == message.promise;
      if (granted) directory = {message.requester, directory.promise + 1};
      return send(actions, from,
                  {.type = granted ? MessageType::kGiveGranted : MessageType::kGiveRefused,
                   .promise = directory.promise});
    }
    default:
      check(false, "only requests go through the manager");
  }
}

}  // namespace krg::kddm
