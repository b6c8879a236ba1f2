// How the parts of a ProcessFamily are packed: for its own form and for messages about it.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <vector>

#include "krg/procmgr/process_family.h"
#include "packed_bytes.h"

namespace krg::packed_family {

inline constexpr uint8_t kFormatVersion = 12;
inline constexpr uint8_t kNoFifos = 11;  // an older one: they are pipes
// 10: all contents of files without a name are in it.
inline constexpr uint8_t kNoLostPipes = 9;  // an older one
inline constexpr uint8_t kNoLocks = 8;      // an older one: of descriptions
inline constexpr uint8_t kNoMemories = 7;   // an older one
inline constexpr uint8_t kNoSpread = 6;     // an older one
inline constexpr uint8_t kNoIpc = 5;        // an older one
inline constexpr uint8_t kNoWatches = 4;    // an older one
inline constexpr uint8_t kNoSockets = 3;    // an older one
inline constexpr uint8_t kOneNode = 2;      // an older one: all is of node 0
inline constexpr uint32_t kMostParts =
    1u << 20;  // of anything: what is malformed must not take memory

template <class T>
inline void put_all(PackedWriter& out, const std::vector<T>& all) {
  out.put(static_cast<uint32_t>(all.size()));
  for (const T& one : all) out.put(one);
}

inline uint32_t get_count(PackedReader& in) {
  return std::min(in.get<uint32_t>(), kMostParts);
}

template <class T>
std::vector<T> get_all(PackedReader& in) {
  std::vector<T> all;
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i) all.push_back(in.get<T>());
  return all;
}

inline void put(PackedWriter& out, const FamilyFile& file) {
  out.put(file.kind).put(file.flags).put(file.offset).put(file.stream).put(file.pipe);
  out.put(file.bytes).put(file.is_regular).put(file.flock).put(file.node);
  out.put(file.modified_ns).put(file.mode).put(file.is_saved);
  out.put_string(file.memory).put_string(file.path).put_string(file.contents);
  put_all(out, file.watches);
  put_all(out, file.locks);
}

inline uint32_t get_node(PackedReader& in, uint8_t version) {
  return version == kOneNode ? 0 : in.get<uint32_t>();
}

inline FamilyFile get_file(PackedReader& in, uint8_t version) {
  FamilyFile file;
  file.kind = in.get<FamilyFile::Kind>();
  file.flags = in.get<int32_t>();
  file.offset = in.get<int64_t>();
  file.stream = in.get<uint32_t>();
  file.pipe = in.get<uint32_t>();
  file.bytes = in.get<uint64_t>();
  file.is_regular = in.get<uint32_t>();
  file.flock = in.get<uint32_t>();
  file.node = get_node(in, version);
  if (version != kOneNode) {
    file.modified_ns = in.get<int64_t>();
    file.mode = in.get<uint32_t>();
    file.is_saved = in.get<uint32_t>();
  }
  file.memory = in.get_string();
  file.path = in.get_string();
  file.contents = in.get_string();
  if (version > kNoWatches) file.watches = get_all<FamilyWatch>(in);
  if (version > kNoLocks) file.locks = get_all<FamilyLock>(in);
  return file;
}

inline void put(PackedWriter& out, const FamilyMember& member) {
  out.put(member.pid).put(member.parent).put(member.group).put(member.session);
  out.put(member.wait_status).put(member.node).put(member.capabilities);
  out.put_string(member.name).put_string(member.image);
  put_all(out, member.fds);
  put_all(out, member.locks);
  out.put_string(member.spread);
}

inline FamilyMember get_member(PackedReader& in, uint8_t version) {
  FamilyMember member;
  member.pid = in.get<pid_t>();
  member.parent = in.get<pid_t>();
  member.group = in.get<pid_t>();
  member.session = in.get<pid_t>();
  member.wait_status = in.get<int32_t>();
  member.node = get_node(in, version);
  member.capabilities = in.get<CapabilitySets>();
  member.name = in.get_string();
  member.image = in.get_string();
  member.fds = get_all<FamilyFd>(in);
  member.locks = get_all<FamilyLock>(in);
  if (version > kNoSpread) member.spread = in.get_string();
  return member;
}

inline void put(PackedWriter& out, const FamilyPipe& pipe) {
  out.put(pipe.capacity).put(pipe.node).put(pipe.is_lost).put_string(pipe.contents);
  out.put_string(pipe.path).put(pipe.mode).put(pipe.is_quiet);
}

inline FamilyPipe get_pipe(PackedReader& in, uint8_t version) {
  FamilyPipe pipe;
  pipe.capacity = in.get<uint32_t>();
  pipe.node = get_node(in, version);
  if (version > kNoLostPipes) pipe.is_lost = in.get<uint32_t>();
  pipe.contents = in.get_string();
  if (version > kNoFifos) {
    pipe.path = in.get_string();
    pipe.mode = in.get<uint32_t>();
    pipe.is_quiet = in.get<uint32_t>();
  }
  return pipe;
}

inline void put(PackedWriter& out, const FamilySocket& socket) {
  out.put(socket.state).put(socket.domain).put(socket.type).put(socket.protocol);
  out.put(socket.backlog).put(socket.standard).put(socket.ended).put(socket.peer);
  out.put(socket.is_lost).put(socket.node).put(socket.unsent_bytes);
  out.put_string(socket.name).put_string(socket.peer_name).put_string(socket.folder);
  put_all(out, socket.options);
  out.put_string(socket.contents).put_string(socket.unsent);
}

inline FamilySocket get_socket(PackedReader& in) {
  FamilySocket socket;
  socket.state = in.get<FamilySocket::State>();
  socket.domain = in.get<int32_t>();
  socket.type = in.get<int32_t>();
  socket.protocol = in.get<int32_t>();
  socket.backlog = in.get<int32_t>();
  socket.standard = in.get<int32_t>();
  socket.ended = in.get<uint32_t>();
  socket.peer = in.get<uint32_t>();
  socket.is_lost = in.get<uint32_t>();
  socket.node = in.get<uint32_t>();
  socket.unsent_bytes = in.get<uint32_t>();
  socket.name = in.get_string();
  socket.peer_name = in.get_string();
  socket.folder = in.get_string();
  socket.options = get_all<SocketOption>(in);
  socket.contents = in.get_string();
  socket.unsent = in.get_string();
  return socket;
}

}  // namespace krg::packed_family
