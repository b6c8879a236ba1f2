// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/image_capture.h"

#include <fmt/format.h>
#include <linux/kcmp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <array>
#include <csignal>

#include "image/call_batch.h"
#include "image/capture_parts.h"
#include "image/known_mappings.h"
#include "kernel_values.h"
#include "process_spec.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr size_t kMostAuxvBytes = 1024;
constexpr uint64_t kGetMdwe = 66, kGetMemoryMerge = 68;  // prctl(2), not in every header

bool share(pid_t a, pid_t b, int what) {
  return syscall(SYS_kcmp, a, b, what, 0, 0) == 0;
}

// What would tear it apart.
Status check_alone(const FrozenProcess& process, const ExecCaller& place,
                   const StatusText& status) {
  const pid_t pid = process.pid();
  if (status.number<unsigned>("Seccomp_filters") > 1)
    return cannot_move("a system call filter of its own");
  if (share(pid, place.parent, KCMP_VM)) return cannot_move("memory that is its parent's too");
  if (share(pid, place.parent, KCMP_FILES))
    return cannot_move("a descriptor table that is its parent's too");
  for (const auto& thread : process.threads())
    if (!share(pid, thread->tid(), KCMP_FILES) || !share(pid, thread->tid(), KCMP_FS))
      return cannot_move("threads with descriptors or folders of their own");
  return {};
}

// The file that runs. One that gains privileges when it execs cannot be started anew.
Result<std::string> program_of(pid_t pid) {
  auto path = read_link(fmt::format("/proc/{}/exe", pid));
  if (!path) return errno_error("no such process", ESRCH);
  struct stat by_path {
  }, running{};
  if (path->ends_with(kDeletedSuffix) || stat(path->c_str(), &by_path) != 0 ||
      stat(fmt::format("/proc/{}/exe", pid).c_str(), &running) != 0 ||
      by_path.st_ino != running.st_ino || by_path.st_dev != running.st_dev)
    return cannot_move("a program whose file has been removed");
  if ((by_path.st_mode & (S_ISUID | S_ISGID)) != 0 ||
      getxattr(path->c_str(), "security.capability", nullptr, 0) > 0)
    return cannot_move("a program that gains privileges");
  return path;
}

Result<ExecSpec> read_spec(const FrozenProcess& process, int session_mount_ns,
                           const StatusText& status, const ExecCaller& place) {
  const pid_t pid = process.pid();
  if (auto inside = check_namespaces(pid, session_mount_ns); !inside) return inside.error();
  if (auto alone = check_alone(process, place, status); !alone) return alone.error();
  ExecSpec spec;
  auto cwd = read_link(fmt::format("/proc/{}/cwd", pid));
  if (!cwd) return errno_error("no such process", ESRCH);
  if (cwd->ends_with(kDeletedSuffix)) return cannot_move("a working directory that was removed");
  spec.cwd = std::move(*cwd);
  spec.groups = groups_of(status);
  auto read = read_attributes(pid, place, status, spec.attributes);
  if (!read) return read.error();
  spec.attributes.blocked_signals = ~0ULL;  // until it is thawed
  return spec;
}

Status read_layout(const FrozenProcess& process, ImageLayout& layout) {
  auto stat = stat_fields(process.pid());
  if (!stat) return stat.error();
  // Numbers of proc_pid_stat(5).
  layout.start_code = stat_number<uint64_t>(*stat, 26);
  layout.end_code = stat_number<uint64_t>(*stat, 27);
  layout.start_stack = stat_number<uint64_t>(*stat, 28);
  layout.start_data = stat_number<uint64_t>(*stat, 45);
  layout.end_data = stat_number<uint64_t>(*stat, 46);
  layout.start_brk = stat_number<uint64_t>(*stat, 47);
  layout.arg_start = stat_number<uint64_t>(*stat, 48);
  layout.arg_end = stat_number<uint64_t>(*stat, 49);
  layout.env_start = stat_number<uint64_t>(*stat, 50);
  layout.env_end = stat_number<uint64_t>(*stat, 51);
  return {};
}

// What the kernel tells the process only, all of it at once.
class Questions {
 public:
  Questions(FrozenProcess& process, const StatusText& status) : batch_(process) {
    brk_ = batch_.add(SYS_brk, {0});
    dumpable_ = batch_.add(SYS_prctl, {PR_GET_DUMPABLE});
    huge_pages_ = batch_.add(SYS_prctl, {PR_GET_THP_DISABLE});
    merges_pages_ = batch_.add(SYS_prctl, {kGetMemoryMerge, 0, 0, 0, 0});
    no_new_code_ = batch_.add(SYS_prctl, {kGetMdwe, 0, 0, 0, 0});
    securebits_ = batch_.add(SYS_prctl, {PR_GET_SECUREBITS});
    subreaper_at_ = batch_.put(int32_t{0});
    subreaper_ = batch_.add(SYS_prctl, {PR_GET_CHILD_SUBREAPER, subreaper_at_.value});
    for (size_t which = 0; which < timers_at_.size(); ++which) {
      timers_at_[which] = batch_.put(itimerval{});
      batch_.add(SYS_getitimer, {which, timers_at_[which].value});
    }
    const auto caught = status.number<uint64_t>("SigCgt", 16);
    const auto ignored = status.number<uint64_t>("SigIgn", 16);
    for (unsigned signal = 1; signal <= kLastSignal; ++signal) {
      const uint64_t bit = uint64_t{1} << (signal - 1);
      // SIGCHLD's flags mean something without a handler, too.
      if (((caught | ignored) & bit) || signal == SIGCHLD) ask_action(signal);
    }
  }

