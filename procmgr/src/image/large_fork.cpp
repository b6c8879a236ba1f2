// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/large_fork.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <utility>

#include "call_registers.h"
#include "image/content_ranges.h"
#include "image/traced_tasks.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "krg/runtime/log.h"
#include "process_spec.h"
#include "process_status.h"

namespace krg {
namespace {

// Below that the calls that leave memory out, and the second copy, take as long as they save.
constexpr uint64_t kLeastResident = 96u << 20;
// Smaller parts are not left out, nor any if they have less than that in small pages together.
constexpr uint64_t kLeastPart = 16u << 20, kLeastGain = 64u << 20;
// What the child itself needs, or the kernel for it, is near these addresses of it.
constexpr uint64_t kKeptAround = 256u << 10;
// A huge page is not divided.
constexpr uint64_t kPage = 4096, kHugePage = 2u << 20;
// ERESTARTNOINTR of the kernel's errno.h: the call is made again, whatever signals there are.
constexpr int64_t kMakeCallAgain = 513;
constexpr uint64_t kAllSignals = ~0ULL;
constexpr long kCloneOptions = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;

// Where the kernel writes when the thread comes back to user space; 0: nowhere (rseq(2)).
uint64_t restartable_sequences(pid_t tid) {
  struct Configuration {  // struct ptrace_rseq_configuration
    uint64_t pointer;
    uint32_t size, signature, flags, padding;
  } configuration{};
  constexpr auto kGetConfiguration = static_cast<__ptrace_request>(0x420f);
  const long got = ptrace(kGetConfiguration, tid, sizeof configuration, &configuration);
  return got > 0 ? configuration.pointer : 0;
}

Error unsuitable(const char* why) {
  return errno_error(why, ENOTSUP);
}

// Whether these, which are in order, have all of that between them.
bool cover(const std::vector<LargeFork::Part>& all, uint64_t at, uint64_t end) {
  auto one = std::ranges::upper_bound(all, at, {}, &LargeFork::Part::end);
  for (; at < end; ++one) {
    if (one == all.end() || one->start > at) return false;
    at = one->end;
  }
  return true;
}

}  // namespace

// The arguments of a fork(2) or clone(2); those of a fork are not looked at by the kernel.
struct LargeFork::Arguments {
  uint64_t flags = 0, parent_tid = 0, child_tid = 0;
  explicit Arguments(const user_regs_struct& r) {
    if (r.orig_rax != SYS_clone) return;
    flags = r.rdi & ~uint64_t{CSIGNAL};
    parent_tid = r.rdx;
    child_tid = r.r10;
  }
};

// The forker on its way from the call that it waits in to a stop.
class LargeFork::Stopping : public std::enable_shared_from_this<Stopping> {
 public:
  Stopping(ChildReaper& reaper, pid_t caller, std::function<MappingTexts&()> known, Made made)
      : reaper_(reaper), caller_(caller), known_(std::move(known)), made_(std::move(made)) {}

  Status begin(SyscallBroker::Call& call) {
    log_trace("image", "process {}: asks for a large fork", caller_);
    return stop_caller(reaper_, call, [self = shared_from_this()](const ChildEvent& event) {
      self->on_event(event);
    });
  }

 private:
  void on_event(const ChildEvent& event) {
    const auto self = shared_from_this();
    if (event.is_end()) return made_(errno_error("the process died", ESRCH));
    const TraceStop stop = TraceStop::from(event.status);
    if (stop.kind == TraceStop::Kind::kTrap) return on_stop(stop);
    if (stop.kind == TraceStop::Kind::kSignal) held_signal_ = stop.signal;
    ptrace(PTRACE_CONT, caller_, nullptr, nullptr);  // to the stop that it was asked for
  }

  void on_stop(const TraceStop& stop) {
    reaper_.unwatch_tracee(caller_);
    auto thread = FrozenThread::stopped(caller_, stop.signal);
    if (!thread) return made_(thread.error());
    std::shared_ptr<LargeFork> fork(
        new LargeFork(reaper_, FrozenProcess::adopt(reaper_, std::move(*thread)), held_signal_));
    if (auto child = fork->make_child(known_()); !child) {
      made_(child.error());
      return fork->call_again();
    }
    made_(std::move(fork));
  }

