// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_proc_files.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "image/install_parts.h"
#include "krg/procmgr/session_roots.h"
#include "text_scan.h"

namespace krg {
namespace {

// Where there may be a proc/. The kernel's own, where the session has one, comes first: by krgfs,
// which krgd's loop serves, the loop would wait for itself.
constexpr std::array<std::string_view, 3> kRoots = {kSessionRoots[0], kSessionRoots[1], ""};
constexpr std::string_view kProc = "/proc/";

// "12/stat"; empty: it is no file of a proc.
std::string_view within_proc(std::string_view path) {
  for (std::string_view root : kRoots)
    if (path.starts_with(root) && path.substr(root.size()).starts_with(kProc))
      return path.substr(root.size() + kProc.size());
  return {};
}

int64_t open_one(FrozenProcess& process, const FamilyFile& file) {
  auto scratch = process.scratch();
  if (!scratch) return -scratch.error().errno_or(EIO);
  constexpr int kNotAgain = O_CREAT | O_EXCL | O_TRUNC;
  const auto flags = static_cast<uint64_t>((file.flags & ~kNotAgain) | O_CLOEXEC);
  int64_t opened = -ENOENT;
  for (std::string_view root : kRoots) {
    const std::string path = std::string(root).append(kProc).append(within_proc(file.path));
    if (!process.write(*scratch, std::span(path.c_str(), path.size() + 1))) return -EFAULT;
    opened = process.call(SYS_openat, {static_cast<uint64_t>(AT_FDCWD), scratch->value, flags, 0});
    if (opened != -ENOENT) break;
  }
  if (opened >= 0 && file.offset != 0)
    process.call(SYS_lseek,
                 {static_cast<uint64_t>(opened), static_cast<uint64_t>(file.offset), SEEK_SET});
  return opened;
}

}  // namespace

bool is_proc_file_of_member(const ProcessFamily& family, const FamilyFile& file) {
  if (file.kind != FamilyFile::Kind::kPath) return false;
  const std::string_view path = within_proc(file.path);
  const auto pid = to_number<pid_t>(path.substr(0, path.find('/')));
  return pid && std::any_of(family.members.begin(), family.members.end(),
                            [&](const FamilyMember& member) { return member.pid == *pid; });
}

Result<UniqueFd> make_proc_stand_in() {
  UniqueFd stand_in(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!stand_in) return errno_error("/dev/null");
  return stand_in;
}

Status open_proc_files(const ProcessFamily& family, const FamilyMember& member,
                       FrozenProcess& process) {
  for (const FamilyFd& fd : member.fds) {
    const FamilyFile& file = family.files[fd.file];
    if (!is_proc_file_of_member(family, file)) continue;
    const int64_t opened = open_one(process, file);
    if (opened < 0) return errno_error("it had open " + file.path, static_cast<int>(-opened));
    const Status placed =
        move_descriptor(process, static_cast<uint64_t>(opened), static_cast<uint64_t>(fd.number),
                        fd.close_on_exec ? O_CLOEXEC : 0);
    if (!placed) return placed;
  }
  return {};
}

}  // namespace krg
