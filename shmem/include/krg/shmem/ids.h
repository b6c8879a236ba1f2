// The names of coherent objects: a set of objects, an object in it, a page of a page set.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <compare>
#include <cstdint>

namespace krg {

// A KDDM set: a numbered collection of objects kept coherent over the nodes.
struct SetId {
  uint64_t value = 0;
  auto operator<=>(const SetId&) const = default;
};
// An object inside a set.
struct ObjectId {
  uint64_t value = 0;
  auto operator<=>(const ObjectId&) const = default;
};
// A 4 KiB page inside a page set.
struct PageIndex {
  uint64_t value = 0;
  auto operator<=>(const PageIndex&) const = default;
};

}  // namespace krg
