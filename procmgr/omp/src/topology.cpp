// Places named by what the machine has, as hwloc tells it. The library is only loaded by programs
// that ask for such places, so that no other one has to have it or wait for it.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <dlfcn.h>
#include <hwloc.h>

#include <cstring>

#include "memory.h"
#include "places.h"

namespace krg::omp {
namespace {

// hwloc's functions that are used here.
struct Hwloc {
  void* library = dlopen("libhwloc.so.15", RTLD_NOW | RTLD_LOCAL);

  template <class F>
  bool find(F*& function, const char* name) const {
    if (library == nullptr) return false;
    function = reinterpret_cast<F*>(dlsym(library, name));
    return function != nullptr;
  }
};

void add_processors_one_by_one(const cpu_set_t& usable, unsigned most) {
  for (std::size_t i = 0; i < CPU_SETSIZE && places.count < most; ++i) {
    if (CPU_ISSET(i, &usable) == 0) continue;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(i, &set);
    add_place(set);
  }
}

// The objects of the kind that is meant; a last-level cache is the largest kind that there is.
struct Kind {
  hwloc_obj_type_t types[3];
  unsigned count;
};
bool kind_of(const char* name, Kind& kind) {
  if (std::strcmp(name, "cores") == 0)
    kind = {{HWLOC_OBJ_CORE}, 1};
  else if (std::strcmp(name, "sockets") == 0)
    kind = {{HWLOC_OBJ_PACKAGE}, 1};
  else if (std::strcmp(name, "numa_domains") == 0)
    kind = {{HWLOC_OBJ_NUMANODE}, 1};
  else if (std::strcmp(name, "ll_caches") == 0)
    kind = {{HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_PACKAGE}, 3};
  else
    return false;
  return true;
}

void add_object(hwloc_const_cpuset_t processors, decltype(hwloc_bitmap_isset)* is_set,
                const cpu_set_t& usable) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (unsigned i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &usable) != 0 && is_set(processors, i) != 0) CPU_SET(i, &set);
  }
  if (CPU_COUNT(&set) != 0) add_place(set);
}

}  // namespace

bool named_places(const char* name, unsigned most, const cpu_set_t& usable) {
  if (std::strcmp(name, "threads") == 0) {
    add_processors_one_by_one(usable, most);
    return true;
  }
  Kind kind{};
  if (!kind_of(name, kind)) return false;
  const Hwloc hwloc;
  decltype(hwloc_topology_init)* init = nullptr;
  decltype(hwloc_topology_load)* load = nullptr;
  decltype(hwloc_topology_destroy)* destroy = nullptr;
  decltype(hwloc_get_type_depth)* depth_of = nullptr;
  decltype(hwloc_get_nbobjs_by_depth)* count_at = nullptr;
  decltype(hwloc_get_obj_by_depth)* object_at = nullptr;
  decltype(hwloc_bitmap_isset)* is_set = nullptr;
  hwloc_topology_t topology = nullptr;
  if (!hwloc.find(init, "hwloc_topology_init") || !hwloc.find(load, "hwloc_topology_load") ||
      !hwloc.find(destroy, "hwloc_topology_destroy") ||
      !hwloc.find(depth_of, "hwloc_get_type_depth") ||
      !hwloc.find(count_at, "hwloc_get_nbobjs_by_depth") ||
      !hwloc.find(object_at, "hwloc_get_obj_by_depth") ||
      !hwloc.find(is_set, "hwloc_bitmap_isset") || init(&topology) != 0) {
    complain("OMP_PLACES=%s needs libhwloc.so.15, which is not here; a place for each processor",
             name);
    add_processors_one_by_one(usable, most);
    return true;
  }
  if (load(topology) == 0) {
    for (unsigned i = 0; i < kind.count && places.count == 0; ++i) {
      const int depth = depth_of(topology, kind.types[i]);
      if (depth == HWLOC_TYPE_DEPTH_UNKNOWN || depth == HWLOC_TYPE_DEPTH_MULTIPLE) continue;
      const unsigned count = count_at(topology, depth);
      for (unsigned j = 0; j < count && places.count < most; ++j)
        add_object(object_at(topology, depth, j)->cpuset, is_set, usable);
    }
  }
  destroy(topology);
  if (places.count == 0) add_processors_one_by_one(usable, most);
  return true;
}

}  // namespace krg::omp
