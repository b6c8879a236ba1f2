// The form in which a ProcessFamily is kept. SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/process_family.h"

#include <fcntl.h>

#include <algorithm>
#include <set>

#include "family/packed_family.h"

namespace krg {

using namespace packed_family;

namespace {

// Every number leads somewhere, and parents come first.
bool is_consistent(const ProcessFamily& family) {
  if (family.members.empty() || family.members.front().has_ended()) return false;
  for (const FamilyFile& file : family.files)
    if (file.kind > FamilyFile::Kind::kDeleted || file.stream > 2 ||
        (file.kind == FamilyFile::Kind::kPipe && file.pipe >= family.pipes.size()))
      return false;
  for (size_t i = 0; i < family.members.size(); ++i) {
    const FamilyMember& member = family.members[i];
    const auto end = family.members.begin() + static_cast<long>(i);
    const bool has_parent = std::any_of(family.members.begin(), end, [&](const FamilyMember& m) {
      return m.pid == member.parent && !m.has_ended();
    });
    if (member.pid <= 1 || (i > 0 && !has_parent)) return false;
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
  return out.take();
}

Result<ProcessFamily> ProcessFamily::parse(std::string_view bytes) {
  const Error malformed = errno_error("images of processes", EBADMSG);
  PackedReader in(bytes);
  const auto version = in.get<uint8_t>();
  if (version != kFormatVersion && version != kOneNode) return malformed;
  ProcessFamily family;
  family.command = in.get_string();
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    family.members.push_back(get_member(in, version));
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    family.files.push_back(get_file(in, version));
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    family.pipes.push_back(get_pipe(in, version));
  if (!in.ok() || !in.at_end() || !is_consistent(family)) return malformed;
  return family;
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
  return part;
}

Status ProcessFamily::merge(ProcessFamily part) {
  if (part.members.size() != members.size() || part.files.size() != files.size() ||
      part.pipes.size() != pipes.size())
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
  return {};
}

std::vector<uint32_t> ProcessFamily::nodes() const {
  std::set<uint32_t> nodes;
  for (const FamilyMember& member : members)
    if (!member.has_ended()) nodes.insert(member.node);
  for (const FamilyFile& file : files) nodes.insert(file.node);
  for (const FamilyPipe& pipe : pipes) nodes.insert(pipe.node);
  return {nodes.begin(), nodes.end()};
}

}  // namespace krg
