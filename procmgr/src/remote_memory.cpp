// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/remote_memory.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <fstream>
#include <iterator>
#include <sstream>

#include "clone_call.h"
#include "krg/procmgr/fork_sight.h"
#include "krg/runtime/log.h"
#include "page_set_mapper.h"
#include "process_status.h"
#include "remote_programs.h"
#include "set_memory.h"

namespace krg {
namespace {

constexpr uint64_t kWantedFlags = MAP_PRIVATE | MAP_ANONYMOUS;

bool is_large_private(const SyscallBroker::Call& call) {
  const uint64_t flags = call.arg(3) & 0xffff'ffff;
  return (flags & ~uint64_t{MAP_POPULATE}) == kWantedFlags && call.arg(1) >= kLeastRemoteMapping &&
         (call.arg(2) & PROT_WRITE);
}

// Where the heap begins (proc_pid_stat(5), field 47); 0: not known.
uint64_t start_of_heap(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  const size_t end_of_name = line.rfind(')');
  if (end_of_name == std::string::npos) return 0;
  std::istringstream fields(line.substr(end_of_name + 2));
  std::string word;
  for (int field = 3; field <= 47; ++field)
    if (!(fields >> word)) return 0;
  return std::strtoull(word.c_str(), nullptr, 10);
}

}  // namespace

struct RemoteMemory::Impl {
  using Call = SyscallBroker::Call;
  using CallPtr = std::shared_ptr<Call>;

  Impl(NodeContext& n, Kddm& kddm, const CapabilityTable& c)
      : node(n), capabilities(c), programs(n, kddm) {}

  void take_calls(SyscallBroker& broker, UserfaultSource source);
  bool takes_mmap(Call& call);
  void map(pid_t pid, const CallPtr& call);
  void map_pages(const RemoteProgramPtr& program, const CallPtr& call, PageIndex first);
  void on_brk(Call call);
  void on_mremap(Call call);
  void on_madvise(Call call);
  bool refuses_fork(Call& call);
  bool may_use(pid_t pid) const;

