// The form in which an ExecSpec travels. SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/exec_spec.h"

#include "packed_bytes.h"

namespace krg {
namespace {

constexpr uint8_t kFormatVersion = 2;
constexpr size_t kMaxGroups = 65536;  // NGROUPS_MAX

void put_list(PackedWriter& out, const StringList& list) {
  out.put(static_cast<uint32_t>(list.size())).put_string(list.bytes());
}
// False when the bytes do not hold as many strings as they say.
bool get_list(PackedReader& in, StringList& list) {
  const auto count = in.get<uint32_t>();
  std::string_view bytes = in.get_string();
  while (!bytes.empty()) {
    size_t end = bytes.find('\0');
    if (end == std::string_view::npos) return false;
    list.add(bytes.substr(0, end));
    bytes.remove_prefix(end + 1);
  }
  return in.ok() && list.size() == count;
}

}  // namespace

void StringList::add(std::string_view text) {
  bytes_.append(text).push_back('\0');
  ++count_;
}

std::vector<std::string> StringList::strings() const {
  std::vector<std::string> all;
  for (char* text : pointers())
    if (text) all.emplace_back(text);
  return all;
}

std::vector<char*> StringList::pointers() const {
  std::vector<char*> all;
  all.reserve(count_ + 1);
  for (size_t at = 0; at < bytes_.size(); at = bytes_.find('\0', at) + 1)
    all.push_back(const_cast<char*>(bytes_.data() + at));
  all.push_back(nullptr);
  return all;
}

std::string ExecSpec::serialize() const {
  static_assert(std::is_trivially_copyable_v<ProcessAttributes>);
  PackedWriter out;
  out.put(kFormatVersion).put(attributes).put_string(path).put_string(cwd);
  put_list(out, argv);
  put_list(out, environment);
  out.put(static_cast<uint32_t>(groups.size()));
  for (gid_t group : groups) out.put(group);
  out.put(static_cast<uint32_t>(processors.size()));
  for (uint32_t place : processors) out.put(place);
  return out.take();
}

Result<ExecSpec> ExecSpec::parse(std::string_view bytes) {
  const Error malformed = errno_error("exec specification", EBADMSG);
  PackedReader in(bytes);
  if (in.get<uint8_t>() != kFormatVersion) return malformed;
  ExecSpec spec;
  spec.attributes = in.get<ProcessAttributes>();
  spec.path = in.get_string();
  spec.cwd = in.get_string();
  if (!get_list(in, spec.argv) || !get_list(in, spec.environment)) return malformed;
  const auto group_count = in.get<uint32_t>();
  if (group_count > kMaxGroups) return malformed;
  for (uint32_t i = 0; i < group_count && in.ok(); ++i) spec.groups.push_back(in.get<gid_t>());
  const auto place_count = in.get<uint32_t>();
  for (uint32_t i = 0; i < place_count && in.ok(); ++i)
    spec.processors.push_back(in.get<uint32_t>());
  if (!in.ok() || !in.at_end()) return malformed;
  return spec;
}

}  // namespace krg
