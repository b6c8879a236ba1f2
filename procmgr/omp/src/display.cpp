// What OMP_DISPLAY_ENV, OMP_DISPLAY_AFFINITY and their functions print.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "places.h"
#include "team.h"

namespace krg::omp {
namespace {

// A text that may not fit: counts all, writes what fits.
class Text {
 public:
  Text(char* to, std::size_t room) : to_(to), room_(room) {}
  void add(char c) {
    if (length_ + 1 < room_) to_[length_] = c;
    ++length_;
  }
  void add(const char* text) {
    for (; *text != '\0'; ++text) add(*text);
  }
  std::size_t end() {
    if (room_ != 0) to_[length_ < room_ ? length_ : room_ - 1] = '\0';
    return length_;
  }

 private:
  char* to_;
  std::size_t room_;
  std::size_t length_ = 0;
};

struct Field {
  bool zeros = false;
  bool right = false;
  unsigned width = 0;
};

void add_field(Text& text, const Field& field, const char* value) {
  const auto length = unsigned(std::strlen(value));
  const unsigned padding = field.width > length ? field.width - length : 0;
  if (field.right) {
    for (unsigned i = 0; i < padding; ++i) text.add(field.zeros ? '0' : ' ');
  }
  text.add(value);
  if (!field.right) {
    for (unsigned i = 0; i < padding; ++i) text.add(' ');
  }
}

void add_processors(Text& text, const Field& field, const Thread& thread) {
  cpu_set_t now;
  CPU_ZERO(&now);
  if (thread.place != 0) {
    now = places.sets[thread.place - 1];
  } else {
    sched_getaffinity(0, sizeof now, &now);
  }
  char value[4096];
  print_processors(now, value, sizeof value);
  add_field(text, field, value);
}

unsigned ancestor(const Thread& thread) {
  const Team& team = *thread.at.team;
  return team.level == 0 ? ~0U : team.outer.number;
}

// One field of the format, by its short name.
bool add_value(Text& text, const Field& field, char name, const Thread& thread) {
  char value[64];
  const Team& team = *thread.at.team;
  const auto add_number = [&](long number) {
    std::snprintf(value, sizeof value, "%ld", number);
    add_field(text, field, value);
    return true;
  };
  switch (name) {
    case 't':
      return add_number(long(team.team_number));
    case 'T':
      return add_number(long(team.teams));
    case 'L':
      return add_number(long(team.level));
    case 'n':
      return add_number(long(thread.at.number));
    case 'N':
      return add_number(long(team.size));
    case 'a':
      return add_number(long(int(ancestor(thread))));
    case 'P':
      return add_number(long(getpid()));
    case 'i':
      std::snprintf(value, sizeof value, "0x%lx", static_cast<unsigned long>(pthread_self()));
      add_field(text, field, value);
      return true;
    case 'H':
      if (gethostname(value, sizeof value) != 0) value[0] = '\0';
      value[sizeof value - 1] = '\0';
      add_field(text, field, value);
      return true;
    case 'A':
      add_processors(text, field, thread);
      return true;
    default:
      return false;
  }
}

char short_name(const char* name, std::size_t length) {
  static constexpr struct {
    const char* name;
    char letter;
  } kNames[] = {{"team_num", 't'},       {"num_teams", 'T'},   {"nesting_level", 'L'},
                {"thread_num", 'n'},     {"num_threads", 'N'}, {"ancestor_tnum", 'a'},
                {"host", 'H'},           {"process_id", 'P'},  {"native_thread_id", 'i'},
                {"thread_affinity", 'A'}};
  for (const auto& one : kNames) {
    if (std::strlen(one.name) == length && std::memcmp(one.name, name, length) == 0)
      return one.letter;
  }
  return '\0';
}

// Runs of processors as "first-last", or as "first:count".
std::size_t print_set(const cpu_set_t& set, char* to, std::size_t room, char between) {
  Text text(to, room);
  bool some = false;
  for (unsigned first = 0; first < CPU_SETSIZE; ++first) {
    if (CPU_ISSET(first, &set) == 0) continue;
    unsigned last = first;
    while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set) != 0) ++last;
    char part[32];
    std::snprintf(part, sizeof part, "%s%u", some ? "," : "", first);
    text.add(part);
    if (last != first) {
      std::snprintf(part, sizeof part, "%c%u", between, between == '-' ? last : last - first + 1);
      text.add(part);
    }
    some = true;
    first = last;
  }
  return text.end();
}

void print_truth(const char* name, bool value) {
  std::fprintf(stderr, "  %s = '%s'\n", name, value ? "TRUE" : "FALSE");
}
void print_number(const char* name, unsigned long value) {
  std::fprintf(stderr, "  %s = '%lu'\n", name, value);
}

const char* name_of(Bind bind) {
  static constexpr const char* kNames[] = {"FALSE", "TRUE", "PRIMARY", "CLOSE", "SPREAD"};
  return kNames[unsigned(bind)];
}

