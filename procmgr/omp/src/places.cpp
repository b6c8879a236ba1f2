// SPDX-License-Identifier: GPL-2.0-or-later
#include "places.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>

#include "memory.h"
#include "team.h"

namespace krg::omp {

PlaceList places;

namespace {

constexpr unsigned kMostPlaces = 4096;

// OMP_PLACES as a list:  list = entry {"," entry}, entry = place [":" count [":" stride]] | "!"
// place, place = "{" part {"," part} "}" | number, part = number [":" count [":" stride]] | "!"
// number.
class PlaceText {
 public:
  explicit PlaceText(const char* text) : at_(text) {}

  bool list() {
    do {
      if (!entry()) return false;
    } while (symbol(','));
    return *at_ == '\0';
  }

 private:
  bool symbol(char wanted) {
    while (std::isspace(static_cast<unsigned char>(*at_)) != 0) ++at_;
    if (*at_ != wanted) return false;
    ++at_;
    while (std::isspace(static_cast<unsigned char>(*at_)) != 0) ++at_;
    return true;
  }
  bool number(long& value) {
    while (std::isspace(static_cast<unsigned char>(*at_)) != 0) ++at_;
    char* end = nullptr;
    value = std::strtol(at_, &end, 10);
    if (end == at_) return false;
    at_ = end;
    while (std::isspace(static_cast<unsigned char>(*at_)) != 0) ++at_;
    return true;
  }
  bool counted(long& count, long& stride) {
    count = 1;
    stride = 1;
    if (!symbol(':')) return true;
    if (!number(count) || count < 1) return false;
    return !symbol(':') || number(stride);
  }
  bool part(cpu_set_t& set) {
    long first = 0, count = 1, stride = 1;
    const bool out = symbol('!');
    if (!number(first) || first < 0 || (!out && !counted(count, stride))) return false;
    for (long i = 0; i < count; ++i) {
      const long processor = first + i * stride;
      if (processor < 0 || processor >= CPU_SETSIZE) continue;
      if (out) {
        CPU_CLR(std::size_t(processor), &set);
      } else {
        CPU_SET(std::size_t(processor), &set);
      }
    }
    return true;
  }
  bool place(cpu_set_t& set) {
    CPU_ZERO(&set);
    if (!symbol('{')) {
      long processor = 0;
      if (!number(processor) || processor < 0 || processor >= CPU_SETSIZE) return false;
      CPU_SET(std::size_t(processor), &set);
      return true;
    }
    do {
      if (!part(set)) return false;
    } while (symbol(','));
    return symbol('}');
  }
  bool entry() {
    cpu_set_t set;
    if (symbol('!')) {
      if (!place(set)) return false;
      remove(set);
      return true;
    }
    long count = 1, stride = 1;
    if (!place(set) || !counted(count, stride)) return false;
    for (long i = 0; i < count; ++i) {
      cpu_set_t moved;
      CPU_ZERO(&moved);
      for (long processor = 0; processor < CPU_SETSIZE; ++processor) {
        const long to = processor + i * stride;
        if (CPU_ISSET(std::size_t(processor), &set) && to >= 0 && to < CPU_SETSIZE)
          CPU_SET(std::size_t(to), &moved);
      }
      add_place(moved);
    }
    return true;
  }
  static void remove(const cpu_set_t& set) {
    cpu_set_t* end =
        std::remove_if(places.sets, places.sets + places.count,
                       [&](const cpu_set_t& one) { return CPU_EQUAL(&one, &set) != 0; });
    places.count = unsigned(end - places.sets);
  }

