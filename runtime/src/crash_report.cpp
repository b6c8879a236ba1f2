// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/crash_report.h"

#include <execinfo.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstring>
#include <deque>
#include <fstream>

namespace krg {
namespace {

constexpr int kMostCalls = 64;
constexpr int kSignalled = 128;  // exit statuses above are of signals, as a shell tells them
constexpr int kMostLines = 40;
constexpr size_t kLastLines = 3;
constexpr size_t kStackBytes = 64 << 10;
constexpr int kCrashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

const char* program_name = "";
alignas(16) std::array<char, kStackBytes> signal_stack;

void say(const char* text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) return;
}

// Calls what POSIX allows in a handler, and backtrace(3), which has allocated what it needs.
void report(int signal, siginfo_t* info, void*) {
  std::array<char, 32> address{};
  std::to_chars(address.data(), address.data() + address.size() - 1,
                reinterpret_cast<uintptr_t>(info->si_addr), 16);
  say(program_name);
  say(kCrashed);
  say(sigdescr_np(signal));
  if (info->si_code > 0) {
    say(" at 0x");
    say(address.data());
  }
  say(", in the calls\n");
  std::array<void*, kMostCalls> calls;
  backtrace_symbols_fd(calls.data(), backtrace(calls.data(), kMostCalls), STDERR_FILENO);
  // The handler is gone (SA_RESETHAND): what faulted faults again, and a signal that was sent comes
  // anew; to a namespace's init it would not.
  if (info->si_code > 0) return;
  if (getpid() == 1) _exit(kSignalled + signal);
  raise(signal);
}

}  // namespace

void install_crash_report(const char* program) {
  program_name = program;
  void* first = nullptr;
  backtrace(&first, 1);  // loads libgcc
  stack_t stack{};
  stack.ss_sp = signal_stack.data();
  stack.ss_size = signal_stack.size();
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = report;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND;
  for (int signal : kCrashes) sigaction(signal, &action, nullptr);
}

std::string last_crash(const std::string& log_file) {
  std::ifstream log(log_file);
  std::string last;
  int lines = 0;
  for (std::string line; std::getline(log, line);) {
    if (line.find(kCrashed) != std::string::npos) {
      last = line;
      lines = 1;
    } else if (lines > 0 && lines++ < kMostLines) {
      last += "\n" + line;
    }
  }
  return last;
}

std::string end_of_log(const std::string& log_file) {
  std::ifstream log(log_file);
  std::deque<std::string> lines;
  for (std::string line; std::getline(log, line); lines.push_back(line))
    if (lines.size() == kLastLines) lines.pop_front();
  std::string end;
  for (const std::string& line : lines) end += (end.empty() ? "" : "\n") + line;
  return end;
}

}  // namespace krg
