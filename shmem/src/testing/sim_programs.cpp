// SPDX-License-Identifier: GPL-2.0-or-later
#include "testing/sim_programs.h"

#include <algorithm>
#include <utility>

#include "faulting_instruction.h"
#include "krg/runtime/check.h"

namespace krg {
namespace {

constexpr uint64_t kSpace = 1;

}  // namespace

// --- the threads' side --------------------------------------------------------------------------

std::byte* SimPrograms::touch(unsigned thread, PageIndex page, size_t byte, bool write) {
  Wait& wait = waits_[thread - first_thread_];
  check(!wait.is_waiting, "a thread that waits touches nothing");
  const Entry entry = table_[page.value];
  if (entry == Entry::kWrite || (entry == Entry::kRead && !write))
    return frames_->page(page).data() + byte;
  wait = {true, page};
  const RemoteAddr start{kStart + page.value * kPageBytes};
  faults_.push_back({.at = {kSpace, start},
                     .page = page,
                     .thread = thread,
                     .write = write,
                     .was_mapped = entry == Entry::kRead,
                     .exact = start + byte});
  return nullptr;
}

void SimPrograms::tell_faults() {
  for (const ProgramFault& fault : std::exchange(faults_, {})) take_fault_(fault);
}

void SimPrograms::wake(PageIndex page) {
  for (Wait& wait : waits_)
    if (wait.page == page) wait.is_waiting = false;
}

// --- the page set's side ------------------------------------------------------------------------

uint64_t UserfaultfdGroup::join(std::function<void()>) {
  return 0;
}
void UserfaultfdGroup::leave(uint64_t) {}
void UserfaultfdGroup::read_all() {}
std::shared_ptr<UserfaultfdGroup> make_userfaultfd_group() {
  check(false, "a simulated page set has its programs for a group");
  return nullptr;
}

// The page set asks mapped_in() about the place that it is given here.
constexpr RemoteAddr kIsAtomic{1}, kRuns{2};
StandsAt stands_at(pid_t, const std::function<bool(RemoteAddr)>& may_fault) {
  if (may_fault(kRuns)) return StandsAt::kNothing;
  return may_fault(kIsAtomic) ? StandsAt::kAtomic : StandsAt::kOther;
}

struct ProgramSpaces::Space {
  ReadAhead read_ahead = {};
};

namespace {
SimPrograms& programs_of(const std::shared_ptr<UserfaultfdGroup>& group) {
  return static_cast<SimPrograms&>(*group);
}
}  // namespace

ProgramSpaces::ProgramSpaces(EventLoop& loop, PageFrames& frames,
                             std::shared_ptr<UserfaultfdGroup> group, bool poison_lost_pages,
                             Handlers handlers)
    : loop_(loop),
      frames_(frames),
      group_(std::move(group)),
      poison_lost_pages_(poison_lost_pages),
      handlers_(std::move(handlers)) {
  spaces_.emplace(kSpace, std::make_unique<Space>());
  SimPrograms& programs = programs_of(group_);
  programs.frames_ = &frames;
  programs.take_fault_ = [this](const ProgramFault& fault) {
    faults_.push_back(fault);
    handlers_.faults();
  };
}

ProgramSpaces::~ProgramSpaces() = default;

Status ProgramSpaces::attach(UniqueFd, pid_t, RemoteAddr, PageIndex, size_t) {
  return errno_error("simulated programs are attached", EINVAL);
}
Status ProgramSpaces::extend(pid_t, RemoteAddr, PageIndex, size_t) {
  return errno_error("simulated programs are attached", EINVAL);
}
ProgramSpaces::Space* ProgramSpaces::space_of(pid_t) {
  return spaces_.begin()->second.get();
}
std::vector<PageSet::Pages> ProgramSpaces::mapped_in(RemoteAddr at, size_t) const {
  SimPrograms& programs = programs_of(group_);
  const unsigned one_in = at == kRuns ? programs.runs_one_in : programs.atomic_one_in;
  if (one_in == 0 || programs.random_() % one_in != 0) return {};
  return {{PageIndex{0}, 1}};
}
size_t ProgramSpaces::mapping_count() const {
  return 1;
}
ReadAhead* ProgramSpaces::read_ahead(uint64_t) {
  return &spaces_.begin()->second->read_ahead;
}
std::optional<PageSet::Location> ProgramSpaces::locate(pid_t, RemoteAddr) const {
  return std::nullopt;
}

bool ProgramSpaces::shows(ProgramPage at, PageIndex page) const {
  return SimPrograms::page_at(at.address) == page;
}

bool ProgramSpaces::is_mapped(ProgramPage at) const {
  return programs_of(group_).table_[SimPrograms::page_at(at.address).value] !=
         SimPrograms::Entry::kNone;
}

unsigned ProgramSpaces::run_length(ProgramPage at, int step, unsigned most, bool mapped,
                                   const std::function<bool(PageIndex)>& fits) const {
  const auto& table = programs_of(group_).table_;
  unsigned length = 1;
  for (; length < most; ++length) {
    const int64_t page =
        static_cast<int64_t>(SimPrograms::page_at(at.address).value) + step * int64_t{length};
    if (page < 0 || page >= static_cast<int64_t>(table.size())) break;
    const bool is_mapped = table[static_cast<size_t>(page)] != SimPrograms::Entry::kNone;
    if (is_mapped != mapped || !fits({static_cast<uint64_t>(page)})) break;
  }
  return length;
}

// What is mapped already stays as it is, or may be written then, as UFFDIO_CONTINUE's EEXIST leads
// to.
void ProgramSpaces::map(ProgramPage at, size_t count, bool writable) {
  SimPrograms& programs = programs_of(group_);
  for (uint64_t page = SimPrograms::page_at(at.address).value; count > 0; ++page, --count) {
    programs.meanwhile();
    auto& entry = programs.table_[page];
    if (entry == SimPrograms::Entry::kNone) {
      frames_.allocate({page}, 1);
      entry = SimPrograms::Entry::kRead;
    }
    if (writable) entry = SimPrograms::Entry::kWrite;
    programs.wake({page});
  }
  programs.meanwhile();
}

void ProgramSpaces::allow_writing(ProgramPage at, size_t count) {
  SimPrograms& programs = programs_of(group_);
  for (uint64_t page = SimPrograms::page_at(at.address).value; count > 0; ++page, --count) {
    auto& entry = programs.table_[page];
    if (entry != SimPrograms::Entry::kNone) entry = SimPrograms::Entry::kWrite;
    programs.wake({page});
  }
  programs.meanwhile();
}

void ProgramSpaces::make_lost(ProgramPage) {
  check(false, "no page is lost");
}

void ProgramSpaces::wake(ProgramPage at) {
  programs_of(group_).wake(SimPrograms::page_at(at.address));
}

void ProgramSpaces::protect(PageIndex first, size_t count) {
  SimPrograms& programs = programs_of(group_);
  programs.meanwhile();
  for (uint64_t page = first.value; page < first.value + count; ++page)
    if (auto& entry = programs.table_[page]; entry == SimPrograms::Entry::kWrite)
      entry = SimPrograms::Entry::kRead;
  programs.meanwhile();
}

// The punch has taken the pages out of the table before: nobody has run since.
void ProgramSpaces::forget(PageIndex first, size_t count) {
  SimPrograms& programs = programs_of(group_);
  for (uint64_t page = first.value; page < first.value + count; ++page)
    programs.table_[page] = SimPrograms::Entry::kNone;
  programs.meanwhile();
}

}  // namespace krg
