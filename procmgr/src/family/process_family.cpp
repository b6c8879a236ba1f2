// The form in which a ProcessFamily is kept. SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/process_family.h"

#include <algorithm>

#include "packed_bytes.h"

namespace krg {
namespace {

constexpr uint8_t kFormatVersion = 2;
constexpr uint32_t kMostParts = 1u << 20;  // of anything: what is malformed must not take memory

template <class T>
void put_all(PackedWriter& out, const std::vector<T>& all) {
  out.put(static_cast<uint32_t>(all.size()));
  for (const T& one : all) out.put(one);
}

uint32_t get_count(PackedReader& in) {
  return std::min(in.get<uint32_t>(), kMostParts);
}

template <class T>
std::vector<T> get_all(PackedReader& in) {
  std::vector<T> all;
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i) all.push_back(in.get<T>());
  return all;
}

void put(PackedWriter& out, const FamilyFile& file) {
  out.put(file.kind).put(file.flags).put(file.offset).put(file.stream).put(file.pipe);
  out.put(file.bytes).put(file.is_regular).put(file.flock);
  out.put_string(file.memory).put_string(file.path).put_string(file.contents);
}

FamilyFile get_file(PackedReader& in) {
  FamilyFile file;
  file.kind = in.get<FamilyFile::Kind>();
  file.flags = in.get<int32_t>();
  file.offset = in.get<int64_t>();
  file.stream = in.get<uint32_t>();
  file.pipe = in.get<uint32_t>();
  file.bytes = in.get<uint64_t>();
  file.is_regular = in.get<uint32_t>();
  file.flock = in.get<uint32_t>();
  file.memory = in.get_string();
  file.path = in.get_string();
  file.contents = in.get_string();
  return file;
}

void put(PackedWriter& out, const FamilyMember& member) {
  out.put(member.pid).put(member.parent).put(member.group).put(member.session);
  out.put(member.wait_status).put(member.capabilities);
  out.put_string(member.name).put_string(member.image);
  put_all(out, member.fds);
  put_all(out, member.locks);
}

FamilyMember get_member(PackedReader& in) {
  FamilyMember member;
  member.pid = in.get<pid_t>();
  member.parent = in.get<pid_t>();
  member.group = in.get<pid_t>();
  member.session = in.get<pid_t>();
  member.wait_status = in.get<int32_t>();
  member.capabilities = in.get<CapabilitySets>();
  member.name = in.get_string();
  member.image = in.get_string();
  member.fds = get_all<FamilyFd>(in);
  member.locks = get_all<FamilyLock>(in);
  return member;
}

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
  for (const FamilyPipe& pipe : pipes) out.put(pipe.capacity).put_string(pipe.contents);
  return out.take();
}

Result<ProcessFamily> ProcessFamily::parse(std::string_view bytes) {
  const Error malformed = errno_error("images of processes", EBADMSG);
  PackedReader in(bytes);
  if (in.get<uint8_t>() != kFormatVersion) return malformed;
  ProcessFamily family;
  family.command = in.get_string();
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    family.members.push_back(get_member(in));
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i)
    family.files.push_back(get_file(in));
  for (uint32_t i = 0, count = get_count(in); i < count && in.ok(); ++i) {
    FamilyPipe& pipe = family.pipes.emplace_back();
    pipe.capacity = in.get<uint32_t>();
    pipe.contents = in.get_string();
  }
  if (!in.ok() || !in.at_end() || !is_consistent(family)) return malformed;
  return family;
}

}  // namespace krg
