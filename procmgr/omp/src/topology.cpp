// Places named by what the machine has, as hwloc tells it. The library is only loaded by programs
// that ask for such places, so that no other one has to have it or wait for it.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <dlfcn.h>
#include <hwloc.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "distant.h"
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

// "0-3,8"
void read_numbers(const char* text, cpu_set_t& set) {
  for (char* end = nullptr;; text = end + 1) {
    const unsigned long first = std::strtoul(text, &end, 10);
    if (end == text) return;
    const unsigned long last = *end == '-' ? std::strtoul(end + 1, &end, 10) : first;
    for (unsigned long i = first; i <= last && i < CPU_SETSIZE; ++i) CPU_SET(i, &set);
    if (*end != ',') return;
  }
}

// The objects of the kind that is meant, else (a last-level cache) the largest that there is.
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

// A place of those processors of `set` that are in none yet; takes them from `left`.
void add_rest(const cpu_set_t& set, cpu_set_t& left) {
  cpu_set_t rest;
  CPU_AND(&rest, &set, &left);
  if (CPU_COUNT(&rest) == 0) return;
  add_place(rest);
  CPU_XOR(&left, &left, &rest);
}

bool is_empty(const cpu_set_t& set) {
  return CPU_COUNT(&set) == 0;
}

// What hwloc shows of this machine, or, in a session of several nodes, of all of them: krgd shows
// their processors and caches where Linux shows its own.
class Machine {
 public:
  Machine() {
    decltype(hwloc_topology_init)* init = nullptr;
    decltype(hwloc_topology_load)* load = nullptr;
    decltype(hwloc_topology_set_flags)* set_flags = nullptr;
    const bool has_all = hwloc_.find(init, "hwloc_topology_init") &&
                         hwloc_.find(load, "hwloc_topology_load") &&
                         hwloc_.find(set_flags, "hwloc_topology_set_flags") &&
                         hwloc_.find(destroy_, "hwloc_topology_destroy") &&
                         hwloc_.find(depth_of_, "hwloc_get_type_depth") &&
                         hwloc_.find(count_at_, "hwloc_get_nbobjs_by_depth") &&
                         hwloc_.find(object_at_, "hwloc_get_obj_by_depth") &&
                         hwloc_.find(is_set_, "hwloc_bitmap_isset");
    if (!has_all || init(&topology_) != 0) return;
    // The kernel allows this node's only.
    if (distant::nodes() > 1) set_flags(topology_, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    is_loaded_ = load(topology_) == 0;
  }
  ~Machine() {
    if (topology_ != nullptr) destroy_(topology_);
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  [[nodiscard]] bool is_there() const { return topology_ != nullptr; }

  // Places of the objects of a type, as far as their processors are left.
  void add_objects(hwloc_obj_type_t type, cpu_set_t& left) const {
    if (!is_loaded_) return;
    const int depth = depth_of_(topology_, type);
    if (depth == HWLOC_TYPE_DEPTH_UNKNOWN || depth == HWLOC_TYPE_DEPTH_MULTIPLE) return;
    const unsigned count = count_at_(topology_, depth);
    for (unsigned i = 0; i < count; ++i)
      add_rest(processors_of(object_at_(topology_, depth, i)), left);
  }

 private:
  [[nodiscard]] cpu_set_t processors_of(hwloc_obj_t object) const {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (unsigned i = 0; i < CPU_SETSIZE; ++i)
      if (is_set_(object->cpuset, i) != 0) CPU_SET(i, &set);
    return set;
  }

  const Hwloc hwloc_;
  decltype(hwloc_topology_destroy)* destroy_ = nullptr;
  decltype(hwloc_get_type_depth)* depth_of_ = nullptr;
  decltype(hwloc_get_nbobjs_by_depth)* count_at_ = nullptr;
  decltype(hwloc_get_obj_by_depth)* object_at_ = nullptr;
  decltype(hwloc_bitmap_isset)* is_set_ = nullptr;
  hwloc_topology_t topology_ = nullptr;
  bool is_loaded_ = false;
};

// NUMA nodes of other nodes of a session, which krgd tells with each processor.
void add_distant_domains(cpu_set_t& left) {
  for (unsigned i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &left) == 0) continue;
    char path[80], text[1024];
    std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/numa_cpus_list", i);
    std::FILE* file = std::fopen(path, "re");
    if (file == nullptr) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (std::fgets(text, sizeof text, file) != nullptr) read_numbers(text, set);
    std::fclose(file);
    CPU_SET(i, &set);
    add_rest(set, left);
  }
}

// Node by node, as the processors are numbered.
void sort_places() {
  const auto first = [](const cpu_set_t& set) {
    unsigned i = 0;
    while (i < CPU_SETSIZE && CPU_ISSET(i, &set) == 0) ++i;
    return i;
  };
  std::sort(places.sets, places.sets + places.count,
            [&](const cpu_set_t& a, const cpu_set_t& b) { return first(a) < first(b); });
}

}  // namespace

bool named_places(const char* name, unsigned most, const cpu_set_t& usable) {
  if (std::strcmp(name, "threads") == 0) {
    add_processors_one_by_one(usable, most);
    return true;
  }
  Kind kind{};
  if (!kind_of(name, kind)) return false;
  const Machine machine;
  if (!machine.is_there()) {
    complain("OMP_PLACES=%s needs libhwloc.so.15, which is not here; a place for each processor",
             name);
    add_processors_one_by_one(usable, most);
    return true;
  }
  cpu_set_t left = usable;
  for (unsigned i = 0; i < kind.count && !is_empty(left); ++i) {
    machine.add_objects(kind.types[i], left);
    if (places.count != 0 && distant::nodes() == 1) break;
  }
  if (distant::nodes() > 1) {
    if (kind.types[0] == HWLOC_OBJ_NUMANODE) add_distant_domains(left);
    sort_places();
  }
  if (places.count == 0) add_processors_one_by_one(usable, most);
  places.count = std::min(places.count, most);
  return true;
}

}  // namespace krg::omp
