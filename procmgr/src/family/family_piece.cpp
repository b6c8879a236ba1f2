// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_piece.h"

#include "family/packed_family.h"

namespace krg {

using namespace packed_family;

std::string FamilyPiece::serialize() const {
  PackedWriter out;
  out.put_string(command);
  put_all(out, places);
  out.put(static_cast<uint32_t>(members.size()));
  for (const FamilyMember& member : members) put(out, member);
  put_all(out, streams);
  return out.take();
}

Result<FamilyPiece> FamilyPiece::parse(std::string_view bytes) {
  PackedReader in(bytes);
  FamilyPiece piece;
  piece.command = in.get_string();
  piece.places = get_all<FamilyPlace>(in);
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    piece.members.push_back(get_member(in, kFormatVersion));
  piece.streams = get_all<StreamUse>(in);
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
  for (const FamilyPipe& pipe : pipes) put(out, FamilyPipe{pipe.capacity, pipe.node, {}});
  put_all(out, of_uses);
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
  description.of_uses = get_all<uint32_t>(in);
  if (!in.ok() || !in.at_end() || description.numbers.size() != description.files.size())
    return errno_error("description of a family", EBADMSG);
  return description;
}

}  // namespace krg
