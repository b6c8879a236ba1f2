// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/homecoming.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <fstream>

#include "image/call_batch.h"
#include "image/install_parts.h"
#include "kernel_values.h"
#include "krg/runtime/log.h"
#include "krg/runtime/unix_socket.h"
#include "process_spec.h"
#include "shadow_protocol.h"

namespace krg {
namespace {

constexpr int kMostLostPackets = 64;
constexpr unsigned kCapabilities = 64;

// Of calls all of which must succeed.
Status run_all(CallBatch& batch, const char* what) {
  if (batch.size() == 0) return {};
  if (auto run = batch.run(); !run) return run;
  for (size_t i = 0; i < batch.size(); ++i)
    if (auto done = done_by_call(what, batch.result(i)); !done) return done;
  return {};
}

class ShadowExec {
 public:
  ShadowExec(LentShadow shadow, const ExecSpec& spec, std::vector<ImportedFd> fds)
      : process_(std::move(shadow.process)),
        control_(shadow.control),
        spec_(spec),
        fds_(std::move(fds)),
        pid_(process_->pid()) {}

  void run(FrozenProcess::Frozen done) {
    if (auto ready = prepare(); !ready) return done(ready.error());
    CallBatch strings(*process_);
    const RemoteAddr path = strings.put(std::span(spec_.path.c_str(), spec_.path.size() + 1));
    const RemoteAddr argv = strings.put(std::array<uint64_t, 2>{path.value, 0});
    const RemoteAddr environment = strings.put(uint64_t{0});
    if (auto put = strings.run(); !put) return done(put.error());
    FrozenProcess::exec(process_, SYS_execve, {path.value, argv.value, environment.value},
                        std::move(done));
  }

 private:
  Status prepare() {
    if (auto room = make_room(); !room) return room;
    if (auto taken = take_files(); !taken) return taken;
    if (auto placed = place_files(); !placed) return placed;
    if (auto set = set_attributes(); !set) return set;
    if (auto set = set_from_outside(); !set) return set;
    return take_credentials();
  }

  // Numbers above all that the process is to have. (Only an administrator's krgd may raise what a
  // process may have at most.)
  Status make_room() {
    for (const ImportedFd& fd : fds_) above_ = std::max(above_, fd.number + 1);
    const rlim_t needed = static_cast<rlim_t>(above_) + fds_.size() + 8;
    rlimit limit{};
    if (prlimit(pid_, RLIMIT_NOFILE, nullptr, &limit) != 0) return errno_error("limits", ESRCH);
    if (limit.rlim_cur >= needed) return {};
    const rlimit more{needed, std::max(limit.rlim_max, needed)};
    if (prlimit(pid_, RLIMIT_NOFILE, &more, nullptr) == 0) return {};
    return cannot_move(
        fmt::format("descriptors up to {}, above its limit, at its home", above_ - 1));
  }

  // In the order of fds_, at numbers that are its own choice.
  Status take_files() {
    for (size_t at = 0; at < fds_.size(); at += kMaxPacketFds) {
      std::vector<int> some;
      for (size_t i = at; i < std::min(at + kMaxPacketFds, fds_.size()); ++i)
        some.push_back(fds_[i].fd.get());
      if (auto sent = send_packet(control_, "f", some); !sent) return sent;
      if (auto taken = take_packet(some.size()); !taken) return taken;
    }
    return {};
  }

  // Orders that the shadow has not read come first; what they were about, its image knows.
  Status take_packet(size_t count) {
    for (int lost = 0; lost < kMostLostPackets; ++lost) {
      CallBatch batch(*process_);
      const RemoteAddr bytes = batch.put(ShadowCommand{});
      const std::vector<char> room(CMSG_SPACE(count * sizeof(int)));
      const RemoteAddr ancillary = batch.put(std::span<const char>(room));
      const RemoteAddr vector =
          batch.put(iovec{reinterpret_cast<void*>(bytes.value), sizeof(ShadowCommand)});
      msghdr header{};
      header.msg_iov = reinterpret_cast<iovec*>(vector.value);
      header.msg_iovlen = 1;
      header.msg_control = reinterpret_cast<void*>(ancillary.value);
      header.msg_controllen = room.size();
      const RemoteAddr header_at = batch.put(header);
      batch.add(SYS_recvmsg, {kShadowControlFd, header_at.value, MSG_CMSG_CLOEXEC | MSG_DONTWAIT});
      if (auto run = run_all(batch, "files of a shadow"); !run) return run;
      const size_t got = batch.value<msghdr>(header_at).msg_controllen;
      if (got == 0) continue;
      if (got < CMSG_LEN(count * sizeof(int))) return errno_error("files of a shadow", EMFILE);
      for (size_t i = 0; i < count; ++i)
        taken_.push_back(batch.value<int>(ancillary + CMSG_LEN(i * sizeof(int))));
      return {};
    }
    return errno_error("files of a shadow", EPROTO);
  }

  // Out of the way first, so that none is overwritten before it is used.
  Status place_files() {
    CallBatch away(*process_);
    for (int number : taken_)
      away.add(SYS_fcntl,
               {static_cast<uint64_t>(number), F_DUPFD_CLOEXEC, static_cast<uint64_t>(above_)});
    for (int number : taken_) away.add(SYS_close, {static_cast<uint64_t>(number)});
    if (auto moved = run_all(away, "descriptors"); !moved) return moved;
    CallBatch placing(*process_);
    placing.add(SYS_fcntl, {kShadowControlFd, F_SETFD, FD_CLOEXEC});
    for (size_t i = 0; i < fds_.size(); ++i)
      placing.add(SYS_dup3, {static_cast<uint64_t>(away.result(i)),
                             static_cast<uint64_t>(fds_[i].number), 0});
    return run_all(placing, "descriptors");
  }

