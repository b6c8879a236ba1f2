// Reading of the environment.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "settings.h"

#include <sched.h>
#include <strings.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "memory.h"
#include "places.h"
#include "waiting.h"

namespace krg::omp {

Settings settings;

namespace {

constexpr std::uint64_t kSpinNs = 30'000;
constexpr std::uint64_t kActiveSpinNs = 2'000'000;

// What is left of a variable's value to read.
class Words {
 public:
  explicit Words(const char* text) : at_(text) {}
  void skip_blanks() {
    while (std::isspace(static_cast<unsigned char>(*at_)) != 0) ++at_;
  }
  bool done() {
    skip_blanks();
    return *at_ == '\0';
  }
  bool symbol(char wanted) {
    skip_blanks();
    if (*at_ != wanted) return false;
    ++at_;
    return true;
  }
  bool word(const char* wanted) {
    skip_blanks();
    const std::size_t length = std::strlen(wanted);
    if (strncasecmp(at_, wanted, length) != 0) return false;
    const auto next = static_cast<unsigned char>(at_[length]);
    if (std::isalnum(next) != 0 || next == '_') return false;
    at_ += length;
    return true;
  }
  bool number(unsigned long& value) {
    skip_blanks();
    if (*at_ == '-') return false;
    char* end = nullptr;
    errno = 0;
    value = std::strtoul(at_, &end, 10);
    if (end == at_ || errno != 0) return false;
    at_ = end;
    return true;
  }

