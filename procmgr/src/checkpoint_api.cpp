// SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "krg/procmgr/checkpoint.h"
#include "libkrg_calls.h"

namespace {

using Callback = std::pair<int (*)(void*), void*>;
using krg::ask_krgd;
using krg::ControlClient;
using krg::failed;

// As long as callbacks may take; a program that was restarted does not wait for ever either.
constexpr std::chrono::seconds kPatience{30};
constexpr size_t kMostExclusions = 1024;
constexpr uintptr_t kPage = 4096;

// The thread that waits for its krgd to call. Its connection ends when the program is restarted:
// that is how it knows.
class CallbackThread {
 public:
  enum Moment { kBefore, kContinue, kRestart, kMoments };

  int add(Moment moment, Callback callback);
  int exclude(void* data, size_t bytes, Callback restored);
  int include(void* data);
  unsigned rounds();
  // Until the callbacks that come after a checkpoint have run.
  void wait_for_round(unsigned before);

 private:
  struct Exclusion {
    uintptr_t start = 0;
    size_t bytes = 0;
    Callback restored;
  };

  bool may_start();  // errno is set; with mutex_
  krg::Result<ControlClient> connect();
  void serve(ControlClient krgd);
  // Until the connection ends.
  void answer(ControlClient& krgd);
  void run(Moment moment);
  // What krgd is answered: of each the whole pages.
  nlohmann::json excluded_pages();