  Status set_attributes() {
    const ProcessAttributes& a = spec_.attributes;
    auto status = StatusText::read(pid_);
    if (!status) return status.error();
    CallBatch batch(*process_);
    const RemoteAddr cwd = batch.put(std::span(spec_.cwd.c_str(), spec_.cwd.size() + 1));
    batch.add(SYS_chdir, {cwd.value});
    batch.add(SYS_umask, {a.umask});
    batch.add(SYS_personality, {a.personality});
    const RemoteAddr by_default = batch.put(KernelSignalAction{});
    const auto ignored = status->number<uint64_t>("SigIgn", 16);
    for (unsigned signal = 1; signal <= kLastSignal; ++signal)
      if (ignored >> (signal - 1) & 1)
        batch.add(SYS_rt_sigaction, {signal, by_default.value, 0, sizeof(uint64_t)});
    if (auto set = run_all(batch, "attributes"); !set) return set;
    // Those that had the shadow go on, which krgd has sent: what the process is to take comes by
    // its body, and it would seem to have been continued.
    CallBatch taking(*process_);
    const RemoteAddr at_once = taking.put(timespec{});
    const RemoteAddr set = taking.put(uint64_t{1} << (SIGCONT - 1));
    taking.add(SYS_rt_sigtimedwait, {set.value, 0, at_once.value, sizeof(uint64_t)});
    return taking.run();
  }

  Status set_from_outside() {
    const ProcessAttributes& a = spec_.attributes;
    auto now = read_exec_caller(pid_);
    if (!now) return now.error();
    const sched_param parameter{a.realtime_priority};
    if ((now->policy != a.policy || now->realtime_priority != a.realtime_priority) &&
        sched_setscheduler(pid_, a.policy, &parameter) != 0)
      return errno_error("scheduling");
    if (now->nice != a.nice && setpriority(PRIO_PROCESS, static_cast<id_t>(pid_), a.nice) != 0)
      return errno_error("priority");
    for (size_t i = 0; i < a.limits.size(); ++i) {
      const auto which = static_cast<__rlimit_resource>(i);
      rlimit limit{};
      if (prlimit(pid_, which, nullptr, &limit) != 0) return errno_error("limits");
      if (limit.rlim_cur == a.limits[i].rlim_cur && limit.rlim_max == a.limits[i].rlim_max)
        continue;
      if (prlimit(pid_, which, &a.limits[i], nullptr) != 0) return errno_error("limits");
    }
    const std::string path = fmt::format("/proc/{}/oom_score_adj", pid_);
    int32_t adjust = 0;
    if (std::ifstream(path) >> adjust && adjust != a.oom_score_adj)
      if (std::ofstream file(path); !(file << a.oom_score_adj << std::flush))
        log_warn("exec", "process {}: oom_score_adj {} is not to be had", pid_, a.oom_score_adj);
    return {};
  }

  // Only what differs from what the shadow has; it can give up, not gain.
  Status take_credentials() {
    const ProcessAttributes& a = spec_.attributes;
    auto status = StatusText::read(pid_);
    if (!status) return status.error();
    CallBatch batch(*process_);
    const auto bounding = status->number<uint64_t>("CapBnd", 16);
    for (unsigned c = 0; c < kCapabilities; ++c)
      if ((bounding & ~a.capabilities_bounding) >> c & 1)
        batch.add(SYS_prctl, {PR_CAPBSET_DROP, c});
    const auto uids = status->ids<uid_t>("Uid");
    const auto gids = status->ids<gid_t>("Gid");
    const bool changes = uids != a.uids || gids != a.gids || groups_of(*status) != spec_.groups;
    if (changes) {
      const std::span groups(reinterpret_cast<const char*>(spec_.groups.data()),
                             spec_.groups.size() * sizeof(gid_t));
      batch.add(SYS_prctl, {PR_SET_KEEPCAPS, 1, 0, 0, 0});
      batch.add(SYS_setgroups, {spec_.groups.size(), batch.put(groups).value});
      batch.add(SYS_setresgid, {a.gids[0], a.gids[1], a.gids[2]});
      batch.add(SYS_setresuid, {a.uids[0], a.uids[1], a.uids[2]});
    }
    if (changes) add_capabilities(batch, status->number<uint64_t>("CapPrm", 16));
    if (a.no_new_privs) batch.add(SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0});
    return run_all(batch, "credentials");
  }

  // The rest is settled when it has execed (install_capabilities).
  void add_capabilities(CallBatch& batch, uint64_t permitted) {
    const ProcessAttributes& a = spec_.attributes;
    const __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, 2> data{};
    for (unsigned word = 0; word < 2; ++word) {
      const auto half = [&](uint64_t set) { return static_cast<uint32_t>(set >> (32 * word)); };
      data[word] = {half(a.capabilities_effective & permitted),
                    half(a.capabilities_permitted & permitted), half(a.capabilities_inheritable)};
    }
    batch.add(SYS_capset, {batch.put(header).value, batch.put(data).value});
    for (unsigned c = 0; c < kCapabilities; ++c)
      if (a.capabilities_ambient >> c & 1)
        batch.add(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c, 0, 0});
  }

  std::shared_ptr<FrozenProcess> process_;
  const int control_;
  const ExecSpec& spec_;
  const std::vector<ImportedFd> fds_;
  const pid_t pid_;
  int above_ = kShadowProgramFd + 1;
  std::vector<int> taken_;
};

}  // namespace

void exec_in_shadow(LentShadow shadow, const ExecSpec& spec, std::vector<ImportedFd> fds,
                    FrozenProcess::Frozen done) {
  ShadowExec(std::move(shadow), spec, std::move(fds)).run(std::move(done));
}

}  // namespace krg
