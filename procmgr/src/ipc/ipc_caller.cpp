// SPDX-License-Identifier: GPL-2.0-or-later
#include "ipc_caller.h"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <sstream>

#include "process_status.h"
#include "text_scan.h"

namespace krg {
namespace {

// Of a process with many threads, so many are looked at.
constexpr int kMaxThreadsAsked = 4;

Error no_process() {
  return errno_error("no such process", ESRCH);
}

template <class... Values>
bool scan(const std::string& status, const char* key, const char* format, Values*... values) {
  const char* text = status_value(status, key);
  return text && sscanf(text, format, values...) == sizeof...(values);
}

// A mask of signals: signal n is bit n - 1.
bool scan_mask(const std::string& status, const char* key, uint64_t& mask) {
  unsigned long value = 0;
  if (!scan(status, key, "%lx", &value)) return false;
  mask = value;
  return true;
}

}  // namespace

Result<IpcCaller> read_ipc_caller(pid_t tid) {
  auto text = read_proc_text(tid, "status");
  if (!text) return text.error();
  return parse_ipc_caller(*text);
}

Result<IpcCaller> parse_ipc_caller(const std::string& status) {
  IpcCaller caller;
  if (!scan(status, "Tgid", "%d", &caller.pid) || !scan(status, "Uid", "%*u %u", &caller.uid) ||
      !scan(status, "Gid", "%*u %u", &caller.gid) ||
      !scan_mask(status, "CapEff", caller.capabilities))
    return no_process();
  caller.groups = groups_of_status(status);
  return caller;
}

Result<SignalState> read_signal_state(pid_t tid) {
  auto text = read_proc_text(tid, "status");
  if (!text) return text.error();
  return parse_signal_state(*text);
}

Result<SignalState> parse_signal_state(const std::string& status) {
  SignalState state;
  if (!scan(status, "State", "%c", &state.state) || !scan(status, "Tgid", "%d", &state.process) ||
      !scan(status, "Threads", "%u", &state.threads) || !scan_mask(status, "SigPnd", state.own) ||
      !scan_mask(status, "ShdPnd", state.shared) || !scan_mask(status, "SigBlk", state.blocked) ||
      !scan_mask(status, "SigIgn", state.ignored))
    return no_process();
  return state;
}

bool is_group_stopped(pid_t process, pid_t tid) {
  std::error_code error;
  std::filesystem::directory_iterator threads(fmt::format("/proc/{}/task", process), error);
  int asked = 0;
  for (; !error && threads != std::filesystem::directory_iterator(); threads.increment(error)) {
    const auto other = to_number<pid_t>(threads->path().filename().native());
    if (!other || *other == tid) continue;
    auto status = read_process_status(*other);
    if (status && status->state == 'T') return true;
    if (++asked == kMaxThreadsAsked) break;
  }
  return false;
}

}  // namespace krg
