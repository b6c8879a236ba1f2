// SPDX-License-Identifier: GPL-2.0-or-later
#include "body_spawner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <map>

#include "body_plan.h"
#include "krg/procmgr/fork_sight.h"
#include "krg/runtime/log.h"
#include "krg/runtime/unix_socket.h"
#include "raw_syscall.h"

namespace krg {
namespace {

constexpr size_t kStackBytes = 64u << 10;
constexpr size_t kMaxIdleStacks = 8;
constexpr size_t kMaxFilters = 16;

// The stack on which a body runs until it execs.
class Stack {
 public:
  static Result<Stack> create() {
    void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) return errno_error("stack of a body");
    return Stack(memory);
  }
  Stack(Stack&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
  Stack& operator=(Stack&& other) noexcept {
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~Stack() {
    if (memory_) munmap(memory_, kStackBytes);
  }
  uint64_t lowest() const { return raw_address(memory_); }

 private:
  explicit Stack(void* memory) : memory_(memory) {}
  void* memory_;
};

[[noreturn]] void enter_body(BodyPlan* plan) {
  run_body(*plan);
}

// clone3(2) onto another stack: the child calls enter_body(plan). Returns the child's pid or
// -errno.
int64_t clone_onto(const clone_args& arguments, BodyPlan& plan) {
  register void (*entry)(BodyPlan*) asm("r12") = enter_body;
  register BodyPlan* argument asm("r13") = &plan;
  int64_t result;
  asm volatile(
      "syscall\n"
      "test %%rax, %%rax\n"
      "jnz 1f\n"
      "xor %%ebp, %%ebp\n"
      "mov %%r13, %%rdi\n"
      "call *%%r12\n"  // never returns; the new stack's top is 16-byte aligned
      "1:\n"
      : "=a"(result)
      : "a"(SYS_clone3), "D"(&arguments), "S"(sizeof arguments), "r"(entry), "r"(argument)
      : "rcx", "r11", "memory");
  return result;
}

int64_t clone_body(pid_t pid, const Stack& stack, BodyPlan& plan) {
  clone_args arguments{};
  arguments.flags = CLONE_VM | CLONE_CLEAR_SIGHAND;
  arguments.exit_signal = SIGCHLD;
  arguments.stack = stack.lowest();
  arguments.stack_size = kStackBytes;
  arguments.set_tid = raw_address(&pid);
  arguments.set_tid_size = 1;
  // No handler of krgd's may run in the child.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int64_t child = clone_onto(arguments, plan);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return child;
}

// A body's descriptors are made at numbers above those that it is to have. Where the table has to
// grow for one, a process with threads waits for all processors (synchronize_rcu in the kernel's
// expand_fdtable): 10 ms, which a process that moves would stand still.
void make_room_for_descriptors() {
  constexpr int kFarNumber = 1000;
  UniqueFd any(open("/dev/null", O_RDONLY | O_CLOEXEC));
  UniqueFd far(fcntl(any.get(), F_DUPFD_CLOEXEC, kFarNumber));  // fails where there may not be one
}

int32_t read_oom_score_adj() {
  int32_t adjust = 0;
  std::ifstream("/proc/self/oom_score_adj") >> adjust;
  return adjust;
}
void write_oom_score_adj(pid_t pid, int32_t adjust) {
  std::ofstream file(fmt::format("/proc/{}/oom_score_adj", pid));
  if (!(file << adjust << std::flush))
    log_warn("exec", "body {}: oom_score_adj {} is not to be had", pid, adjust);
}

}  // namespace

struct BodySpawner::Impl {
  struct FilterKind {
    bool all_waits = false;
    std::vector<int> streams;  // but the standard descriptors
    auto operator<=>(const FilterKind&) const = default;
  };
  // A body that has not execed yet. Its memory is in use until the control socket is at its end:
  // exec and exit give the memory up before they close descriptors.
  struct Starting {
    std::shared_ptr<const SyscallFilter> filter;
    std::unique_ptr<BodyPlan> plan;
    std::optional<Stack> stack;
    UniqueFd control;
    EventLoop::Watch watch;
    std::optional<BodyReport> failure;
    int32_t oom_score_adj;
    std::function<void(Result<int>)> done;
  };

  NodeContext& node;
  SyscallBroker& broker;
  std::map<FilterKind, std::shared_ptr<const SyscallFilter>> filters;
  const KrgdAttributes own = KrgdAttributes::read();
  const int32_t own_oom_score_adj = read_oom_score_adj();
  std::vector<Stack> idle_stacks;
  std::map<pid_t, Starting> starting;

  Impl(NodeContext& n, SyscallBroker& b) : node(n), broker(b) { make_room_for_descriptors(); }

  // Most bodies have one of few kinds.
  std::shared_ptr<const SyscallFilter> filter_for(FilterKind kind) {
    if (auto known = filters.find(kind); known != filters.end()) return known->second;
    if (filters.size() >= kMaxFilters) filters.clear();
    auto made = std::make_shared<const SyscallFilter>(
        SyscallFilterConfig{.pids = node.pids,
                            .standard_streams = true,
                            .streams = kind.streams,
                            .all_waits = kind.all_waits,
                            .remote_memory = node.memory_per_node > 0,
                            .shared_files = !node.shared_files.empty(),
                            .forks_by_clone = has_to_see_forks()});
    return filters.emplace(std::move(kind), std::move(made)).first->second;
  }