  ChildReaper& reaper_;
  const pid_t caller_;
  std::function<MappingTexts&()> known_;
  Made made_;
  int held_signal_ = 0;
};

bool LargeFork::is_worth_it(pid_t forker) {
  auto text = read_proc_text(forker, "statm");
  unsigned long mapped = 0, resident = 0, files = 0;
  if (!text || std::sscanf(text->c_str(), "%lu %lu %lu", &mapped, &resident, &files) != 3)
    return false;
  if (resident < files + kLeastResident / kPage) return false;
  auto stat = stat_fields(forker);
  return stat && stat_number<unsigned>(*stat, 20) == 1;  // threads
}

Status LargeFork::begin(ChildReaper& reaper, SyscallBroker::Call& fork,
                        std::function<MappingTexts&()> known, Made made) {
  const bool has_own_stack = fork.number() == SYS_clone && fork.arg(1) != 0;
  const bool has_own_variables =
      fork.number() == SYS_clone && (fork.arg(0) & uint64_t{CLONE_SETTLS}) != 0;
  if (has_own_stack || has_own_variables) return unsuitable("not like a fork");
  return std::make_shared<Stopping>(reaper, fork.tid(), std::move(known), std::move(made))
      ->begin(fork);
}

LargeFork::~LargeFork() {
  if (held_signal_ != 0 && forker_->is_alive()) kill(forker_->pid(), held_signal_);
}

// ---- the child ----

Status LargeFork::make_child(MappingTexts& known) {
  const pid_t pid = forker_->pid();
  auto memory = read_image_memory(pid, known);
  if (!memory) return memory.error();
  memory_ = std::move(*memory);
  log_trace("image", "process {}: stands at a large fork", pid);
  auto pages = content_ranges(pid);
  if (!pages) return pages.error();
  pages_ = std::move(*pages);
  log_trace("image", "process {}: its pages are found", pid);
  if (auto found = find_withheld(); !found) return found;
  Status made = withhold();
  log_trace("image", "process {}: withheld", pid);
  if (made) made = clone_child();
  log_trace("image", "process {}: cloned", pid);
  if (auto given = give_back(); !given && forker_->is_alive()) {
    log_error("fork", "process {} is killed, its later children would lack memory: {}", pid,
              given.error().message());
    forker_->kill();
    return given;
  }
  return made ? compare_child() : made;
}

// Strictly within their mappings, which so are cut, unless they are kept from children already; and
// behind a page with content, which tells whether the mapping is wiped in children.
Status LargeFork::find_withheld() {
  constexpr uint32_t kNotAllCopied = ImageMapping::kDontFork | ImageMapping::kWipeOnFork;
  const user_regs_struct& r = forker_->main().registers();
  const Arguments arguments(r);
  std::vector<uint64_t> needed{r.rsp,
                               r.fs_base,
                               r.gs_base,
                               arguments.child_tid,
                               arguments.parent_tid,
                               restartable_sequences(forker_->pid())};
  std::sort(needed.begin(), needed.end());
  auto page = pages_.begin();
  for (const ImageMapping& m : memory_.mappings) {
    if ((m.advice & kNotAllCopied) != 0) return unsuitable("memory that forks do not copy");
    const bool is_stack = (m.advice & ImageMapping::kGrowsDown) != 0;
    if (m.kind != ImageMapping::Kind::kAnonymous || is_stack || m.bytes < kLeastPart) continue;
    while (page != pages_.end() && page->end().value <= m.start.value) ++page;
    if (page == pages_.end() || page->start.value >= m.end().value) continue;
    uint64_t at = page->start.value + kPage;
    const auto withhold = [&](uint64_t end) {
      const uint64_t start = (at + kHugePage - 1) / kHugePage * kHugePage;
      end = end / kHugePage * kHugePage;
      if (end >= start + kLeastPart) withheld_.push_back({start, end});
    };
    for (uint64_t address : needed) {
      if (address + kKeptAround <= at || address >= m.end().value + kKeptAround) continue;
      if (address > at + kKeptAround) withhold(address - kKeptAround);
      at = std::max(at, address + kKeptAround);
    }
    if (at < m.end().value) withhold(m.end().value);
  }
  return is_gain() ? Status() : unsuitable("no large memory in small pages");
}

bool LargeFork::is_gain() const {
  uint64_t bytes = 0;
  for (const PageRange& range : pages_) {
    if (range.is_huge != 0) continue;
    static_cast<void>(for_each_piece({range.start.value, range.end().value},
                                     [&](const Part& piece, bool is_withheld) -> Status {
                                       if (is_withheld) bytes += piece.end - piece.start;
                                       return {};
                                     }));
  }
  return bytes >= kLeastGain;
}

Status LargeFork::withhold() {
  Status done;
  size_t count = 0;
  while (done && count < withheld_.size()) done = advise(withheld_[count++], MADV_DONTFORK);
  if (!done) withheld_.resize(count - 1);
  auto maps = MappingTexts::read_maps(forker_->pid());
  if (!maps) {
    forker_->kill();  // what is its own advice is not known any more
    return maps.error();
  }
  // One that begins no mapping now lies in one that the process itself keeps from its children.
  const size_t own = std::erase_if(withheld_, [&](const Part& part) {
    return std::ranges::none_of(maps->all(),
                                [&](const MappingText& m) { return m.start == part.start; });
  });
  return done && own != 0 ? unsuitable("memory that it keeps from its children") : done;
}

Status LargeFork::advise(const Part& part, int advice) {
  const int64_t done = forker_->call(
      SYS_madvise, {part.start, part.end - part.start, static_cast<uint64_t>(advice)});
  if (done == 0) return {};
  return errno_error("memory left out of a fork", static_cast<int>(-done));
}

// All that can be.
Status LargeFork::give_back() {
  Status done;
  for (const Part& part : withheld_)
    if (Status given = advise(part, MADV_DOFORK); !given && done) done = std::move(given);
  return done;
}

Status LargeFork::clone_child() {
  auto at = forker_->instruction();
  if (!at) return at.error();
  user_regs_struct registers = forker_->main().registers();
  const Arguments arguments(registers);
  pid_t made = 0;
  const int64_t cloned = forker_->main().call_clone(
      *at, SYS_clone, {arguments.flags | SIGCHLD, 0, arguments.parent_tid, arguments.child_tid, 0},
      made);
  if (made == 0) return errno_error("fork", static_cast<int>(cloned < 0 ? -cloned : ESRCH));
  auto thread = FrozenThread::stopped(made);
  if (!thread) {  // it has been killed
    forker_->call(SYS_wait4, {static_cast<uint64_t>(made), 0, __WALL, 0});
    return thread.error();
  }
  registers.rax = 0;
  thread->set_registers(registers);
  thread->set_signal_mask(forker_->main().signal_mask());
  child_ = FrozenProcess::adopt(reaper_, std::move(*thread), *at);
  take_words(arguments);
  registers.rax = static_cast<uint64_t>(made);
  forker_->main().set_registers(registers);
  return {};
}

// The child has them otherwise than the forker, and one in a page that nothing had touched.
void LargeFork::take_words(const Arguments& arguments) {
  const auto take = [&](uint64_t flag, uint64_t at) {
    if ((arguments.flags & flag) == 0) return;
    if (auto value = child_->read_value<uint32_t>(RemoteAddr{at})) words_.push_back({at, *value});
  };
  take(CLONE_PARENT_SETTID, arguments.parent_tid);
  take(CLONE_CHILD_SETTID, arguments.child_tid);
}

// What the child has besides what was left out is what the forker has: each mapping, and a page
// with content where that has one.
Status LargeFork::compare_child() {
  auto maps = MappingTexts::read_maps(child_->pid());
  if (!maps) return maps.error();
  auto pages = content_ranges(child_->pid());
  if (!pages) return pages.error();
  std::vector<Part> mapped, filled;
  for (const MappingText& m : maps->all()) mapped.push_back({m.start, m.end});
  for (const PageRange& range : *pages) filled.push_back({range.start.value, range.end().value});
  const auto is_in = [](const std::vector<Part>& all) -> PieceUse {
    return [&all](const Part& piece, bool is_withheld) -> Status {
      if (is_withheld || cover(all, piece.start, piece.end)) return {};
      return unsuitable("memory that it keeps from its children");
    };
  };
  for (const ImageMapping& m : memory_.mappings)
    if (auto has = for_each_piece({m.start.value, m.end().value}, is_in(mapped)); !has) return has;
  for (const PageRange& range : pages_)
    if (auto has = for_each_piece({range.start.value, range.end().value}, is_in(filled)); !has)
      return has;
  for (const Word& word : words_) add_page_of(word, *pages);
  return {};
}

// `of_child`: its pages.
void LargeFork::add_page_of(const Word& word, const std::vector<PageRange>& of_child) {
  const uint64_t page = word.at / kPage * kPage;
  const auto has = [page](const PageRange& range) {
    return range.start.value <= page && page < range.end().value;
  };
  const auto found = std::ranges::find_if(of_child, has);
  if (found == of_child.end() || std::ranges::any_of(pages_, has)) return;
  PageRange added{.start = RemoteAddr{page}, .bytes = kPage};
  added.comes_first = found->comes_first;
  const auto behind = std::ranges::find_if(
      pages_, [page](const PageRange& range) { return range.start.value > page; });
  pages_.insert(behind, added);
}

Status LargeFork::for_each_piece(Part rest, const PieceUse& use) const {
  const auto use_up_to = [&](uint64_t bound, bool is_withheld) -> Status {
    const uint64_t end = std::min(bound, rest.end);
    if (end <= rest.start) return {};
    return use({std::exchange(rest.start, end), end}, is_withheld);
  };
  for (const Part& part : withheld_) {
    if (part.end <= rest.start) continue;
    if (auto used = use_up_to(part.start, false); !used) return used;
    if (auto used = use_up_to(part.end, true); !used) return used;
  }
  return use_up_to(rest.end, false);
}

// What was left out is the forker's.
Status LargeFork::read(RemoteAddr from, std::span<char> to) const {
  return for_each_piece(
      {from.value, from.value + to.size()}, [&](const Part& piece, bool is_withheld) -> Status {
        const FrozenProcess& process = is_withheld ? *forker_ : *child_;
        return process.read(RemoteAddr{piece.start},
                            to.subspan(piece.start - from.value, piece.end - piece.start));
      });
}

// ---- the copy ----

// As FrozenProcess::clone_page_source() makes one, but not waited for.
void LargeFork::copy_memory(std::function<void(Result<pid_t>)> done) {
  auto between = begin_copy();
  if (!between) return done(between.error());
  is_copying_ = true;
  reaper_.watch_tracee(*between, [self = shared_from_this(), between = *between,
                                  done = std::move(done)](const ChildEvent& event) {
    const TraceStop stop = event.is_end() ? TraceStop() : TraceStop::from(event.status);
    const bool is_signal = stop.kind == TraceStop::Kind::kSignal;
    if (is_signal || stop.kind == TraceStop::Kind::kTrap) {
      ptrace(PTRACE_SYSCALL, between, nullptr, nullptr);
      return;
    }
    const auto keeps = self;
    const auto tell = done;
    self->reaper_.unwatch_tracee(between);
    auto source = keeps->end_copy(between, stop);
    keeps->is_copying_ = false;
    tell(std::move(source));
    if (keeps->is_off_) keeps->make_call_again();
  });
}

// The task that makes the copy is on its way then: it stood at the kernel's door.
Result<pid_t> LargeFork::begin_copy() {
  auto at = forker_->instruction();
  if (!at) return at.error();
  pid_t between = 0;
  const int64_t cloned = forker_->main().call_clone(*at, SYS_clone, {CLONE_VM, kNoStack}, between);
  if (cloned < 0 || between == 0) {
    if (between != 0) end_task(between);
    return errno_error("page source", static_cast<int>(cloned < 0 ? -cloned : ESRCH));
  }
  user_regs_struct registers{};
  bool goes = ptrace(PTRACE_GETREGS, between, nullptr, &registers) == 0;
  registers =
      call_registers(registers, at->value, SYS_clone, {0, kNoStack, 0, 0, 0, kUnnotifiedCookie});
  goes = goes && ptrace(PTRACE_SETREGS, between, nullptr, &registers) == 0 &&
         ptrace(PTRACE_SETSIGMASK, between, sizeof kAllSignals, &kAllSignals) == 0 &&
         ptrace(PTRACE_SETOPTIONS, between, nullptr, FrozenThread::kOptions | kCloneOptions) == 0;
  TraceStop stop{.kind = TraceStop::Kind::kTrap};
  while (goes && stop.kind != TraceStop::Kind::kSystemCall) {
    goes = ptrace(PTRACE_SYSCALL, between, nullptr, nullptr) == 0;
    if (goes) stop = TraceStop::wait(between);
    goes = goes && stop.kind != TraceStop::Kind::kGone;
  }
  goes = goes && ptrace(PTRACE_SYSCALL, between, nullptr, nullptr) == 0;
  if (goes) return between;
  drop_between(between);
  return errno_error("page source", ESRCH);
}

Result<pid_t> LargeFork::end_copy(pid_t between, const TraceStop& stop) {
  Result<pid_t> outcome = errno_error("page source", ESRCH);
  if (stop.kind == TraceStop::Kind::kEvent) {
    unsigned long message = 0;
    ptrace(PTRACE_GETEVENTMSG, between, nullptr, &message);
    const auto source = static_cast<pid_t>(message);
    // The reaper may have met it: it is not to be let go after a while.
    reaper_.watch_tracee(source, [](const ChildEvent&) {});
    reaper_.unwatch_tracee(source);
    auto at = forker_->instruction();
    const bool stands = has_first_stop(source) &&
                        ptrace(PTRACE_SETOPTIONS, source, nullptr, FrozenThread::kOptions) == 0;
    if (at && stands && becomes_page_source(source, *at)) {
      copy_words(source);
      outcome = source;
    } else if (source != 0) {
      end_task(source);
    }
  } else if (stop.kind == TraceStop::Kind::kSystemCall) {
    user_regs_struct registers{};
    ptrace(PTRACE_GETREGS, between, nullptr, &registers);
    const auto result = static_cast<int64_t>(registers.rax);
    if (result < 0) outcome = errno_error("page source", static_cast<int>(-result));
  }
  drop_between(between);
  return outcome;
}

void LargeFork::copy_words(pid_t source) const {
  for (const Word& word : words_) {
    uint32_t value = word.child_has;
    const iovec local{&value, sizeof value};
    const iovec remote{reinterpret_cast<void*>(word.at), sizeof value};
    process_vm_writev(source, &local, 1, &remote, 1, 0);  // fails where it has died only
  }
}

void LargeFork::drop_between(pid_t between) {
  end_task(between);
  forker_->call(SYS_wait4, {static_cast<uint64_t>(between), 0, __WALL, 0});
}

// ---- no such child ----

void LargeFork::call_again() {
  is_off_ = true;
  if (!is_copying_) make_call_again();
}

void LargeFork::make_call_again() {
  if (child_) end_child();
  if (!forker_->is_alive()) return;
  user_regs_struct registers = forker_->main().registers();
  registers.rax = static_cast<uint64_t>(-kMakeCallAgain);
  forker_->main().set_registers(registers);
}

// The forker waits for it and takes the signal that tells of its end, unless one waited already.
void LargeFork::end_child() {
  constexpr uint64_t kChildSignal = uint64_t{1} << (SIGCHLD - 1);
  struct Wait {
    uint64_t signals;
    timespec at_most;
  };
  const auto status = StatusText::read(forker_->pid());
  const bool had_signal = !status || (status->number<uint64_t>("ShdPnd", 16) & kChildSignal) != 0;
  const pid_t pid = child_->pid();
  child_->kill();
  child_.reset();
  end_task(pid);
  forker_->call(SYS_wait4, {static_cast<uint64_t>(pid), 0, __WALL, 0});
  if (had_signal) return;
  const auto scratch = forker_->scratch();
  if (!scratch || !forker_->write_value(*scratch, Wait{kChildSignal, {0, 0}})) return;
  forker_->call(SYS_rt_sigtimedwait,
                {scratch->value, 0, scratch->value + offsetof(Wait, at_most), sizeof(uint64_t)});
}

}  // namespace krg