  const char* at_;
};

// Leaves out what this process may not use, and places that are empty then.
void keep_usable(const cpu_set_t& usable) {
  unsigned kept = 0;
  for (unsigned i = 0; i < places.count; ++i) {
    cpu_set_t set;
    CPU_AND(&set, &places.sets[i], &usable);
    if (CPU_COUNT(&set) != 0) places.sets[kept++] = set;
  }
  places.count = kept;
}

// GOMP_CPU_AFFINITY: "0 3 1-2 4-15:2", one processor a place.
bool read_processors(const char* text) {
  while (*text != '\0') {
    if (std::isspace(static_cast<unsigned char>(*text)) != 0 || *text == ',') {
      ++text;
      continue;
    }
    char* end = nullptr;
    const unsigned long first = std::strtoul(text, &end, 10);
    if (end == text) return false;
    unsigned long last = first, stride = 1;
    if (*end == '-') last = std::strtoul(end + 1, &end, 10);
    if (*end == ':') stride = std::max(std::strtoul(end + 1, &end, 10), 1UL);
    text = end;
    for (unsigned long i = first; i <= last && i < CPU_SETSIZE; i += stride) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(i, &set);
      add_place(set);
    }
  }
  return places.count != 0;
}

// "cores(4)" and the like, or a list.
bool read_list(const char* text, const cpu_set_t& usable) {
  while (std::isspace(static_cast<unsigned char>(*text)) != 0) ++text;
  if (std::isalpha(static_cast<unsigned char>(*text)) == 0) return PlaceText(text).list();
  char name[32] = {};
  std::size_t length = 0;
  for (; std::isalpha(static_cast<unsigned char>(*text)) != 0 || *text == '_'; ++text) {
    if (length + 1 < sizeof name)
      name[length++] = char(std::tolower(static_cast<unsigned char>(*text)));
  }
  unsigned long most = kMostPlaces;
  while (std::isspace(static_cast<unsigned char>(*text)) != 0) ++text;
  if (*text == '(') {
    char* end = nullptr;
    most = std::strtoul(text + 1, &end, 10);
    if (most == 0 || *end != ')') return false;
  }
  return named_places(name, unsigned(std::min<unsigned long>(most, kMostPlaces)), usable);
}

}  // namespace

void add_place(const cpu_set_t& set) {
  if (places.sets == nullptr)
    places.sets = static_cast<cpu_set_t*>(permanent_memory(kMostPlaces * sizeof(cpu_set_t)));
  if (places.count < kMostPlaces) places.sets[places.count++] = set;
}

void read_places() {
  const char* text = std::getenv("OMP_PLACES");
  const char* processors = std::getenv("GOMP_CPU_AFFINITY");
  const bool said = std::getenv("OMP_PROC_BIND") != nullptr;
  Icvs& icvs = settings.initial;
  if (said ? icvs.bind == Bind::no : text == nullptr && processors == nullptr) return;
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof usable, &usable) != 0) return;
  if (text != nullptr) {
    if (!read_list(text, usable)) {
      complain("Invalid value for environment variable OMP_PLACES");
      places.count = 0;
    }
  } else if (processors != nullptr && !read_processors(processors)) {
    complain("Invalid value for environment variable GOMP_CPU_AFFINITY");
    places.count = 0;
  }
  keep_usable(usable);
  if (places.count == 0 && said) named_places("threads", kMostPlaces, usable);
  if (places.count == 0) {
    icvs.bind = Bind::no;
    return;
  }
  if (!said) icvs.bind = Bind::yes;
  Thread& thread = this_thread();
  thread.at.partition = {0, places.count};
  thread.at.task->icvs.bind = icvs.bind;
  thread.place = 1;
  spinning.bound = true;
  bind_thread(thread);
}

// On several nodes krgd moves a thread to the node that has its processors. One that stays on its
// node although it has none of them is bound to nothing.
void bind_thread(Thread& thread) {
  if (thread.place != 0) sched_setaffinity(0, sizeof(cpu_set_t), &places.sets[thread.place - 1]);
}

void place_members(Thread& master, Team& team, Bind bind) {
  const unsigned size = team.size;
  const Places part =
      master.at.partition.count != 0 ? master.at.partition : Places{0, places.count};
  const unsigned own = master.place != 0 ? master.place - 1 : part.first;
  const unsigned start = own >= part.first && own < part.first + part.count ? own - part.first : 0;
  for (unsigned i = 0; i < size; ++i) {
    Places partition = part;
    unsigned place = 0;
    if (bind == Bind::primary) {
      place = start;
    } else if (bind == Bind::spread && size <= part.count) {
      // The partition is divided; the master's part is the one that begins at its place.
      const unsigned each = part.count / size, longer = part.count % size;
      const unsigned first = i * each + std::min(i, longer);
      place = (start + first) % part.count;
      // A part that would wrap around the end of the list is cut there.
      const unsigned count = std::min(each + (i < longer ? 1 : 0), part.count - place);
      partition = {part.first + place, count};
    } else if (size <= part.count) {
      place = (start + i) % part.count;
    } else {
      // Several members a place, neighbours together.
      const unsigned each = size / part.count, more = size % part.count;
      const unsigned longer = more * (each + 1);
      place = (start + (i < longer ? i / (each + 1) : more + (i - longer) / each)) % part.count;
      if (bind == Bind::spread) partition = {part.first + place, 1};
    }
    put_if_new(team.partitions[i], partition);
    put_if_new(team.bound[i], 1 + part.first + place);
  }
}

void bind_member(Thread& thread, Team& team, unsigned number) {
  thread.at.partition = team.partitions[number];
  const unsigned place = team.bound[number];
  if (place == thread.place) return;
  thread.place = place;
  bind_thread(thread);
}

}  // namespace krg::omp
