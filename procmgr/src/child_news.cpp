// SPDX-License-Identifier: GPL-2.0-or-later
#include "child_news.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>

#include "image/frozen_process.h"
#include "image/install_parts.h"
#include "krg/runtime/log.h"
#include "process_spec.h"

namespace krg {
namespace {

// How long a signal is followed that its main thread does not take: another thread has taken it, or
// it sleeps where no signal comes.
constexpr std::chrono::milliseconds kPatience{500};
// How long a call of it that krgd may need the thread for is waited for.
constexpr std::chrono::milliseconds kTick{2};
constexpr int kTries = 50;

// Calls that krgd has the caller's thread make others for (RemoteSyscalls, forks, execs): it must
// not be traced for something else then.
bool is_in_call_of_ours(pid_t tid) {
  static constexpr std::array<long, 10> kCalls = {SYS_mmap,   SYS_munmap, SYS_mremap, SYS_shmat,
                                                  SYS_shmdt,  SYS_fork,   SYS_vfork,  SYS_clone,
                                                  SYS_clone3, SYS_execve};
  const auto text = read_proc_text(tid, "syscall");
  if (!text) return false;
  char* end = nullptr;
  const long number = strtol(text->c_str(), &end, 10);
  return end != text->c_str() && std::find(kCalls.begin(), kCalls.end(), number) != kCalls.end();
}

enum class Way {
  kPlain,     // nobody looks at what it says
  kOnItsWay,  // to a handler in the main thread
  kByItself,  // to who reads it (signalfd(2), sigwaitinfo(2)), or to a stopped process
  kBusy,      // it is to be asked again
};

Way way_to(pid_t process) {
  const auto status = StatusText::read(process);
  if (!status) return Way::kPlain;
  const auto has_child = [&](const char* set) {
    return (status->number<uint64_t>(set, 16) >> (SIGCHLD - 1) & 1) != 0;
  };
  const bool is_caught = has_child("SigCgt");
  if (has_child("SigBlk")) return Way::kByItself;
  if (!is_caught) return Way::kPlain;
  const auto stat = read_process_stat(process);
  if (stat && stat->state == 'T') return Way::kByItself;
  return is_in_call_of_ours(process) ? Way::kBusy : Way::kOnItsWay;
}

Status send_plainly(pid_t process, const Sender& sender) {
  auto sent = call_as(sender, RawCall{SYS_kill, {static_cast<uint64_t>(process), SIGCHLD}});
  if (!sent) return sent.error();
  if (*sent < 0) return errno_error("kill", static_cast<int>(-*sent));
  return {};
}

}  // namespace

struct ChildNews::Impl : std::enable_shared_from_this<Impl> {
  // A signal that is under way to a main thread, which is traced until it has it.
  struct Following {
    siginfo_t info{};
    EventLoop::Timer patience;
  };

  NodeContext& node;
  std::map<pid_t, Following> following;
  std::map<uint64_t, EventLoop::Timer> retries;
  uint64_t last_retry = 0;

  explicit Impl(NodeContext& of) : node(of) {}

  Status tell(pid_t process, const siginfo_t& info, const Sender& sender, int tries);
  Status follow(pid_t process, const siginfo_t& info, const Sender& sender);
  void on_event(pid_t process, const ChildEvent& event);
  void let_go(pid_t process, int signal);
  void have_it_sent(pid_t process, const siginfo_t& info, const Sender& sender);
};

Status ChildNews::Impl::tell(pid_t process, const siginfo_t& info, const Sender& sender,
                             int tries) {
  switch (way_to(process)) {
    case Way::kPlain:
      break;
    case Way::kByItself:
      have_it_sent(process, info, sender);
      return {};
    case Way::kOnItsWay:
      return follow(process, info, sender);
    case Way::kBusy:
      if (tries == 0) break;
      retries[++last_retry] =
          node.loop.after(kTick, [this, process, info, sender, tries, number = last_retry] {
            retries.erase(number);
            if (auto told = tell(process, info, sender, tries - 1); !told)
              log_debug("signals", "body {}: {}", process, told.error().message());
          });
      return {};
  }
  return send_plainly(process, sender);
}

// A kernel gives a process's signal to its main thread, where that takes it.
Status ChildNews::Impl::follow(pid_t process, const siginfo_t& info, const Sender& sender) {
  if (!following.contains(process) && ptrace(PTRACE_SEIZE, process, nullptr, nullptr) == 0) {
    Following entry;
    entry.info = info;
    entry.patience = node.loop.after(
        kPatience, [this, process] { ptrace(PTRACE_INTERRUPT, process, nullptr, nullptr); });
    following.emplace(process, std::move(entry));
    node.children->watch_tracee(process,
                                [weak = weak_from_this(), process](const ChildEvent& event) {
                                  if (auto self = weak.lock()) self->on_event(process, event);
                                });
  }
  return send_plainly(process, sender);
}

void ChildNews::Impl::on_event(pid_t process, const ChildEvent& event) {
  if (event.is_end()) {
    following.erase(process);
    return;
  }
  const TraceStop stop = TraceStop::from(event.status);
  if (stop.kind != TraceStop::Kind::kSignal) return let_go(process, 0);
  if (stop.signal != SIGCHLD) {
    ptrace(PTRACE_CONT, process, nullptr, stop.signal);
    return node.children->tracee_goes_on(process);
  }
  siginfo_t info{};
  const bool is_kernels =  // of a child here, which came first
      ptrace(PTRACE_GETSIGINFO, process, nullptr, &info) != 0 || info.si_code > 0;
  if (!is_kernels) ptrace(PTRACE_SETSIGINFO, process, nullptr, &following.at(process).info);
  let_go(process, SIGCHLD);
}

void ChildNews::Impl::let_go(pid_t process, int signal) {
  following.erase(process);
  node.children->unwatch_tracee(process);
  ptrace(PTRACE_DETACH, process, nullptr, signal);
}

void ChildNews::Impl::have_it_sent(pid_t process, const siginfo_t& info, const Sender& sender) {
  ImageSignal signal;
  std::memcpy(signal.info.data(), &info, std::min(sizeof info, signal.info.size()));
  FrozenProcess::freeze(node.loop, *node.children, process,
                        [signal, process, sender](Result<std::shared_ptr<FrozenProcess>> frozen) {
                          if (frozen && queue_signals(**frozen, {signal})) return;
                          if (!send_plainly(process, sender))
                            log_debug("signals", "body {} died", process);
                        });
}

ChildNews::ChildNews(NodeContext& node) : impl_(std::make_shared<Impl>(node)) {}
ChildNews::~ChildNews() = default;

Status ChildNews::tell(pid_t process, const siginfo_t& info, const Sender& sender) {
  return impl_->tell(process, info, sender, kTries);
}

}  // namespace krg
