// The form in which a ProcessFamily is kept. SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/process_family.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "family/packed_family.h"

namespace krg {

using namespace packed_family;

namespace {

constexpr size_t kMostAddressBytes = 128;  // sockaddr_storage

bool leads_somewhere(const ProcessFamily& family, const FamilyFile& file) {
  const bool is_pseudo_terminals =
      file.kind == FamilyFile::Kind::kMaster || file.kind == FamilyFile::Kind::kSlave;
  if (file.kind > FamilyFile::Kind::kSlave || (file.stream > 2 && !is_pseudo_terminals))
    return false;
  if (std::any_of(file.watches.begin(), file.watches.end(), [&](const FamilyWatch& watch) {
        return watch.file >= family.files.size() || watch.number < 0;
      }))
    return false;
  switch (file.kind) {
    case FamilyFile::Kind::kQueue:
      return file.pipe < family.ipc.posix_queues.size();
    case FamilyFile::Kind::kMemory:
      return file.pipe < family.memories.size() && family.memories[file.pipe].is_file();
    case FamilyFile::Kind::kPipe:
      return file.pipe < family.pipes.size();
    case FamilyFile::Kind::kSocket:
      return file.pipe < family.sockets.size();
    case FamilyFile::Kind::kSlave:
      return family.master_of(file).has_value();
    default:
      return true;
  }
}

// Every number leads somewhere, and parents come first.
bool is_consistent(const ProcessFamily& family) {
  if (family.members.empty() || family.members.front().has_ended()) return false;
  for (const FamilyFile& file : family.files)
    if (!leads_somewhere(family, file)) return false;
  for (uint32_t i = 0; i < family.sockets.size(); ++i) {
    const FamilySocket& socket = family.sockets[i];
    if (socket.state > FamilySocket::State::kConnected || socket.name.size() > kMostAddressBytes ||
        socket.peer_name.size() > kMostAddressBytes)
      return false;
    if (socket.peer != FamilySocket::kNone &&
        (socket.peer >= family.sockets.size() || family.sockets[socket.peer].peer != i))
      return false;
  }
  for (size_t i = 0; i < family.members.size(); ++i) {
    const FamilyMember& member = family.members[i];
    const auto end = family.members.begin() + static_cast<long>(i);
    const bool has_parent = std::any_of(family.members.begin(), end, [&](const FamilyMember& m) {
      return m.pid == member.parent && !m.has_ended();
    });
    const bool is_orphan = member.parent == FamilyMember::kInit;
    if (member.pid <= 1 || (i > 0 && !has_parent && !is_orphan)) return false;
    for (const FamilyFd& fd : member.fds)
      if (fd.file >= family.files.size() || fd.number < 0) return false;
    for (const FamilyLock& lock : member.locks)
      if (lock.file >= family.files.size()) return false;
  }
  return true;
}

}  // namespace

std::string ProcessFamily::serialize() const {
  PackedWriter out;
  out.put(kFormatVersion).put_string(command);
  out.put(static_cast<uint32_t>(members.size()));
  for (const FamilyMember& member : members) put(out, member);
  out.put(static_cast<uint32_t>(files.size()));
  for (const FamilyFile& file : files) put(out, file);
  out.put(static_cast<uint32_t>(pipes.size()));
  for (const FamilyPipe& pipe : pipes) put(out, pipe);
  out.put(static_cast<uint32_t>(sockets.size()));
  for (const FamilySocket& socket : sockets) put(out, socket);
  out.put_string(ipc.serialize()).put_string(pack_memories(memories));
  return out.take();
}

Result<ProcessFamily> ProcessFamily::parse(std::string_view bytes) {
  const Error malformed = errno_error("images of processes", EBADMSG);
  PackedReader in(bytes);
  const auto version = in.get<uint8_t>();
  if (version < kOneNode || version > kFormatVersion) return malformed;
  ProcessFamily family;
  family.command = in.get_string();
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    family.members.push_back(get_member(in, version));
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    family.files.push_back(get_file(in, version));
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    family.pipes.push_back(get_pipe(in, version));
  const uint32_t sockets = version <= kNoSockets ? 0 : get_count(in);
  for (uint32_t i = 0; i < sockets && in.ok(); ++i) family.sockets.push_back(get_socket(in));
  auto ipc = SavedIpc::parse(version <= kNoIpc ? std::string() : in.get_string());
  if (!ipc) return ipc.error();
  family.ipc = std::move(*ipc);
  auto memories = unpack_memories(version <= kNoMemories ? std::string_view() : in.get_string());
  if (!memories) return memories.error();
  family.memories = std::move(*memories);
  if (!in.ok() || !in.at_end() || !is_consistent(family)) return malformed;
  return family;
}

std::vector<pid_t> ProcessFamily::ended_leaders() const {
  std::set<pid_t> leaders;
  for (const FamilyMember& member : members) leaders.insert({member.group, member.session});
  leaders.erase(0);
  for (const FamilyMember& member : members) leaders.erase(member.pid);
  return {leaders.begin(), leaders.end()};
}

uint32_t ProcessFamily::owner_of_memory(size_t memory) const {
  return static_cast<uint32_t>(members.size() + files.size() + memory);
}

bool ProcessFamily::may_change(uint32_t number) const {
  const FamilyFile& file = files[number];
  return file.kind == FamilyFile::Kind::kPath && file.is_regular &&
         (file.flags & O_ACCMODE) != O_RDONLY;
}

ProcessFamily ProcessFamily::part_of(uint32_t node) const {
  ProcessFamily part = *this;
  for (FamilyMember& member : part.members)
    if (member.node != node) member.image.clear();
  for (FamilyFile& file : part.files)
    if (file.node != node) file.contents.clear();
  for (FamilyPipe& pipe : part.pipes)
    if (pipe.node != node) pipe.contents.clear();
  for (FamilySocket& socket : part.sockets)
    if (socket.node != node) {
      socket.contents.clear();
      socket.unsent.clear();
    }
  return part;
}

std::optional<FamilyTerminal> ProcessFamily::terminal_of(uint32_t number) const {
  const FamilyFile& file = files[number];
  const bool may_be =
      file.kind == FamilyFile::Kind::kStandard || file.kind == FamilyFile::Kind::kTerminal;
  FamilyTerminal terminal;
  if (!may_be || file.contents.size() != sizeof terminal) return std::nullopt;
  memcpy(&terminal, file.contents.data(), sizeof terminal);
  return terminal;
}

std::optional<uint32_t> ProcessFamily::master_of(const FamilyFile& slave) const {
  for (uint32_t i = 0; i < files.size(); ++i)
    if (files[i].kind == FamilyFile::Kind::kMaster && files[i].stream == slave.stream &&
        files[i].node == slave.node)
      return i;
  return std::nullopt;
}

uint32_t ProcessFamily::file_of_socket(uint32_t socket) const {
  for (uint32_t i = 0; i < files.size(); ++i)
    if (files[i].kind == FamilyFile::Kind::kSocket && files[i].pipe == socket) return i;
  return FamilySocket::kNone;
}

uint32_t ProcessFamily::place_of_other_end(uint32_t socket) const {
  return static_cast<uint32_t>(
      std::count_if(sockets.begin(), sockets.begin() + socket, [](const FamilySocket& one) {
        return one.state == FamilySocket::State::kConnected && one.peer == FamilySocket::kNone;
      }));
}

std::string ProcessFamily::input_of_socket(uint32_t number) const {
  const FamilySocket& socket = sockets[number];
  std::string input = socket.contents;
  if (socket.peer != FamilySocket::kNone) {
    const FamilySocket& peer = sockets[socket.peer];
    const size_t got = peer.unsent.size() - std::min<size_t>(peer.unsent_bytes, peer.unsent.size());
    input += peer.unsent.substr(got);
  }
  return input;
}

Status ProcessFamily::merge(ProcessFamily part) {
  if (part.members.size() != members.size() || part.files.size() != files.size() ||
      part.pipes.size() != pipes.size() || part.sockets.size() != sockets.size() ||
      part.memories.size() != memories.size())
    return errno_error("parts of different families", EBADMSG);
  for (size_t i = 0; i < members.size(); ++i) {
    if (part.members[i].pid != members[i].pid)
      return errno_error("parts of different families", EBADMSG);
    if (!part.members[i].image.empty()) members[i].image = std::move(part.members[i].image);
  }
  for (size_t i = 0; i < files.size(); ++i)
    if (!part.files[i].contents.empty()) files[i].contents = std::move(part.files[i].contents);
  for (size_t i = 0; i < pipes.size(); ++i)
    if (!part.pipes[i].contents.empty()) pipes[i].contents = std::move(part.pipes[i].contents);
  for (size_t i = 0; i < sockets.size(); ++i) {
    FamilySocket& from = part.sockets[i];
    if (!from.contents.empty()) sockets[i].contents = std::move(from.contents);
    if (!from.unsent.empty()) sockets[i].unsent = std::move(from.unsent);
  }
  return {};
}

std::vector<uint32_t> ProcessFamily::nodes() const {
  std::set<uint32_t> nodes;
  for (const FamilyMember& member : members)
    if (!member.has_ended()) nodes.insert(member.node);
  for (const FamilyFile& file : files) nodes.insert(file.node);
  for (const FamilyPipe& pipe : pipes) nodes.insert(pipe.node);
  for (const FamilySocket& socket : sockets) nodes.insert(socket.node);
  return {nodes.begin(), nodes.end()};
}

}  // namespace krg
