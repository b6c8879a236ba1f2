// H5Handle: one object of the HDF5 library, closed when this goes; and the few calls of it that
// this folder makes. HDF5's own error texts are not printed (quiet_h5()): what went wrong is told
// in our words.
//
// Threads: any; the serial library locks itself (built with --enable-threadsafe), so that its calls
// come one after the other. Source: HDF5 1.10 reference manual.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <hdf5.h>

#include <string>
#include <utility>

#include "krg/runtime/result.h"

namespace krg {

class H5Handle {
 public:
  using Closer = herr_t (*)(hid_t);
  H5Handle() = default;
  H5Handle(hid_t id, Closer closer) : id_(id), closer_(closer) {}
  H5Handle(H5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), closer_(other.closer_) {}
  H5Handle& operator=(H5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(closer_, other.closer_);
    return *this;
  }
  ~H5Handle() {
    if (id_ >= 0) closer_(id_);
  }
  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  // Closes it now. Errors: what was to be written could not be.
  bool close() { return id_ < 0 || closer_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_ = -1;
  Closer closer_ = nullptr;
};

inline void quiet_h5() {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

inline H5Handle h5_space(hsize_t count) {
  return {H5Screate_simple(1, &count, nullptr), H5Sclose};
}

inline H5Handle h5_text_type(size_t bytes) {
  H5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), bytes == 0 ? 1 : bytes);
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  return type;
}

// An attribute of one number or one text. False: it could not be written.
inline bool h5_put(hid_t object, const char* name, uint64_t value) {
  H5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  H5Handle made(H5Acreate2(object, name, H5T_STD_U64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                H5Aclose);
  return made && H5Awrite(made.get(), H5T_NATIVE_UINT64, &value) >= 0;
}
inline bool h5_put(hid_t object, const char* name, const std::string& text) {
  H5Handle space(H5Screate(H5S_SCALAR), H5Sclose), type = h5_text_type(text.size());
  H5Handle made(H5Acreate2(object, name, type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
                H5Aclose);
  return made && H5Awrite(made.get(), type.get(), text.empty() ? "" : text.data()) >= 0;
}

inline Result<uint64_t> h5_number(hid_t object, const char* name) {
  H5Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  uint64_t value = 0;
  if (!attribute || H5Aread(attribute.get(), H5T_NATIVE_UINT64, &value) < 0)
    return text_error(std::string("no attribute ") + name);
  return value;
}
inline Result<std::string> h5_text(hid_t object, const char* name) {
  H5Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  if (!attribute) return text_error(std::string("no attribute ") + name);
  H5Handle type(H5Aget_type(attribute.get()), H5Tclose);
  std::string text(H5Tget_size(type.get()), '\0');
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) > 0 ||
      H5Aread(attribute.get(), type.get(), text.data()) < 0)
    return text_error(std::string("no text in attribute ") + name);
  while (text.ends_with('\0')) text.pop_back();
  return text;
}

}  // namespace krg
