// Messages of placement at exec, shadows and the process table. The payloads are named beside each.
// Origin: the node of the shadow; body node: where the program executes.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/resource.h>

#include "krg/procmgr/capabilities.h"
#include "krg/procmgr/node_context.h"

namespace krg::exec_messages {

inline constexpr uint8_t kVersion = 1;

// Request to a pid's origin: where does it execute? Reply: a NodeId. Errors: ESRCH.
struct Locate {
  static constexpr uint16_t kId = message_ids::kExec;
  uint8_t version = kVersion;
  pid_t pid = 0;
};

// Request to the body node: start a body. Payload: a BodyRequest. Error: the body cannot be had
// there, or the errno of its exec. A body of an image is installed but does not run until ThawBody.
struct StartBody {
  static constexpr uint16_t kId = message_ids::kExec + 1;
  uint8_t version = kVersion;
  pid_t pid = 0;
  uint32_t job = 0;
  pid_t group = 0, session = 0;
  uint8_t has_job = 0;
  NodeId origin;  // where its shadow is, or will be
  CapabilitySets capabilities;
};

// Notice to the body node: the beginning of the payload of the StartBody that follows, or more of
// it. (What is longer than a few of the transport's frames takes it 13 ms instead of a fraction of
// one: the receiver reads it from the sender.)
struct BodyPart {
  static constexpr uint16_t kId = message_ids::kExec + 14;
  static constexpr size_t kMostBytes = 56u << 10;
  static constexpr size_t kMostInAll = 16u << 20;
  uint8_t version = kVersion;
  pid_t pid = 0;
};

// Notice to the origin: the body has ended.
struct BodyEnded {
  static constexpr uint16_t kId = message_ids::kExec + 2;
  uint8_t version = kVersion;
  pid_t pid = 0;
  int32_t wait_status = 0;
  rusage usage{};
};
static_assert(sizeof(BodyEnded) <= 224);

// Notice to the origin: the body was stopped by `signal`, or goes on (0).
struct BodyStopped {
  static constexpr uint16_t kId = message_ids::kExec + 3;
  uint8_t version = kVersion;
  pid_t pid = 0;
  int32_t signal = 0;
};

// Notice to the body node: the shadow is dead, so must the body be. To a guardian's: its process
// has ended.
struct ShadowDied {
  static constexpr uint16_t kId = message_ids::kExec + 4;
  uint8_t version = kVersion;
  pid_t pid = 0;
};

// Request to the node where a process executes: signal it. Errors: ESRCH.
struct SignalProcess {
  static constexpr uint16_t kId = message_ids::kExec + 5;
  uint8_t version = kVersion;
  pid_t pid = 0;
  int32_t signal = 0, code = 0;
  pid_t sender = 0;
  uid_t sender_uid = 0;
  uint64_t value = 0;
};

// Request to the origin: the body's setpgid(0, group), setsid() when `new_session`, or tcsetpgrp of
// its shadow's controlling terminal when `foreground`.
struct SetGroup {
  static constexpr uint16_t kId = message_ids::kExec + 6;
  uint8_t version = kVersion;
  uint8_t new_session = 0;
  uint8_t foreground = 0;
  pid_t pid = 0, group = 0;
};

// Request to the origin: a ProcessIdentity.
struct Identify {
  static constexpr uint16_t kId = message_ids::kExec + 7;
  uint8_t version = kVersion;
  pid_t pid = 0;
};

// Notice to the body node: the shadow's group and session now.
struct GroupChanged {
  static constexpr uint16_t kId = message_ids::kExec + 8;
  uint8_t version = kVersion;
  pid_t pid = 0, group = 0, session = 0;
};

// Notice to the body node: the body of an image runs from now on; there is no other copy any more.
struct ThawBody {
  static constexpr uint16_t kId = message_ids::kExec + 9;
  uint8_t version = kVersion;
  pid_t pid = 0;
};

// Notice to the origin: a body made at fork has execed, so it need not have been moved before.
struct BodyExeced {
  static constexpr uint16_t kId = message_ids::kExec + 10;
  uint8_t version = kVersion;
  pid_t pid = 0;
};

// Request to the origin: the body executes on another node from now on, which the origin tells
// (ThawBody). Errors: ESRCH.
struct BodyMoves {
  static constexpr uint16_t kId = message_ids::kExec + 11;
  uint8_t version = kVersion;
  uint8_t leaves_guardian = 0;  // on the sender's node
  NodeId body_node;
  pid_t pid = 0;
};

// Notice to the node of a guardian: its process executes on another node from now on.
struct GuardianFollows {
  static constexpr uint16_t kId = message_ids::kExec + 16;
  uint8_t version = kVersion;
  NodeId body_node;
  pid_t pid = 0;
};

// Request to the node of its shadow or guardian: waitid(id_type, id, options | WNOHANG) of that,
// for children that the body has left there. Reply: a ChildChange, of pid 0 when none has changed.
// Errors: ECHILD, EINVAL.
struct WaitForChild {
  static constexpr uint16_t kId = message_ids::kExec + 13;
  uint8_t version = kVersion;
  pid_t pid = 0;
  int32_t id_type = 0, id = 0, options = 0;
};
// Request to the same node: has that no child any more? A guardian has ended then. Errors: EBUSY:
// it has one.
struct ReleaseGuardian {
  static constexpr uint16_t kId = message_ids::kExec + 17;
  uint8_t version = kVersion;
  pid_t pid = 0;
};
struct ChildChange {
  pid_t pid = 0;
  int32_t code = 0, status = 0;  // of siginfo_t
  uint32_t uid = 0;
  rusage usage{};
};

// Request to the node where a process executes: move it. Errors: those of Migration::migrate().
struct MigrateProcess {
  static constexpr uint16_t kId = message_ids::kExec + 12;
  uint8_t version = kVersion;
  NodeId target;
  pid_t pid = 0;
};

// Request to the node where a process executes: make a second one like it, to execute on `target`
// (kNoNode: there). Reply: its pid_t. Errors: those of Migration::clone().
struct CloneProcess {
  static constexpr uint16_t kId = message_ids::kExec + 15;
  uint8_t version = kVersion;
  NodeId target;
  pid_t pid = 0;
};

}  // namespace krg::exec_messages
