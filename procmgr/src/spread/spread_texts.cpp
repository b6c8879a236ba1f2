// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_texts.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "kernel_values.h"
#include "process_status.h"

namespace krg {
namespace {

constexpr char kTraced = 't', kStopped = 'T', kSleeps = 'S', kUnknown = '?';
constexpr size_t kMostMemory = 8u << 20;  // more than arguments and environment may take

bool is_state(std::string_view name) {
  return name == "stat" || name == "status";
}
bool is_memory(std::string_view name) {
  return name == "cmdline" || name == "environ";
}

}  // namespace

char shown_state(char here, char elsewhere, bool is_stopped) {
  const char state = elsewhere == kUnknown ? here : elsewhere;
  if (state == kTraced || elsewhere != kUnknown)
    if (is_stopped) return kStopped;
  return state == kTraced ? kSleeps : state;
}

std::string command_line(std::string memory, size_t arguments) {
  const bool is_written_over =
      arguments > 0 && arguments <= memory.size() && memory[arguments - 1] != '\0';
  if (!is_written_over) {
    memory.resize(std::min(memory.size(), arguments));
    return memory;
  }
  memory.resize(std::min(memory.find('\0'), memory.size()));
  return memory;
}

ProcTexts SpreadTexts::texts() {
  return {[this](pid_t tid) { return find_(tid) != nullptr; },
          [this](ProcText asked, Done done) { complete(std::move(asked), std::move(done)); }};
}

void SpreadTexts::complete(ProcText asked, Done done) {
  SpreadProcess* process = find_(asked.pid);
  if (!process) return done(std::move(asked.text));
  if (is_state(asked.name) && asked.text)
    return complete_state(*process, std::move(asked), std::move(done));
  // What procfs does not let the asker see stays unseen; that it cannot read it is another thing.
  const int error = asked.text ? 0 : asked.text.error().errno_or(EIO);
  if (is_memory(asked.name) && (error == 0 || error == EIO || error == EFAULT))
    return read_memory(*process, asked, std::move(done));
  done(std::move(asked.text));
}

void SpreadTexts::complete_state(SpreadProcess& process, ProcText asked, Done done) {
  const bool is_stopped = process.is_stopped();
  process.usage([asked = std::move(asked), done = std::move(done), is_stopped,
                 first = process.pid()](const SpreadProcess::Usage& usage) {
    const auto found = usage.threads.find(asked.tid != 0 ? asked.tid : first);
    const TaskTimes of_thread = found != usage.threads.end() ? found->second : TaskTimes{};
    const CpuTime more = asked.tid != 0 ? of_thread.used : usage.process;
    const auto state = [&](char here) { return shown_state(here, of_thread.state, is_stopped); };
    if (asked.name == "status") return done(with_state(*asked.text, state));
    const int64_t ns_per_tick = kNsPerSecond / sysconf(_SC_CLK_TCK);
    done(add_to_pid_stat(*asked.text, more.user_ns / ns_per_tick, more.system_ns / ns_per_tick,
                         state));
  });
}

void SpreadTexts::read_memory(SpreadProcess& process, const ProcText& asked, Done done) {
  auto stat = read_proc_text(process.pid(), "stat");
  const auto places = stat ? parse_argument_places(*stat) : std::nullopt;
  if (!places) return done(asked.text);
  const bool is_environ = asked.name == "environ";
  const uint64_t start = is_environ ? places->environment : places->arguments;
  const uint64_t own_end = is_environ ? places->environment_end : places->arguments_end;
  const bool goes_on = !is_environ && places->environment == own_end;
  const uint64_t end = goes_on ? places->environment_end : own_end;
  if (start == 0 || own_end < start || end < own_end) return done(std::string());
  process.read_memory(
      RemoteAddr{start}, std::min<uint64_t>(end - start, kMostMemory),
      [done = std::move(done), arguments = own_end - start, is_environ](Result<std::string> read) {
        if (!read || is_environ) return done(std::move(read));
        done(command_line(std::move(*read), arguments));
      });
}

}  // namespace krg
