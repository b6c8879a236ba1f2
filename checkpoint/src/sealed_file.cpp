// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/sealed_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <vector>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

constexpr size_t kPiece = 1u << 20;
constexpr const char* kLayout =
    "krg-checkpoint\nformat {}\nkind {}\nid {:016x}\nbytes {}\nbulk {} {}\nmetadata {:016x}\n";

Status hash_range(int fd, uint64_t from, uint64_t to, XXH3_state_t& state) {
  if (from >= to) return {};
  std::vector<char> piece(std::min<uint64_t>(kPiece, to - from));
  while (from < to) {
    const size_t wanted = std::min<uint64_t>(kPiece, to - from);
    const ssize_t got = pread(fd, piece.data(), wanted, static_cast<off_t>(from));
    if (got < 0) return errno_error("read");
    if (got == 0) return errno_error("it is cut off", EBADMSG);
    XXH3_64bits_update(&state, piece.data(), static_cast<size_t>(got));
    from += static_cast<uint64_t>(got);
  }
  return {};
}

Result<uint64_t> hash_metadata(int fd, const Seal& seal) {
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                        XXH3_freeState);
  XXH3_64bits_reset(state.get());
  const uint64_t bulk_end = seal.bulk_offset + seal.bulk_bytes;
  if (auto hashed = hash_range(fd, kSealBytes, seal.bulk_offset, *state); !hashed)
    return hashed.error();
  if (auto hashed = hash_range(fd, bulk_end, seal.file_bytes, *state); !hashed)
    return hashed.error();
  return XXH3_64bits_digest(state.get());
}

// The whole first block.
std::string text_of(const Seal& seal) {
  const char* kind = seal.kind == Seal::Kind::kMaster ? "master" : "part";
  std::string text =
      fmt::format(fmt::runtime(kLayout), kCheckpointFormat, kind, seal.id, seal.file_bytes,
                  seal.bulk_offset, seal.bulk_bytes, seal.metadata_hash);
  text.resize(kSealBytes, '\0');
  return text;
}

Result<Seal> parse(const char* text) {
  Seal seal;
  unsigned format = 0;
  char kind[16] = "";
  if (std::sscanf(text, "krg-checkpoint\nformat %u\n", &format) != 1)
    return text_error("it is no checkpoint file");
  if (format > kCheckpointFormat)
    return text_error(fmt::format("a newer version made it (format {}; this one reads {})", format,
                                  kCheckpointFormat));
  if (std::sscanf(text,
                  "krg-checkpoint\nformat %u\nkind %15s\nid %" SCNx64 "\nbytes %" SCNu64
                  "\nbulk %" SCNu64 " %" SCNu64 "\nmetadata %" SCNx64 "\n",
                  &format, kind, &seal.id, &seal.file_bytes, &seal.bulk_offset, &seal.bulk_bytes,
                  &seal.metadata_hash) != 7)
    return text_error("it is damaged (its first block)");
  seal.kind = std::string_view(kind) == "master" ? Seal::Kind::kMaster : Seal::Kind::kPart;
  if (seal.bulk_offset < kSealBytes || seal.bulk_offset > seal.file_bytes ||
      seal.bulk_bytes > seal.file_bytes - seal.bulk_offset ||
      text_of(seal) != std::string_view(text, kSealBytes))
    return text_error("it is damaged (its first block)");
  return seal;
}

}  // namespace

Result<Seal> check_seal(const std::string& path) {
  const auto fault = [&](const Error& error) {
    return Error{error.code, path + ": " + error.context};
  };
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error(path);
  std::array<char, kSealBytes + 1> text{};
  const ssize_t got = pread(file.get(), text.data(), kSealBytes, 0);
  if (got < 0) return errno_error(path);
  auto seal = parse(text.data());
  if (!seal) return fault(seal.error());
  struct stat found {};
  if (fstat(file.get(), &found) != 0) return errno_error(path);
  if (static_cast<uint64_t>(found.st_size) != seal->file_bytes)
    return fault(text_error(fmt::format("it is cut off or was changed ({} bytes, not {})",
                                        found.st_size, seal->file_bytes)));
  auto hash = hash_metadata(file.get(), *seal);
  if (!hash) return fault(hash.error());
  if (*hash != seal->metadata_hash)
    return fault(text_error("it is damaged (checksum of its tables)"));
  return seal;
}

Status put_seal(int fd, Seal seal) {
  struct stat found {};
  if (fstat(fd, &found) != 0) return errno_error("stat");
  seal.file_bytes = static_cast<uint64_t>(found.st_size);
  if (seal.bulk_offset == 0) seal.bulk_offset = kSealBytes;
  auto hash = hash_metadata(fd, seal);
  if (!hash) return hash.error();
  seal.metadata_hash = *hash;
  const std::string text = text_of(seal);
  if (pwrite(fd, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    return errno_error("write");
  return {};
}

}  // namespace krg
