// SPDX-License-Identifier: GPL-2.0-or-later
#include "fd_recipe.h"

#include <cstring>

namespace krg {

std::string encode_recipe(const FdRecipe& recipe, std::string_view path) {
  std::string bytes(reinterpret_cast<const char*>(&recipe), sizeof recipe);
  bytes += path;
  return bytes;
}

Result<DecodedRecipe> decode_recipe(std::string_view bytes) {
  DecodedRecipe decoded;
  if (bytes.size() < sizeof decoded.fixed)
    return errno_error("descriptor recipe too short", EPROTO);
  std::memcpy(&decoded.fixed, bytes.data(), sizeof decoded.fixed);
  if (decoded.fixed.version != FdRecipe{}.version)
    return errno_error("descriptor recipe of another version", EPROTO);
  decoded.path = bytes.substr(sizeof decoded.fixed);
  return decoded;
}

}  // namespace krg
