// FamilyPiece and FamilyDescription: what one node tells of a family that is being captured, to who
// leads the capture. Threads: values. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <string>
#include <vector>

#include "family/socket_state.h"
#include "krg/procmgr/process_family.h"
#include "krg/runtime/types.h"
#include "packed_bytes.h"

namespace krg {

// An open file of members of one node whose description is at another, or at this one.
struct StreamUse {
  uint32_t file = 0;  // the node's own number of it
  NodeId home;
  uint64_t id = 0;        // there (HomeId)
  int64_t offset = -1;    // of its own; -1: the description's
  int32_t flags = 0;      // F_GETFL, where it is used
  int32_t standard = -1;  // by which number of 0, 1 and 2 it is had
  pid_t owner = 0;        // one that has it
  // Of a socket (Descriptors::RelayedSocket).
  uint64_t arrived = 0;
  std::string unread = {}, unsent = {};
};

// Where a process stands, as the node knows that has it or its shadow.
struct FamilyPlace {
  pid_t pid = 0, parent = 0, group = 0, session = 0;
  int32_t wait_status = -1;
  std::array<char, 16> name{};
};

struct FamilyPiece {
  std::string command;  // where the root executes
  std::vector<FamilyPlace> places;
  std::vector<FamilyMember> members;  // without images; files by the node's own numbers
  std::vector<StreamUse> streams;
  std::vector<uint64_t> memories;  // files that they have mapped of the memory that nodes share

  std::string serialize() const;
  // Error: EBADMSG.
  static Result<FamilyPiece> parse(std::string_view bytes);
};

// FamilyFile::stream of a POSIX queue that nodes share, until the leader has numbered it: its
// number there is the offset.
inline constexpr uint32_t kSharedQueue = 1;

// FamilyFile::bytes of shared memory is its number until then.

// A process of the node that is none of the family and has a file mapped of the memory that nodes
// share.
struct OthersMemory {
  uint64_t file = 0;
  pid_t pid = 0;
  uint32_t padding = 0;
};

struct FamilyDescription {
  // Without contents. `numbers`: the node's own number of each.
  std::vector<FamilyFile> files;
  std::vector<uint32_t> numbers;
  std::vector<FamilyPipe> pipes;
  std::vector<FamilySocket> sockets;
  std::vector<SocketIdentity> identities;  // of each socket
  SavedIpc ipc;
  std::vector<pid_t> others;  // processes of the node that are none of the family
  std::vector<OthersMemory> others_memories;
  std::vector<uint32_t> of_uses;  // the node's own number for each StreamUse

  std::string serialize() const;
  // Error: EBADMSG.
  static Result<FamilyDescription> parse(std::string_view bytes);
};

std::string pack_uses(const std::vector<StreamUse>& uses);
// What could not be read is not there.
std::vector<StreamUse> unpack_uses(PackedReader& in);

}  // namespace krg