  std::mutex mutex_;
  std::condition_variable has_run_;
  pid_t process_ = 0;  // which has the thread
  unsigned rounds_ = 0;
  bool is_before_ = false;  // between the callbacks before a checkpoint and those after it
  std::vector<Callback> callbacks_[kMoments];
  std::vector<Exclusion> exclusions_;
};

bool CallbackThread::may_start() {
  if (process_ == getpid()) return true;
  for (auto& all : callbacks_) all.clear();  // they were the parent's
  exclusions_.clear();
  auto krgd = connect();
  if (!krgd) {
    failed(krgd.error());
    return false;
  }
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([this, krgd = std::move(*krgd)]() mutable { serve(std::move(krgd)); }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  process_ = getpid();
  return true;
}

int CallbackThread::add(Moment moment, Callback callback) {
  if (callback.first == nullptr) return failed(EINVAL);
  std::lock_guard lock(mutex_);
  if (!may_start()) return -1;
  callbacks_[moment].push_back(callback);
  return 0;
}

int CallbackThread::exclude(void* data, size_t bytes, Callback restored) {
  const auto start = reinterpret_cast<uintptr_t>(data);
  if (start + bytes < start) return failed(EINVAL);
  std::lock_guard lock(mutex_);
  if (!may_start()) return -1;
  if (exclusions_.size() >= kMostExclusions) return failed(ENOSPC);
  if (std::any_of(exclusions_.begin(), exclusions_.end(),
                  [start](const Exclusion& one) { return one.start == start; }))
    return failed(EBUSY);
  exclusions_.push_back({start, bytes, restored});
  return 0;
}

int CallbackThread::include(void* data) {
  const auto start = reinterpret_cast<uintptr_t>(data);
  std::lock_guard lock(mutex_);
  if (process_ != getpid()) return failed(EINVAL);  // they are the parent's
  const size_t gone =
      std::erase_if(exclusions_, [start](const Exclusion& one) { return one.start == start; });
  return gone > 0 ? 0 : failed(EINVAL);
}

nlohmann::json CallbackThread::excluded_pages() {
  auto pages = nlohmann::json::array();
  std::lock_guard lock(mutex_);
  for (const Exclusion& one : exclusions_) {
    const uintptr_t start = (one.start + kPage - 1) / kPage * kPage;
    const uintptr_t end = (one.start + one.bytes) / kPage * kPage;
    if (start < end) pages.push_back({start, end - start});
  }
  return pages;
}

krg::Result<ControlClient> CallbackThread::connect() {
  auto krgd = ControlClient::connect_to_session();
  if (!krgd) return krgd;
  auto registered = krgd->call("checkpoint.callbacks");
  if (!registered) return registered.error();
  return krgd;
}

void CallbackThread::serve(ControlClient krgd) {
  for (;;) {
    answer(krgd);
    auto next = connect();
    if (std::exchange(is_before_, false)) run(kRestart);
    if (!next) return;
    krgd = std::move(*next);
  }
}

void CallbackThread::answer(ControlClient& krgd) {
  std::string heard;
  krgd.on_notice([&heard](const std::string& name, const nlohmann::json&) { heard = name; });
  for (;;) {
    heard.clear();
    if (!krgd.receive_notice()) return;
    if (heard == "checkpoint.before") {
      run(kBefore);
      is_before_ = true;
      if (!krgd.call("checkpoint.called", {{"left_out", excluded_pages()}})) return;
    }
    if (heard == "checkpoint.after" && std::exchange(is_before_, false)) run(kContinue);
  }
}

// Those after a checkpoint in the order in which they were registered, those before it the other
// way round.
void CallbackThread::run(Moment moment) {
  std::vector<Callback> all;
  {
    std::lock_guard lock(mutex_);
    if (moment == kRestart)
      for (const Exclusion& one : exclusions_)
        if (one.restored.first) all.push_back(one.restored);
    const auto& told = callbacks_[moment];
    all.insert(all.end(), told.begin(), told.end());
  }
  if (moment == kBefore) std::reverse(all.begin(), all.end());
  for (const auto& [callback, argument] : all) callback(argument);
  if (moment == kBefore) return;
  std::lock_guard lock(mutex_);
  ++rounds_;
  has_run_.notify_all();
}

unsigned CallbackThread::rounds() {
  std::lock_guard lock(mutex_);
  return rounds_;
}

void CallbackThread::wait_for_round(unsigned before) {
  std::unique_lock lock(mutex_);
  if (process_ != getpid()) return;
  has_run_.wait_for(lock, kPatience, [&] { return rounds_ != before; });
}

// Never destroyed: its thread goes on until the process ends.
CallbackThread& callback_thread() {
  static auto* const only = new CallbackThread;
  return *only;
}

// This process's, between cr_disable() and cr_enable(): a connection that krgd has been told by.
class CriticalSection {
 public:
  int enter();
  int leave();
  bool is_entered();

 private:
  std::mutex mutex_;
  pid_t process_ = 0;  // which has entered
  std::optional<ControlClient> krgd_;
};

int CriticalSection::enter() {
  std::lock_guard lock(mutex_);
  if (krgd_ && process_ == getpid()) return failed(EALREADY);
  krgd_.reset();  // it was the parent's
  for (;;) {
    auto krgd = ControlClient::connect_to_session();
    if (!krgd) return failed(krgd.error());
    auto entered = krgd->call("checkpoint.disable");
    // It was saved while it waited, and has been restarted.
    if (!entered && entered.error().errno_or(0) == ECONNRESET) continue;
    if (!entered) return failed(entered.error());
    process_ = getpid();
    krgd_ = std::move(*krgd);
    return 0;
  }
}

int CriticalSection::leave() {
  std::lock_guard lock(mutex_);
  if (!krgd_ || process_ != getpid()) return failed(EALREADY);
  auto left = krgd_->call("checkpoint.enable");
  krgd_.reset();
  return left ? 0 : failed(left.error());
}

bool CriticalSection::is_entered() {
  std::lock_guard lock(mutex_);
  return krgd_ && process_ == getpid();
}

CriticalSection& critical_section() {
  static auto* const only = new CriticalSection;
  return *only;
}

}  // namespace

int application_checkpoint(const char* folder) {
  if (critical_section().is_entered()) return failed(EAGAIN);
  const unsigned before = callback_thread().rounds();
  std::error_code error;
  const auto path = std::filesystem::absolute(folder, error);
  auto saved =
      ask_krgd("checkpoint", {{"pid", getpid()}, {"folder", path.string()}, {"member", true}});
  // The krgd that was asked is not there any more.
  const bool is_restarted = !saved && saved.error().errno_or(0) == ECONNRESET;
  if (!saved && !is_restarted) return failed(saved.error());
  callback_thread().wait_for_round(before);
  return is_restarted ? 0 : saved->result.value("version", 0);
}

int application_freeze(pid_t pid) {
  auto done = ask_krgd("checkpoint", {{"action", "freeze"}, {"pid", pid}});
  return done ? 0 : failed(done.error());
}

int application_unfreeze(pid_t pid, int signal) {
  auto done = ask_krgd("checkpoint", {{"action", "unfreeze"}, {"pid", pid}, {"signal", signal}});
  return done ? 0 : failed(done.error());
}

int cr_register_chkpt_callback(int (*callback)(void*), void* argument) {
  return callback_thread().add(CallbackThread::kBefore, {callback, argument});
}

int cr_register_continue_callback(int (*callback)(void*), void* argument) {
  return callback_thread().add(CallbackThread::kContinue, {callback, argument});
}

int cr_register_restart_callback(int (*callback)(void*), void* argument) {
  return callback_thread().add(CallbackThread::kRestart, {callback, argument});
}

int cr_register_chkpt_thread_callback(int (*callback)(void*), void* argument) {
  return cr_register_chkpt_callback(callback, argument);
}

int cr_register_continue_thread_callback(int (*callback)(void*), void* argument) {
  return cr_register_continue_callback(callback, argument);
}

int cr_register_restart_thread_callback(int (*callback)(void*), void* argument) {
  return cr_register_restart_callback(callback, argument);
}

int cr_disable() {
  return critical_section().enter();
}

int cr_enable() {
  return critical_section().leave();
}

int cr_exclude_on(void* data, size_t bytes, int (*restored)(void*), void* argument) {
  return callback_thread().exclude(data, bytes, {restored, argument});
}

int cr_exclude_off(void* data) {
  return callback_thread().include(data);
}

int application_set_userdata(uint64_t data) {
  auto kept = ask_krgd("application.data", {{"pid", getpid()}, {"value", data}});
  return kept ? 0 : failed(kept.error());
}

int application_get_userdata(pid_t pid, uint64_t* data) {
  auto known = ask_krgd("application.data", {{"pid", pid}});
  if (!known) return failed(known.error());
  *data = known->result.value("value", uint64_t{0});
  return 0;
}
