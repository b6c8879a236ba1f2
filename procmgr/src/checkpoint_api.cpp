// SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
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

// The thread that waits for its krgd to call. Its connection ends when the program is restarted:
// that is how it knows.
class CallbackThread {
 public:
  enum Moment { kBefore, kContinue, kRestart, kMoments };

  int add(Moment moment, Callback callback);
  unsigned rounds();
  // Until the callbacks that come after a checkpoint have run.
  void wait_for_round(unsigned before);

 private:
  krg::Result<ControlClient> connect();
  void serve(ControlClient krgd);
  // Until the connection ends.
  void answer(ControlClient& krgd);
  void run(Moment moment);

  std::mutex mutex_;
  std::condition_variable has_run_;
  pid_t process_ = 0;  // which has the thread
  unsigned rounds_ = 0;
  bool is_before_ = false;  // between the callbacks before a checkpoint and those after it
  std::vector<Callback> callbacks_[kMoments];
};

int CallbackThread::add(Moment moment, Callback callback) {
  if (callback.first == nullptr) {
    errno = EINVAL;
    return -1;
  }
  std::lock_guard lock(mutex_);
  if (process_ != getpid()) {
    for (auto& all : callbacks_) all.clear();  // they were the parent's
    auto krgd = connect();
    if (!krgd) return failed(krgd.error());
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread([this, krgd = std::move(*krgd)]() mutable { serve(std::move(krgd)); }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    process_ = getpid();
  }
  callbacks_[moment].push_back(callback);
  return 0;
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
      if (!krgd.call("checkpoint.called")) return;
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
    all = callbacks_[moment];
  }
  if (moment == kBefore) all = {all.rbegin(), all.rend()};
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

}  // namespace

int application_checkpoint(const char* folder) {
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