  Result<Stack> take_stack() {
    if (idle_stacks.empty()) return Stack::create();
    Stack stack = std::move(idle_stacks.back());
    idle_stacks.pop_back();
    return stack;
  }

  Status start(Request& request, std::function<void(Result<int>)>& done);
  void on_control(pid_t pid);
  void finish(pid_t pid);
};

BodySpawner::BodySpawner(NodeContext& node, SyscallBroker& broker)
    : impl_(std::make_unique<Impl>(node, broker)) {}

BodySpawner::~BodySpawner() {
  // A child may still run on one of these plans and stacks: they must not go before it does.
  for (auto& [pid, starting] : impl_->starting) {
    kill(pid, SIGKILL);
    starting.watch.reset();
    fcntl(starting.control.get(), F_SETFL, 0);
    while (auto packet = receive_packet(starting.control.get()))
      if (packet->end_of_stream) break;
  }
}

void BodySpawner::spawn(Request request, std::function<void(Result<int>)> done) {
  if (auto started = impl_->start(request, done); !started) done(started.error());
}

Status BodySpawner::Impl::start(Request& request, std::function<void(Result<int>)>& done) {
  check(!starting.contains(request.pid), "a body is started once");
  auto pair = seqpacket_pair();
  if (!pair) return pair.error();
  fcntl(pair->first.get(), F_SETFL, O_NONBLOCK);
  const int32_t oom_score_adj = request.spec.attributes.oom_score_adj;
  FilterKind kind{.all_waits = request.has_children, .streams = {}};
  for (const ImportedFd& fd : request.fds)
    if (fd.is_krgfs && fd.number > STDERR_FILENO) kind.streams.push_back(fd.number);
  auto filter = filter_for(std::move(kind));
  auto plan = BodyPlan::make(std::move(request.spec), std::move(request.fds), filter->program(),
                             std::move(pair->second),
                             {node.session_mount_ns, request.uts_ns, request.own_session}, own);
  if (!plan) return plan.error();
  if (request.chooses_thread_ids) (*plan)->kept_capabilities = kChooseThreadIds;
  (*plan)->timer_slack_ns = request.timer_slack_ns;
  (*plan)->may_exec = !request.waits;
  auto stack = take_stack();
  if (!stack) return stack.error();
  auto watch = node.loop.watch(pair->first.get(), EPOLLIN,
                               [this, pid = request.pid](uint32_t) { on_control(pid); });
  if (!watch) return watch.error();

  const int64_t child = clone_body(request.pid, *stack, **plan);
  if (child < 0)
    return errno_error(fmt::format("a body with pid {}", request.pid), static_cast<int>(-child));
  (*plan)->close_in_krgd();  // the control socket ends with the child's end from now on
  request.on_created();
  BodyPlan& released = **plan;
  starting.emplace(request.pid, Starting{std::move(filter), std::move(*plan), std::move(*stack),
                                         std::move(pair->first), std::move(*watch), std::nullopt,
                                         oom_score_adj, std::move(done)});
  if (!request.waits) return {};
  released.may_exec.store(1, std::memory_order_release);
  syscall(SYS_futex, &released.may_exec, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  return {};
}

void BodySpawner::Impl::on_control(pid_t pid) {
  Starting& body = starting.at(pid);
  auto packet = receive_packet(body.control.get());
  if (!packet && packet.error().errno_or(0) == EAGAIN) return;
  if (!packet || packet->end_of_stream) return finish(pid);
  BodyReport report;
  if (packet->bytes.size() != sizeof report) return;
  memcpy(&report, packet->bytes.data(), sizeof report);
  if (report.kind == BodyReport::kFailure)
    body.failure = report;
  else if (packet->fds.size() == 1)
    if (auto added = broker.add_listener(std::move(packet->fds[0])); !added)
      log_error("exec", "body {}: {}", pid, added.error().message());
}

void BodySpawner::Impl::finish(pid_t pid) {
  auto node_handle = starting.extract(pid);
  Starting& body = node_handle.mapped();
  body.watch.reset();
  if (idle_stacks.size() < kMaxIdleStacks) idle_stacks.push_back(std::move(*body.stack));
  // Another uid in the child made the memory that they shared undumpable, and so krgd's procfs
  // entries root's (prctl(2), PR_SET_DUMPABLE).
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  if (!body.failure) {
    // Not before exec: while the memory is shared, krgd would be adjusted too (proc(5)).
    if (body.oom_score_adj != own_oom_score_adj) write_oom_score_adj(pid, body.oom_score_adj);
    return body.done(0);
  }
  if (body.failure->stage == BodyStage::kExec) return body.done(body.failure->error);
  body.done(errno_error(fmt::format("body {}: {}", pid, name_of(body.failure->stage)),
                        body.failure->error));
}

}  // namespace krg