  NodeContext& node;
  const CapabilityTable& capabilities;
  RemotePrograms programs;
  const bool sees_forks = has_to_see_forks();
  std::optional<PageSetMapper> mapper;
};

void RemoteMemory::Impl::take_calls(SyscallBroker& broker, UserfaultSource source) {
  mapper.emplace(node, std::move(source));
  broker.add_memory_guard(
      memory_of_sets([this] { return programs.any(); },
                     [this](pid_t pid, RemoteAddr at) -> std::optional<PlaceInSet> {
                       auto program = programs.find(pid);
                       const auto found = program ? program->pages->locate(pid, at) : std::nullopt;
                       if (!found) return {};
                       return PlaceInSet{program, program->pages.get(),
                                         found->page.value * kPageBytes + found->offset};
                     }));
  broker.set_taker(SYS_mmap, [this](Call& call) { return takes_mmap(call); });
  broker.set_handler(SYS_brk, [this](Call call) { on_brk(std::move(call)); });
  broker.set_handler(SYS_mremap, [this](Call call) { on_mremap(std::move(call)); });
  broker.set_handler(SYS_madvise, [this](Call call) { on_madvise(std::move(call)); });
  for (int number : {SYS_fork, SYS_clone, SYS_clone3})
    broker.set_taker(number, [this](Call& call) { return refuses_fork(call); });
}

bool RemoteMemory::Impl::may_use(pid_t pid) const {
  const auto sets = capabilities.of(pid);
  return sets && sets->effective.has(Capability::kUseRemoteMemory);
}

// --- mappings -----------------------------------------------------------------------------------

// A process under a tracer gets native memory: nobody else may run system calls in it.
bool RemoteMemory::Impl::takes_mmap(Call& call) {
  if (!is_large_private(call)) return false;
  auto process = read_process_status(call.tid());
  auto tracer = read_tracer(call.tid());
  if (!process || !tracer || *tracer != 0 || !may_use(process->pid)) return false;
  if (call.arg(1) < kFirstRemoteMapping && !programs.find(process->pid)) return false;
  map(process->pid, std::make_shared<Call>(std::move(call)));
  return true;
}

void RemoteMemory::Impl::map(pid_t pid, const CallPtr& call) {
  programs.begin_mapping(pid, [this, call](Result<RemoteProgramPtr> program) {
    if (!program) {
      log_warn("memory", "{}", program.error().message());
      return call->fail(ENOMEM);
    }
    const size_t pages = (call->arg(1) + kPageBytes - 1) / kPageBytes;
    programs.allocate(*program, pages, [this, call, program = *program](Result<PageIndex> first) {
      if (first) return map_pages(program, call, *first);
      log_info("memory", "pid {}: {} bytes refused: {}", program->pid, call->arg(1),
               first.error().message());
      call->fail(ENOMEM);
      programs.end_mapping(program);
    });
  });
}

void RemoteMemory::Impl::map_pages(const RemoteProgramPtr& program, const CallPtr& call,
                                   PageIndex first) {
  const PageSet::Pages pages{first, (call->arg(1) + kPageBytes - 1) / kPageBytes};
  UniqueFd memory(fcntl(program->pages->memory(), F_DUPFD_CLOEXEC, 0));
  auto served = std::make_shared<bool>(false);
  mapper->map(std::move(*call),
              {.address = call->arg(0),
               .length = call->arg(1),
               .protection = call->arg(2),
               .offset = first.value * kPageBytes,
               .memory = std::move(memory),
               .stays_with_process = true,
               .is_served = [program](pid_t pid) { return program->pages->is_attached(pid); },
               .attach =
                   [program, pages, served](UniqueFd userfaultfd, pid_t pid, RemoteAddr at) {
                     Status attached =
                         userfaultfd
                             ? program->pages->attach(std::move(userfaultfd), pid, at, pages.first,
                                                      pages.count)
                             : program->pages->attach_beside(pid, at, pages.first, pages.count);
                     *served = attached.has_value();
                     return attached;
                   },
               .done =
                   [this, program, pages, served](int64_t) {
                     // What was served once is freed by its unmapping.
                     if (!*served) programs.free(program, pages);
                     programs.end_mapping(program);
                   }});
}

// --- other calls about memory -------------------------------------------------------------------

// A heap that does not grow has malloc(3) take mappings.
void RemoteMemory::Impl::on_brk(Call call) {
  auto process = read_process_status(call.tid());
  if (!process || !may_use(process->pid)) return call.go_on();
  const uint64_t start = start_of_heap(process->pid);
  if (start == 0 || call.arg(0) <= start + kMostNativeHeap) return call.go_on();
  auto shared = std::make_shared<Call>(std::move(call));
  auto asked = RemoteSyscalls::borrow(
      *node.children, *shared, [](Result<std::shared_ptr<RemoteSyscalls>> borrowed) {
        if (!borrowed) return;
        auto thread = *borrowed;
        thread->run(SYS_brk, {0}, [thread](int64_t end) { thread->set_result(end); });
      });
  if (!asked) shared->go_on();
}

void RemoteMemory::Impl::on_mremap(Call call) {
  auto process = programs.any() ? read_process_status(call.tid()) : errno_error("", ESRCH);
  auto program = process ? programs.find(process->pid) : nullptr;
  const uint64_t old_length = call.arg(1), new_length = call.arg(2);
  if (!program ||
      program->pages->mapped_in(RemoteAddr{call.arg(0)}, std::max<uint64_t>(old_length, 1)).empty())
    return call.go_on();
  if (old_length == 0 || (call.arg(3) & ~uint64_t{MREMAP_MAYMOVE | MREMAP_FIXED}))
    return call.fail(EINVAL);
  const auto pages = [](uint64_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes; };
  if (pages(new_length) > pages(old_length)) return call.fail(ENOMEM);
  call.go_on();
}

void RemoteMemory::Impl::on_madvise(Call call) {
  auto process = programs.any() ? read_process_status(call.tid()) : errno_error("", ESRCH);
  auto program = process ? programs.find(process->pid) : nullptr;
  if (!program) return call.go_on();
  const auto pages = program->pages->mapped_in(RemoteAddr{call.arg(0)}, call.arg(1));
  if (pages.empty()) return call.go_on();
  const auto advice = static_cast<int>(call.arg(2));
  if (advice == MADV_DOFORK) return call.fail(EINVAL);
  auto shared = std::make_shared<Call>(std::move(call));
  programs.clear(program, pages, [shared, advice] {
    // A range may have native parts, too; MADV_FREE is for those only.
    advice == MADV_DONTNEED ? shared->go_on() : shared->succeed(0);
  });
}

bool RemoteMemory::Impl::refuses_fork(Call& call) {
  auto process = programs.any() ? read_process_status(call.tid()) : errno_error("", ESRCH);
  auto program = process ? programs.find(process->pid) : nullptr;
  if (!program && sees_forks && call.number() == SYS_clone3 && !shares_memory(call)) {
    call.fail(ENOSYS);  // the C library makes it by clone(2) then
    return true;
  }
  if (!program || shares_memory(call)) return false;
  log_warn("memory", "pid {} uses memory of other nodes: it cannot fork (posix_spawn, vfork can)",
           process->pid);
  call.fail(ENOMEM);
  return true;
}

// --- the interface ------------------------------------------------------------------------------

Result<std::unique_ptr<RemoteMemory>> RemoteMemory::create(NodeContext& node, Kddm& kddm,
                                                           SyscallBroker& broker,
                                                           const CapabilityTable& capabilities) {
  auto source = UserfaultSource::find();
  if (!source) return source.error();
  auto impl = std::make_unique<Impl>(node, kddm, capabilities);
  impl->take_calls(broker, std::move(*source));
  return std::unique_ptr<RemoteMemory>(new RemoteMemory(std::move(impl)));
}

RemoteMemory::RemoteMemory(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RemoteMemory::~RemoteMemory() = default;

}  // namespace krg
