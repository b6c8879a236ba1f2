// The messages between the ProcViews of the nodes. Payloads are packed (packed_bytes.h).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/node_context.h"

namespace krg::proc_view_messages {

enum class FileOperation : uint8_t { kRead, kWrite, kAttributes, kLinkTarget, kList };

// One operation on a file of the session's procfs, as `uid` and `gid` may do it.
// Payload: path, data to write. Reply: the text; the number written (uint64_t); struct stat; the
// target; (mode, name) of each entry.
struct FileRequest {
  static constexpr uint16_t kId = message_ids::kProcView + 0;
  uint8_t version = 1;
  FileOperation operation = FileOperation::kRead;
  uint16_t padding = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
};
static_assert(sizeof(FileRequest) == 12);

// One file of every process that executes on the node. Payload: its name. Reply: (pid, text) each.
struct EveryProcessRequest {
  static constexpr uint16_t kId = message_ids::kProcView + 1;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  uint32_t uid = 0;
  uint32_t gid = 0;
};
static_assert(sizeof(EveryProcessRequest) == 12);

// The processes of the node. Reply: a ListedProcess each.
struct ProcessesRequest {
  static constexpr uint16_t kId = message_ids::kProcView + 2;
  uint8_t version = 1;
};

// What shadows are to their relatives. Payload: a pid_t each. Reply: a PidIdentity each that is
// there.
struct IdentitiesRequest {
  static constexpr uint16_t kId = message_ids::kProcView + 3;
  uint8_t version = 1;
  uint8_t depth = 0;  // requests that this one is asked on behalf of
};

// Clock and processors of the node. Reply: NodeFacts, packed.
struct FactsRequest {
  static constexpr uint16_t kId = message_ids::kProcView + 4;
  uint8_t version = 1;
};

// What sysfs has of one processor. Reply: (path, text) of each file.
struct CpuFilesRequest {
  static constexpr uint16_t kId = message_ids::kProcView + 5;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  uint32_t cpu = 0;  // the node's own number
};
static_assert(sizeof(CpuFilesRequest) == 8);

}  // namespace krg::proc_view_messages
