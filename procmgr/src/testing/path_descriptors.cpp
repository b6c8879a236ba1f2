// SPDX-License-Identifier: GPL-2.0-or-later
#include "path_descriptors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <filesystem>
#include <fstream>

#include "../packed_bytes.h"
#include "../text_scan.h"

namespace krg {
namespace {

constexpr unsigned kMemoryDevices = 1;  // the major number of /dev/null and its kin (mem(4))
constexpr int kCreationFlags = O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY;

// The flags of an open descriptor, or -1.
int open_flags(pid_t pid, int number) {
  std::ifstream info(fmt::format("/proc/{}/fdinfo/{}", pid, number));
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("flags:"))
      return to_number<int>(trimmed(std::string_view(line).substr(6)), 8).value_or(-1);
  return -1;
}

bool can_be_reopened(const struct stat& file, int flags) {
  if (S_ISCHR(file.st_mode)) return major(file.st_rdev) == kMemoryDevices;
  if (S_ISDIR(file.st_mode)) return true;
  return S_ISREG(file.st_mode) && file.st_nlink > 0 && (flags & O_APPEND) &&
         (flags & O_ACCMODE) == O_WRONLY;
}

Result<ExportedFd> export_one(pid_t pid, int number, int flags) {
  const std::string link = fmt::format("/proc/{}/fd/{}", pid, number);
  struct stat file {};
  std::error_code error;
  const std::string path = std::filesystem::read_symlink(link, error);
  if (error || stat(link.c_str(), &file) != 0 || !can_be_reopened(file, flags))
    return errno_error(fmt::format("descriptor {} is not a plain path", number), ENOTSUP);
  PackedWriter recipe;
  recipe.put(flags).put(file.st_ino).put(file.st_mode).put_string(path);
  return ExportedFd{number, recipe.take()};
}

Result<ImportedFd> import_one(const ExportedFd& from) {
  PackedReader recipe(from.recipe);
  const auto flags = recipe.get<int>();
  const auto inode = recipe.get<ino_t>();
  const auto mode = recipe.get<mode_t>();
  const std::string path(recipe.get_string());
  if (!recipe.ok()) return errno_error("descriptor recipe", EBADMSG);
  UniqueFd fd(open(path.c_str(), (flags & ~kCreationFlags) | O_CLOEXEC));
  struct stat file {};
  if (!fd || fstat(fd.get(), &file) != 0) return errno_error(path);
  const bool same = file.st_mode == mode && (S_ISCHR(mode) || file.st_ino == inode);
  if (!same) return errno_error(path + " is another file here", ENOTSUP);
  return ImportedFd{from.number, std::move(fd), from.close_on_exec};
}

}  // namespace

void PathDescriptors::export_fds(pid_t pid, WhichFds which,
                                 std::function<void(Result<std::vector<ExportedFd>>)> done) {
  std::vector<ExportedFd> fds;
  std::error_code error;
  std::filesystem::directory_iterator entries(fmt::format("/proc/{}/fd", pid), error);
  if (error) return done(errno_error("no such process", ESRCH));
  for (const auto& entry : entries) {
    const int number = to_number<int>(entry.path().filename().native()).value_or(-1);
    const int flags = open_flags(pid, number);
    if (flags < 0) continue;
    const bool close_on_exec = (flags & O_CLOEXEC) != 0;
    if (close_on_exec && which == WhichFds::kKeptByExec) continue;
    auto exported = export_one(pid, number, flags);
    if (!exported) return done(exported.error());
    exported->close_on_exec = close_on_exec;
    fds.push_back(std::move(*exported));
  }
  done(std::move(fds));
}

void PathDescriptors::import_fds(pid_t, std::vector<ExportedFd> fds,
                                 std::function<void(Result<std::vector<ImportedFd>>)> done) {
  std::vector<ImportedFd> imported;
  for (const ExportedFd& from : fds) {
    auto fd = import_one(from);
    if (!fd) return done(fd.error());
    imported.push_back(std::move(*fd));
  }
  done(std::move(imported));
}

}  // namespace krg
