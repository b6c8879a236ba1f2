// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/syscall_broker.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <thread>

#include "alive.h"
#include "caller_memory.h"
#include "krg/runtime/log.h"
#include "krg/shmem/page_set.h"
#include "syscall_receiver.h"

namespace krg {
namespace {

constexpr size_t kMaxSyscallNumber = 512;

// Of one broker; calls may outlive it.
struct Dispatcher {
  EventLoop& loop;
  std::shared_ptr<MemoryGuards> memory = std::make_shared<MemoryGuards>();
  std::function<void(std::shared_ptr<SyscallBroker::Call>)> dispatch = {};  // none: it has gone
};

}  // namespace

struct SyscallBroker::Call::State {
  std::shared_ptr<const UniqueFd> listener;  // open until the call is answered
  std::shared_ptr<const Dispatcher> broker;
  seccomp_notif request{};
  CallerMemory memory;

  bool is_valid() const {
    uint64_t id = request.id;
    return ioctl(listener->get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
  }

  // ENOENT means that the caller died meanwhile: there is nobody to answer.
  bool answer(int64_t value, int error, uint32_t flags) const {
    seccomp_notif_resp response{};
    response.id = request.id;
    response.val = value;
    response.error = -error;
    response.flags = flags;
    if (ioctl(listener->get(), SECCOMP_IOCTL_NOTIF_SEND, &response) == 0) return true;
    if (errno != ENOENT)
      log_error("syscalls", "pid {} call {}: SECCOMP_IOCTL_NOTIF_SEND: {}", request.pid,
                request.data.nr, errno_error({}).message());
    return false;
  }

  static bool succeed(std::unique_ptr<State> state, int64_t value);
  static void fail(std::unique_ptr<State> state, int error);
};

// Only once what it has written is there.
bool SyscallBroker::Call::State::succeed(std::unique_ptr<State> state, int64_t value) {
  if (!state->memory.owes_any()) return state->answer(value, 0, 0);
  if (!state->is_valid()) return false;
  State& self = *state;
  self.memory.settle(
      [state = std::shared_ptr<State>(std::move(state)), value](const Status& written) {
        state->answer(written ? value : 0, written ? 0 : EFAULT, 0);
      });
  return true;
}

// For want of memory: the call is made again when that is there.
void SyscallBroker::Call::State::fail(std::unique_ptr<State> state, int error) {
  if (error != EFAULT || !state->memory.lacks_any()) {
    state->answer(0, error, 0);
    return;
  }
  State& self = *state;
  self.memory.bring([state = shared(std::move(state))](const Status& brought) {
    if (!brought) {
      (*state)->answer(0, EFAULT, 0);
      return;
    }
    EventLoop& loop = (*state)->broker->loop;
    loop.post([call = std::make_shared<Call>(Call(std::move(*state)))] {
      const Dispatcher& broker = *call->state_->broker;
      if (broker.dispatch && call->is_valid()) broker.dispatch(call);
    });
  });
}

SyscallBroker::Call::Call(std::unique_ptr<State> state) : state_(std::move(state)) {}
SyscallBroker::Call::Call(Call&&) noexcept = default;
SyscallBroker::Call& SyscallBroker::Call::operator=(Call&& other) noexcept {
  if (this != &other) {
    if (state_) go_on();
    state_ = std::move(other.state_);
  }
  return *this;
}
SyscallBroker::Call::~Call() {
  if (state_) go_on();
}

pid_t SyscallBroker::Call::tid() const {
  return static_cast<pid_t>(state_->request.pid);
}
int SyscallBroker::Call::number() const {
  return state_->request.data.nr;
}
uint64_t SyscallBroker::Call::arg(unsigned i) const {
  check(i < 6, "a system call has six arguments");
  return state_->request.data.args[i];
}
uint64_t SyscallBroker::Call::instruction_pointer() const {
  return state_->request.data.instruction_pointer;
}

bool SyscallBroker::Call::is_valid() const {
  return state_->is_valid();
}

Result<std::string> SyscallBroker::Call::read_memory(RemoteAddr from, size_t bytes) const {
  return state_->memory.read(from, bytes);
}

Result<std::string> SyscallBroker::Call::read_string(RemoteAddr from, size_t limit) const {
  std::string text;
  while (text.size() <= limit) {
    // Up to the end of the page: what follows may not be mapped.
    RemoteAddr at = from + text.size();
    auto piece = read_memory(at, kPageBytes - at.value % kPageBytes);
    if (!piece) return piece.error();
    size_t end = piece->find('\0');
    text.append(*piece, 0, end);
    if (end != std::string::npos) {
      if (text.size() > limit) break;
      return text;
    }
  }
  return errno_error("string over its limit", ENAMETOOLONG);
}

Status SyscallBroker::Call::write_memory(RemoteAddr to, std::string_view bytes) const {
  return state_->memory.write(to, bytes);
}

Result<int> SyscallBroker::Call::add_fd(int fd) const {
  seccomp_notif_addfd request{};
  request.id = state_->request.id;
  request.srcfd = static_cast<uint32_t>(fd);
  request.newfd_flags = O_CLOEXEC;
  int number = ioctl(state_->listener->get(), SECCOMP_IOCTL_NOTIF_ADDFD, &request);
  if (number < 0) return errno_error("SECCOMP_IOCTL_NOTIF_ADDFD");
  return number;
}

Status SyscallBroker::Call::put_fd(int fd, int number, bool close_on_exec) const {
  seccomp_notif_addfd request{};
  request.id = state_->request.id;
  request.flags = SECCOMP_ADDFD_FLAG_SETFD;
  request.srcfd = static_cast<uint32_t>(fd);
  request.newfd = static_cast<uint32_t>(number);
  request.newfd_flags = close_on_exec ? O_CLOEXEC : 0;
  if (ioctl(state_->listener->get(), SECCOMP_IOCTL_NOTIF_ADDFD, &request) < 0)
    return errno_error("SECCOMP_IOCTL_NOTIF_ADDFD");
  return {};
}

void SyscallBroker::Call::go_on() {
  std::exchange(state_, nullptr)->answer(0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}
void SyscallBroker::Call::succeed(int64_t value) {
  try_succeed(value);
}
bool SyscallBroker::Call::try_succeed(int64_t value) {
  return State::succeed(std::exchange(state_, nullptr), value);
}
void SyscallBroker::Call::fail(int number) {
  check(number > 0, "a failed call has an errno value");
  State::fail(std::exchange(state_, nullptr), number);
}

struct SyscallBroker::Impl {
  std::array<Handler, kMaxSyscallNumber> handlers;
  std::array<Taker, kMaxSyscallNumber> takers;
  std::shared_ptr<Dispatcher> shared;
  Delay delay;
  SyscallReceiver receiver;

  Impl(EventLoop& loop, Precedence precedence)
      : shared(std::make_shared<Dispatcher>(Dispatcher{loop})),
        receiver(
            loop, [this](const auto& listener, const auto& request) { receive(listener, request); },
            precedence == Precedence::kFirst) {
    shared->dispatch = [this](const std::shared_ptr<Call>& call) { dispatch(std::move(*call)); };
  }
  ~Impl() { shared->dispatch = nullptr; }

  void receive(const std::shared_ptr<const UniqueFd>& listener, const seccomp_notif& request) {
    auto call = std::make_shared<Call>(Call(std::make_unique<Call::State>(
        Call::State{listener, shared, request,
                    CallerMemory(shared->memory, static_cast<pid_t>(request.pid))})));
    if (delay && delay(*call, [this, call] { dispatch(std::move(*call)); })) return;
    dispatch(std::move(*call));
  }

  void dispatch(Call call) {
    const auto number = static_cast<size_t>(call.number());
    if (number >= kMaxSyscallNumber) return;  // goes on natively
    if (takers[number] && takers[number](call)) return;
    if (!handlers[number]) return;
    handlers[number](std::move(call));
  }
};

SyscallBroker::SyscallBroker(EventLoop& loop, Precedence precedence)
    : impl_(std::make_unique<Impl>(loop, precedence)) {}
SyscallBroker::~SyscallBroker() = default;

void SyscallBroker::set_handler(int number, Handler handler) {
  check(number >= 0 && static_cast<size_t>(number) < kMaxSyscallNumber,
        "system call numbers are below 512");
  impl_->handlers[static_cast<size_t>(number)] = std::move(handler);
}

void SyscallBroker::set_taker(int number, Taker taker) {
  check(number >= 0 && static_cast<size_t>(number) < kMaxSyscallNumber,
        "system call numbers are below 512");
  impl_->takers[static_cast<size_t>(number)] = std::move(taker);
}

void SyscallBroker::add_memory_guard(MemoryGuard waits) {
  impl_->shared->memory->all.push_back(std::move(waits));
  impl_->shared->memory->loop = std::this_thread::get_id();
}

void SyscallBroker::set_delay(Delay delay) {
  impl_->delay = std::move(delay);
}

Status SyscallBroker::add_listener(UniqueFd listener) {
  return impl_->receiver.add(std::move(listener));
}

size_t SyscallBroker::listener_count() const {
  return impl_->receiver.listener_count();
}

}  // namespace krg