 private:
  const char* at_;
};

void reject(const char* name) {
  complain("Invalid value for environment variable %s", name);
}

// Reads one variable with `read`, which says whether all was well; does nothing when it is not set.
template <class Read>
void variable(const char* name, const Read& read) {
  const char* text = std::getenv(name);
  if (text == nullptr) return;
  Words words(text);
  if (!read(words) || !words.done()) reject(name);
}

bool truth(Words& words, bool& value) {
  value = words.word("true");
  return value || words.word("false");
}

template <class T>
auto number_of(T& value, unsigned long least, unsigned long most) {
  return [&value, least, most](Words& words) {
    unsigned long read = 0;
    if (!words.number(read) || read < least || read > most) return false;
    value = T(read);
    return true;
  };
}

bool read_schedule(Words& words) {
  unsigned modifier = 0;
  bool said = false;
  if (words.word("monotonic")) {
    modifier = kMonotonic;
    said = true;
    if (!words.symbol(':')) return false;
  } else if (words.word("nonmonotonic")) {
    said = true;
    if (!words.symbol(':')) return false;
  }
  Schedule schedule = Schedule::fixed;
  if (words.word("dynamic")) {
    schedule = Schedule::dynamic;
  } else if (words.word("guided")) {
    schedule = Schedule::guided;
  } else if (words.word("auto")) {
    schedule = Schedule::automatic;
  } else if (words.word("static")) {
    if (!said) modifier = kMonotonic;
  } else {
    return false;
  }
  unsigned long chunk = 0;
  if (words.symbol(',') && (!words.number(chunk) || chunk > INT_MAX)) return false;
  set_schedule(settings.initial, unsigned(schedule) | modifier, int(chunk));
  return true;
}

bool read_threads(Words& words) {
  unsigned long value = 0;
  do {
    if (!words.number(value) || value == 0 || value > UINT_MAX) return false;
    if (settings.thread_levels < kMostLevels)
      settings.threads_at[settings.thread_levels++] = unsigned(value);
  } while (words.symbol(','));
  settings.initial.threads = settings.threads_at[0];
  return true;
}

bool read_bind(Words& words) {
  bool value = false;
  if (truth(words, value)) {
    settings.initial.bind = value ? Bind::yes : Bind::no;
    return true;
  }
  do {
    Bind bind = Bind::no;
    if (words.word("primary") || words.word("master")) bind = Bind::primary;
    if (words.word("close")) bind = Bind::close;
    if (words.word("spread")) bind = Bind::spread;
    if (bind == Bind::no) return false;
    if (settings.bind_levels < kMostLevels) settings.bind_at[settings.bind_levels++] = bind;
  } while (words.symbol(','));
  settings.initial.bind = settings.bind_at[0];
  return true;
}

bool read_stack(Words& words) {
  unsigned long value = 0;
  if (!words.number(value)) return false;
  unsigned shift = 10;
  if (words.word("b")) shift = 0;
  if (words.word("m")) shift = 20;
  if (words.word("g")) shift = 30;
  if (words.word("k")) shift = 10;
  if (value > (SIZE_MAX >> shift)) return false;
  settings.stack_bytes = value << shift;
  return true;
}

bool read_wait_policy(Words& words) {
  if (words.word("active")) settings.wait_policy = WaitPolicy::active;
  if (words.word("passive")) settings.wait_policy = WaitPolicy::passive;
  return settings.wait_policy != WaitPolicy::unsaid;
}

bool read_offload(Words& words) {
  if (words.word("mandatory")) {
    settings.offload = Offload::mandatory;
  } else if (words.word("disabled")) {
    settings.offload = Offload::disabled;
  } else {
    return words.word("default");
  }
  return true;
}

bool read_allocator(Words& words) {
  for (std::size_t i = 1; i <= kAllocators; ++i) {
    if (!words.word(allocator_name(i))) continue;
    settings.default_allocator = i;
    return true;
  }
  return number_of(settings.default_allocator, 1, kAllocators)(words);
}

// Levels that may be active: what is said, else many when nesting or lists for nested levels are
// asked for.
void read_levels() {
  bool nested = settings.thread_levels > 1 || settings.bind_levels > 1;
  variable("OMP_NESTED", [&](Words& words) { return truth(words, nested); });
  settings.initial.max_active_levels = nested ? kSupportedActiveLevels : 1;
  variable("OMP_MAX_ACTIVE_LEVELS", [](Words& words) {
    unsigned long value = 0;
    if (!words.number(value)) return false;
    settings.initial.max_active_levels =
        static_cast<unsigned char>(std::min<unsigned long>(value, kSupportedActiveLevels));
    return true;
  });
}

void read_limits() {
  variable("OMP_THREAD_LIMIT", number_of(settings.initial.thread_limit, 1, UINT_MAX));
  variable("OMP_DYNAMIC", [](Words& words) { return truth(words, settings.initial.dynamic); });
  variable("OMP_SCHEDULE", read_schedule);
  variable("OMP_STACKSIZE", read_stack);
  if (settings.stack_bytes == 0) variable("GOMP_STACKSIZE", read_stack);
  variable("OMP_CANCELLATION", [](Words& words) { return truth(words, settings.cancellation); });
  variable("OMP_MAX_TASK_PRIORITY", number_of(settings.max_task_priority, 0, INT_MAX));
  variable("OMP_NUM_TEAMS", number_of(settings.teams, 1, INT_MAX));
  variable("OMP_TEAMS_THREAD_LIMIT", number_of(settings.teams_thread_limit, 1, INT_MAX));
  variable("OMP_DEFAULT_DEVICE", number_of(settings.initial.default_device, 0, INT_MAX));
  variable("OMP_TARGET_OFFLOAD", read_offload);
  variable("OMP_ALLOCATOR", read_allocator);
}

void read_spinning() {
  variable("OMP_WAIT_POLICY", read_wait_policy);
  spinning.processors = usable_processors();
  if (settings.wait_policy == WaitPolicy::active) spinning.default_ns = kActiveSpinNs;
  if (settings.wait_policy == WaitPolicy::unsaid) spinning.default_ns = kSpinNs;
}

}  // namespace

const char* allocator_name(std::size_t allocator) {
  static constexpr const char* kNames[kAllocators] = {
      "omp_default_mem_alloc", "omp_large_cap_mem_alloc", "omp_const_mem_alloc",
      "omp_high_bw_mem_alloc", "omp_low_lat_mem_alloc",   "omp_cgroup_mem_alloc",
      "omp_pteam_mem_alloc",   "omp_thread_mem_alloc"};
  return allocator >= 1 && allocator <= kAllocators ? kNames[allocator - 1] : "";
}

unsigned usable_processors() {
  cpu_set_t processors;
  if (sched_getaffinity(0, sizeof processors, &processors) == 0)
    return unsigned(CPU_COUNT(&processors));
  // More processors than fit into the plain set.
  for (std::size_t count = 2 * CPU_SETSIZE; count <= std::size_t(1) << 20; count *= 2) {
    cpu_set_t* many = CPU_ALLOC(count);
    const std::size_t bytes = CPU_ALLOC_SIZE(count);
    const bool fits = sched_getaffinity(0, bytes, many) == 0;
    const unsigned found = fits ? unsigned(CPU_COUNT_S(bytes, many)) : 0;
    CPU_FREE(many);
    if (fits) return found;
  }
  return 1;
}

Icvs icvs_at_level(const Icvs& parent, unsigned level) {
  Icvs icvs = parent;
  if (level < settings.thread_levels) icvs.threads = settings.threads_at[level];
  if (level < settings.bind_levels) icvs.bind = settings.bind_at[level];
  return icvs;
}

void set_schedule(Icvs& icvs, unsigned schedule, int chunk) {
  const auto kind = Schedule(schedule & ~kMonotonic);
  if (kind < Schedule::fixed || kind > Schedule::automatic) return;
  icvs.schedule = schedule;
  if (kind == Schedule::fixed) icvs.chunk = std::max(chunk, 0);
  if (kind == Schedule::dynamic || kind == Schedule::guided) icvs.chunk = std::max(chunk, 1);
}

void read_environment() {
  settings.initial.threads = usable_processors();
  variable("OMP_NUM_THREADS", read_threads);
  variable("OMP_PROC_BIND", read_bind);
  read_levels();
  read_limits();
  read_spinning();
  variable("OMP_DISPLAY_AFFINITY",
           [](Words& words) { return truth(words, settings.display_affinity); });
  if (const char* format = std::getenv("OMP_AFFINITY_FORMAT"); format != nullptr && *format != '\0')
    std::strncpy(settings.affinity_format, format, sizeof settings.affinity_format - 1);
  read_places();

  bool show = false, verbose = false;
  variable("OMP_DISPLAY_ENV", [&](Words& words) {
    verbose = words.word("verbose");
    return verbose || truth(words, show);
  });
  if (show || verbose) display_environment(verbose);
}

}  // namespace krg::omp
