// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cstdlib>
#include <sstream>

#include "h5_handle.h"
#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/sealed_file.h"

namespace krg {
namespace {

constexpr size_t kMostNumbers = 1u << 16;

std::string joined(const std::vector<uint32_t>& numbers) {
  return fmt::format("{}", fmt::join(numbers, ","));
}

Result<std::vector<uint32_t>> split(const std::string& text) {
  std::vector<uint32_t> numbers;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    if (word.empty() || word.size() > 9 || numbers.size() > kMostNumbers ||
        word.find_first_not_of("0123456789") != std::string::npos)
      return text_error("its list of parts");
    numbers.push_back(static_cast<uint32_t>(std::stoul(word)));
  }
  return numbers;
}

std::string joined_ids(const std::vector<uint64_t>& ids) {
  return fmt::format("{:016x}", fmt::join(ids, ","));
}

// None in a file of before there were increments.
std::vector<uint64_t> split_ids(const std::string& text) {
  std::vector<uint64_t> ids;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');)
    ids.push_back(std::strtoull(word.c_str(), nullptr, 16));
  return ids;
}

bool put_links(hid_t file, const VersionInfo& info) {
  H5Handle parts(H5Gcreate2(file, "parts", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
  bool ok = static_cast<bool>(parts);
  for (uint32_t node : info.nodes)
    ok = ok &&
         H5Lcreate_external(fmt::format("v{}.n{}.h5", info.version, node).c_str(), "/", parts.get(),
                            fmt::format("n{}", node).c_str(), H5P_DEFAULT, H5P_DEFAULT) >= 0;
  return ok;
}

bool put_info(hid_t file, const VersionInfo& info) {
  return h5_put(file, "format", std::string("krg-checkpoint")) &&
         h5_put(file, "format_version", kCheckpointFormat) &&
         h5_put(file, "version", info.version) && h5_put(file, "created", info.created) &&
         h5_put(file, "command", info.command) && h5_put(file, "description", info.description) &&
         h5_put(file, "root_pid", info.root_pid) && h5_put(file, "processes", info.processes) &&
         h5_put(file, "user_data", info.user_data) && h5_put(file, "page_bytes", info.page_bytes) &&
         h5_put(file, "memory_bytes", info.memory_bytes) &&
         h5_put(file, "nodes", joined(info.nodes)) && h5_put(file, "needs", joined(info.needs)) &&
         h5_put(file, "needs_ids", joined_ids(info.needs_ids)) && put_links(file, info);
}

Result<VersionInfo> read_info(hid_t file) {
  VersionInfo info;
  auto version = h5_number(file, "version");
  if (!version) return version.error();
  info.version = static_cast<uint32_t>(*version);
  for (auto [name, into] : {std::pair("root_pid", &info.root_pid),
                            {"processes", &info.processes},
                            {"page_bytes", &info.page_bytes},
                            {"memory_bytes", &info.memory_bytes}}) {
    auto number = h5_number(file, name);
    if (!number) return number.error();
    *into = *number;
  }
  for (auto [name, into] : {std::pair("created", &info.created),
                            {"command", &info.command},
                            {"description", &info.description}}) {
    auto text = h5_text(file, name);
    if (!text) return text.error();
    *into = std::move(*text);
  }
  for (auto [name, into] : {std::pair("nodes", &info.nodes), {"needs", &info.needs}}) {
    auto text = h5_text(file, name);
    if (!text) return text.error();
    auto numbers = split(*text);
    if (!numbers) return numbers.error();
    *into = std::move(*numbers);
  }
  if (auto data = h5_number(file, "user_data")) info.user_data = *data;  // not in older files
  if (auto ids = h5_text(file, "needs_ids")) info.needs_ids = split_ids(*ids);
  return info;
}

}  // namespace

Status write_master(const std::string& path, const VersionInfo& info) {
  quiet_h5();
  errno = 0;
  {
    H5Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
    H5Pset_userblock(creation.get(), kSealBytes);
    H5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), H5P_DEFAULT), H5Fclose);
    if (!file || !put_info(file.get(), info) || !file.close())
      return errno_error(path, errno ? errno : EIO);
  }
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return errno_error(path);
  auto sealed = put_seal(fd.get(), {.kind = Seal::Kind::kMaster, .id = info.id});
  if (!sealed) return errno_error(path, sealed.error().errno_or(EIO));
  if (fsync(fd.get()) != 0) return errno_error(path);
  return {};
}

Result<VersionInfo> read_master(const std::string& path) {
  auto seal = check_seal(path);
  if (!seal) return seal.error();
  if (seal->kind != Seal::Kind::kMaster)
    return text_error(path + ": it is no master file of a checkpoint");
  quiet_h5();
  H5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  auto info = file ? read_info(file.get()) : text_error("HDF5 cannot read it");
  if (!info) return Error{info.error().code, path + ": " + info.error().context};
  info->id = seal->id;
  return info;
}

}  // namespace krg