  // Errors: ENOTSUP; ESRCH.
  Status ask(ProcessImage& image) {
    if (auto run = batch_.run(); !run) return run;
    if (batch_.result(brk_) < 0 || batch_.result(dumpable_) < 0 || batch_.result(subreaper_) < 0)
      return errno_error("settings of the process", ESRCH);
    if (batch_.result(securebits_) != 0) return cannot_move("securebits of its own");
    image.layout.brk = static_cast<uint64_t>(batch_.result(brk_));
    image.dumpable = static_cast<uint32_t>(batch_.result(dumpable_));
    image.no_huge_pages = batch_.result(huge_pages_) > 0;
    image.merges_pages = batch_.result(merges_pages_) > 0;
    image.no_new_code = static_cast<uint32_t>(std::max<int64_t>(batch_.result(no_new_code_), 0));
    image.is_subreaper = batch_.value<int32_t>(subreaper_at_) != 0;
    for (size_t which = 0; which < timers_at_.size(); ++which)
      image.interval_timers[which] = batch_.value<itimerval>(timers_at_[which]);
    for (const Action& asked : actions_) {
      if (batch_.result(asked.call) != 0) return errno_error("signal actions", ESRCH);
      const auto action = batch_.value<KernelSignalAction>(asked.at);
      image.signal_actions.push_back(
          {asked.signal, action.handler, action.flags, action.restorer, action.mask});
    }
    return {};
  }

 private:
  struct Action {
    unsigned signal;
    RemoteAddr at;
    size_t call;
  };

  void ask_action(unsigned signal) {
    const RemoteAddr at = batch_.put(KernelSignalAction{});
    const size_t call =
        batch_.add(SYS_rt_sigaction, {signal, 0, at.value, sizeof(KernelSignalAction::mask)});
    actions_.push_back({signal, at, call});
  }

  CallBatch batch_;
  size_t brk_, dumpable_, huge_pages_, merges_pages_, no_new_code_, securebits_, subreaper_;
  RemoteAddr subreaper_at_;
  std::array<RemoteAddr, 3> timers_at_;
  std::vector<Action> actions_;
};

Status capture_memory(FrozenProcess& process, ImageMemory memory, ProcessImage& image) {
  image.files = std::move(memory.files);
  image.mappings = std::move(memory.mappings);
  image.spec.path = image.files.front().path;
  image.spec.argv.add(image.spec.path);  // its own are in its memory
  auto vdso = read_vdso(process, image.mappings);
  if (!vdso) return vdso.error();
  image.vdso = std::move(*vdso);
  auto auxv = read_whole_file(fmt::format("/proc/{}/auxv", process.pid()));
  if (!auxv || auxv->empty() || auxv->size() > kMostAuxvBytes)
    return errno_error("no such process", ESRCH);
  image.auxv = std::move(*auxv);
  return read_layout(process, image.layout);
}

Status capture_signals(FrozenProcess& process, ProcessImage& image) {
  if (auto settled = settle_all(process); !settled) return settled;
  auto pending = read_pending_signals(process.pid(), PTRACE_PEEKSIGINFO_SHARED);
  if (!pending) return pending.error();
  image.pending = std::move(*pending);
  auto timers = capture_timers(process);
  if (!timers) return timers.error();
  image.timers = std::move(*timers);
  return {};
}

}  // namespace

Result<ImageMemory> read_image_memory(pid_t pid, MappingTexts& before) {
  ImageMemory memory;
  auto path = program_of(pid);
  if (!path) return path.error();
  auto program = identify_file(*path);
  if (!program) return program.error();
  memory.files.push_back(std::move(*program));
  auto mappings = read_mappings(pid, memory.files, before);
  if (!mappings) return mappings.error();
  memory.mappings = std::move(*mappings);
  return memory;
}

Result<ProcessImage> capture_image(FrozenProcess& process, int session_mount_ns) {
  MappingTexts unknown;
  return capture_image(process, session_mount_ns, unknown);
}

Result<ProcessImage> capture_image(FrozenProcess& process, int session_mount_ns,
                                   MappingTexts& before) {
  process.drop_scratch();  // it is not the program's
  auto memory = read_image_memory(process.pid(), before);
  if (!memory) return memory.error();
  auto image = capture_image(process, std::move(*memory), session_mount_ns);
  process.drop_scratch();
  return image;
}

Result<ProcessImage> capture_image(FrozenProcess& process, ImageMemory memory,
                                   int session_mount_ns) {
  ProcessImage image;
  auto status = StatusText::read(process.pid());
  if (!status) return status.error();
  auto place = read_exec_caller(process.pid());
  if (!place) return place.error();
  auto spec = read_spec(process, session_mount_ns, *status, *place);
  if (!spec) return spec.error();
  image.spec = std::move(*spec);
  image.stop_signal = process.main().stop_signal();
  if (auto captured = capture_memory(process, std::move(memory), image); !captured)
    return captured.error();
  for (const auto& thread : process.threads()) {
    auto captured = capture_thread(process, *thread);
    if (!captured) return captured.error();
    image.threads.push_back(std::move(*captured));
  }
  if (auto asked = Questions(process, *status).ask(image); !asked) return asked.error();
  if (auto captured = capture_signals(process, image); !captured) return captured.error();
  return image;
}

}  // namespace krg