void print_schedule(const Icvs& icvs) {
  static constexpr const char* kNames[] = {"", "STATIC", "DYNAMIC", "GUIDED", "AUTO"};
  const bool monotonic = (icvs.schedule & kMonotonic) != 0;
  const auto kind = Schedule(icvs.schedule & ~kMonotonic);
  const char* modifier = "";
  if (kind == Schedule::fixed && !monotonic) modifier = "NONMONOTONIC:";
  if (kind != Schedule::fixed && monotonic) modifier = "MONOTONIC:";
  std::fprintf(stderr, "  OMP_SCHEDULE = '%s%s", modifier, kNames[unsigned(kind)]);
  const bool plain = kind == Schedule::automatic || icvs.chunk == (kind == Schedule::fixed ? 0 : 1);
  if (!plain) std::fprintf(stderr, ",%d", icvs.chunk);
  std::fputs("'\n", stderr);
}

void print_lists() {
  std::fprintf(stderr, "  OMP_NUM_THREADS = '%u", settings.initial.threads);
  for (unsigned i = 1; i < settings.thread_levels; ++i)
    std::fprintf(stderr, ",%u", settings.threads_at[i]);
  std::fputs("'\n", stderr);
  print_schedule(settings.initial);
  std::fprintf(stderr, "  OMP_PROC_BIND = '%s", name_of(settings.initial.bind));
  for (unsigned i = 1; i < settings.bind_levels; ++i)
    std::fprintf(stderr, ",%s", name_of(settings.bind_at[i]));
  std::fputs("'\n  OMP_PLACES = '", stderr);
  for (unsigned i = 0; i < places.count; ++i) {
    char text[1024];
    print_set(places.sets[i], text, sizeof text, ':');
    std::fprintf(stderr, "%s{%s}", i == 0 ? "" : ",", text);
  }
  std::fputs("'\n", stderr);
}

}  // namespace

std::size_t print_processors(const cpu_set_t& set, char* to, std::size_t room) {
  return print_set(set, to, room, '-');
}

std::size_t print_affinity(Thread& thread, const char* format, char* to, std::size_t room) {
  Text text(to, room);
  for (const char* at = format; *at != '\0'; ++at) {
    if (*at != '%') {
      text.add(*at);
      continue;
    }
    ++at;
    if (*at == '%') {
      text.add('%');
      continue;
    }
    Field field;
    if (*at == '0') {
      field.zeros = true;
      ++at;
    }
    if (*at == '.') {
      field.right = true;
      ++at;
    }
    for (; *at >= '0' && *at <= '9'; ++at) field.width = field.width * 10 + unsigned(*at - '0');
    char name = *at;
    if (*at == '{') {
      const char* end = std::strchr(at, '}');
      if (end == nullptr) fatal("unterminated field in affinity format");
      name = short_name(at + 1, std::size_t(end - at - 1));
      at = end;
    }
    if (!add_value(text, field, name, thread)) fatal("unsupported field in affinity format");
  }
  return text.end();
}

void display_affinity(Thread& thread, const char* format) {
  char text[8192];
  print_affinity(thread, format == nullptr || *format == '\0' ? settings.affinity_format : format,
                 text, sizeof text);
  std::fprintf(stderr, "%s\n", text);
}

void show_member(Thread& thread) {
  const Team& team = *thread.at.team;
  if (thread.shown == &team && thread.shown_size == team.size && thread.shown_place == thread.place)
    return;
  thread.shown = &team;
  thread.shown_size = team.size;
  thread.shown_place = thread.place;
  display_affinity(thread, nullptr);
}

void display_environment(bool verbose) {
  static constexpr const char* kPolicies[] = {"PASSIVE", "ACTIVE", "PASSIVE"};
  static constexpr const char* kOffloads[] = {"DEFAULT", "MANDATORY", "DISABLED"};
  const Icvs& icvs = settings.initial;
  std::fputs("\nOPENMP DISPLAY ENVIRONMENT BEGIN\n  _OPENMP = '201511'\n", stderr);
  print_truth("OMP_DYNAMIC", icvs.dynamic);
  print_truth("OMP_NESTED", icvs.max_active_levels > 1);
  print_lists();
  print_number("OMP_STACKSIZE", settings.stack_bytes);
  std::fprintf(stderr, "  OMP_WAIT_POLICY = '%s'\n", kPolicies[unsigned(settings.wait_policy)]);
  print_number("OMP_THREAD_LIMIT", icvs.thread_limit);
  print_number("OMP_MAX_ACTIVE_LEVELS", icvs.max_active_levels);
  print_number("OMP_NUM_TEAMS", settings.teams);
  print_number("OMP_TEAMS_THREAD_LIMIT", settings.teams_thread_limit);
  print_truth("OMP_CANCELLATION", settings.cancellation);
  print_number("OMP_DEFAULT_DEVICE", unsigned(icvs.default_device));
  print_number("OMP_MAX_TASK_PRIORITY", unsigned(settings.max_task_priority));
  print_truth("OMP_DISPLAY_AFFINITY", settings.display_affinity);
  std::fprintf(stderr, "  OMP_AFFINITY_FORMAT = '%s'\n", settings.affinity_format);
  std::fprintf(stderr, "  OMP_ALLOCATOR = '%s'\n", allocator_name(settings.default_allocator));
  std::fprintf(stderr, "  OMP_TARGET_OFFLOAD = '%s'\n", kOffloads[unsigned(settings.offload)]);
  if (verbose)
    std::fprintf(stderr, "  KRG_SPIN_NS = '%lu'\n",
                 static_cast<unsigned long>(spinning.default_ns));
  std::fputs("OPENMP DISPLAY ENVIRONMENT END\n", stderr);
}

}  // namespace krg::omp
