// SPDX-License-Identifier: GPL-2.0-or-later
#include "part_tables.h"

#include <cstddef>

namespace krg {
namespace {

H5Handle row_type(size_t bytes) {
  return {H5Tcreate(H5T_COMPOUND, bytes), H5Tclose};
}

}  // namespace

H5Handle process_row_type() {
  H5Handle type = row_type(sizeof(ProcessRow)), name = h5_text_type(16);
  H5Tinsert(type.get(), "pid", offsetof(ProcessRow, pid), H5T_STD_I32LE);
  H5Tinsert(type.get(), "parent", offsetof(ProcessRow, parent), H5T_STD_I32LE);
  H5Tinsert(type.get(), "group", offsetof(ProcessRow, group), H5T_STD_I32LE);
  H5Tinsert(type.get(), "session", offsetof(ProcessRow, session), H5T_STD_I32LE);
  H5Tinsert(type.get(), "wait_status", offsetof(ProcessRow, wait_status), H5T_STD_I32LE);
  H5Tinsert(type.get(), "descriptors", offsetof(ProcessRow, descriptors), H5T_STD_U32LE);
  H5Tinsert(type.get(), "name", offsetof(ProcessRow, name), name.get());
  return type;
}

H5Handle file_row_type() {
  H5Handle type = row_type(sizeof(FileRow)), path = h5_text_type(256);
  H5Tinsert(type.get(), "kind", offsetof(FileRow, kind), H5T_STD_U32LE);
  H5Tinsert(type.get(), "flags", offsetof(FileRow, flags), H5T_STD_U32LE);
  H5Tinsert(type.get(), "offset", offsetof(FileRow, offset), H5T_STD_I64LE);
  H5Tinsert(type.get(), "bytes", offsetof(FileRow, bytes), H5T_STD_U64LE);
  H5Tinsert(type.get(), "path", offsetof(FileRow, path), path.get());
  return type;
}

H5Handle range_row_type() {
  H5Handle type = row_type(sizeof(PartRange));
  H5Tinsert(type.get(), "member", offsetof(PartRange, member), H5T_STD_U32LE);
  H5Tinsert(type.get(), "version", offsetof(PartRange, version), H5T_STD_U32LE);
  H5Tinsert(type.get(), "address", offsetof(PartRange, address), H5T_STD_U64LE);
  H5Tinsert(type.get(), "bytes", offsetof(PartRange, bytes), H5T_STD_U64LE);
  H5Tinsert(type.get(), "offset", offsetof(PartRange, offset), H5T_STD_U64LE);
  return type;
}

H5Handle block_row_type() {
  H5Handle type = row_type(sizeof(BlockRow));
  H5Tinsert(type.get(), "checksum", offsetof(BlockRow, checksum), H5T_STD_U64LE);
  H5Tinsert(type.get(), "stored", offsetof(BlockRow, stored), H5T_STD_U32LE);
  H5Tinsert(type.get(), "encoding", offsetof(BlockRow, encoding), H5T_STD_U32LE);
  return type;
}

}  // namespace krg
