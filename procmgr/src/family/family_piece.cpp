// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_piece.h"

#include "family/packed_family.h"

namespace krg {

using namespace packed_family;

std::string pack_uses(const std::vector<StreamUse>& uses) {
  PackedWriter out;
  out.put(static_cast<uint32_t>(uses.size()));
  for (const StreamUse& use : uses) {
    out.put(use.file).put(use.home).put(use.id).put(use.offset).put(use.flags);
    out.put(use.standard).put(use.owner).put(use.arrived);
    out.put_string(use.unread).put_string(use.unsent);
  }
  return out.take();
}

std::vector<StreamUse> unpack_uses(PackedReader& in) {
  std::vector<StreamUse> uses;
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i) {
    StreamUse use;
    use.file = in.get<uint32_t>();
    use.home = in.get<NodeId>();
    use.id = in.get<uint64_t>();
    use.offset = in.get<int64_t>();
    use.flags = in.get<int32_t>();
    use.standard = in.get<int32_t>();
    use.owner = in.get<pid_t>();
    use.arrived = in.get<uint64_t>();
    use.unread = in.get_string();
    use.unsent = in.get_string();
    uses.push_back(std::move(use));
  }
  return uses;
}

std::string FamilyPiece::serialize() const {
  PackedWriter out;
  out.put_string(command);
  put_all(out, places);
  out.put(static_cast<uint32_t>(members.size()));
  for (const FamilyMember& member : members) put(out, member);
  put_all(out, memories);
  return out.take() + pack_uses(streams);
}

Result<FamilyPiece> FamilyPiece::parse(std::string_view bytes) {
  PackedReader in(bytes);
  FamilyPiece piece;
  piece.command = in.get_string();
  piece.places = get_all<FamilyPlace>(in);
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    piece.members.push_back(get_member(in, kFormatVersion));
  piece.memories = get_all<uint64_t>(in);
  piece.streams = unpack_uses(in);
  if (!in.ok() || !in.at_end()) return errno_error("piece of a family", EBADMSG);
  return piece;
}

std::string FamilyDescription::serialize() const {
  PackedWriter out;
  out.put(static_cast<uint32_t>(files.size()));
  for (FamilyFile file : files) {
    file.contents.clear();
    put(out, file);
  }
  put_all(out, numbers);
  out.put(static_cast<uint32_t>(pipes.size()));
  for (FamilyPipe pipe : pipes) {
    pipe.contents.clear();
    put(out, pipe);
  }
  out.put(static_cast<uint32_t>(sockets.size()));
  for (FamilySocket socket : sockets) {
    socket.contents.clear();
    socket.unsent.clear();
    put(out, socket);
  }
  put_all(out, identities);
  put_all(out, of_uses);
  put_all(out, others);
  put_all(out, others_memories);
  out.put_string(ipc.serialize());
  return out.take();
}

Result<FamilyDescription> FamilyDescription::parse(std::string_view bytes) {
  PackedReader in(bytes);
  FamilyDescription description;
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    description.files.push_back(get_file(in, kFormatVersion));
  description.numbers = get_all<uint32_t>(in);
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    description.pipes.push_back(get_pipe(in, kFormatVersion));
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    description.sockets.push_back(get_socket(in));
  description.identities = get_all<SocketIdentity>(in);
  description.of_uses = get_all<uint32_t>(in);
  description.others = get_all<pid_t>(in);
  description.others_memories = get_all<OthersMemory>(in);
  auto ipc = SavedIpc::parse(in.get_string());
  if (!ipc) return ipc.error();
  description.ipc = std::move(*ipc);
  if (!in.ok() || !in.at_end() || description.numbers.size() != description.files.size() ||
      description.identities.size() != description.sockets.size())
    return errno_error("description of a family", EBADMSG);
  return description;
}

}  // namespace krg
