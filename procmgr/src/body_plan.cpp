// SPDX-License-Identifier: GPL-2.0-or-later
#include "body_plan.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>

#include "event_fds.h"
#include "kernel_values.h"
#include "processor_numbers.h"

namespace krg {
namespace {

constexpr unsigned kCapabilities = 64;
constexpr size_t kMaskBytes = 1024;  // 8,192 processors, the kernel's most (NR_CPUS)

Result<UniqueFd> moved_above(UniqueFd fd, int lowest) {
  if (fd.get() >= lowest) return fd;
  UniqueFd moved(fcntl(fd.get(), F_DUPFD_CLOEXEC, lowest));
  if (!moved) return errno_error("descriptors of the body", errno == EINVAL ? EMFILE : errno);
  return moved;
}

uint64_t permitted_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return 0;
  return data[0].permitted | uint64_t{data[1].permitted} << 32;
}

}  // namespace

KrgdAttributes KrgdAttributes::read() {
  KrgdAttributes own;
  own.permitted = permitted_capabilities();
  for (unsigned c = 0; c < kCapabilities; ++c)
    if (prctl(PR_CAPBSET_READ, c, 0, 0, 0) == 1) own.bounding |= uint64_t{1} << c;
  for (size_t i = 0; i < own.limits.size(); ++i)
    getrlimit(static_cast<__rlimit_resource>(i), &own.limits[i]);
  for (int signal = 1; signal <= static_cast<int>(kLastSignal); ++signal) {
    struct sigaction action {};
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN)
      own.ignored_signals |= uint64_t{1} << (signal - 1);
  }
  own.policy = sched_getscheduler(0);
  own.nice = getpriority(PRIO_PROCESS, 0);
  getresuid(&own.uids[0], &own.uids[1], &own.uids[2]);
  getresgid(&own.gids[0], &own.gids[1], &own.gids[2]);
  own.groups.resize(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
  const int count = getgroups(static_cast<int>(own.groups.size()), own.groups.data());
  own.groups.resize(static_cast<size_t>(std::max(count, 0)));
  return own;
}

const char* name_of(BodyStage stage) {
  switch (stage) {
    case BodyStage::kJoinSession:
      return "join the session";
    case BodyStage::kChangeDirectory:
      return "working directory";
    case BodyStage::kAttributes:
      return "attributes";
    case BodyStage::kDescriptors:
      return "descriptors";
    case BodyStage::kFilter:
      return "system call filter";
    case BodyStage::kCredentials:
      return "credentials";
    case BodyStage::kExec:
      return "exec";
  }
  return "?";
}

BodyPlan::BodyPlan(ExecSpec from, BodyPlace where, const KrgdAttributes& krgds)
    : spec(std::move(from)),
      place(where),
      argv(spec.argv.pointers()),
      environment(spec.environment.pointers()),
      own(krgds) {
  message.msg_iov = &report_vector;
  message.msg_iovlen = 1;
  cmsghdr header{};
  header.cmsg_len = CMSG_LEN(sizeof(int));
  header.cmsg_level = SOL_SOCKET;
  header.cmsg_type = SCM_RIGHTS;
  *reinterpret_cast<cmsghdr*>(ancillary) = header;
}

Result<std::unique_ptr<BodyPlan>> BodyPlan::make(ExecSpec spec, std::vector<ImportedFd> fds,
                                                 std::span<const sock_filter> filter,
                                                 UniqueFd control, BodyPlace place,
                                                 const KrgdAttributes& own) {
  std::unique_ptr<BodyPlan> plan(new BodyPlan(std::move(spec), place, own));
  plan->filter.len = static_cast<unsigned short>(filter.size());
  plan->filter.filter = const_cast<sock_filter*>(filter.data());
  if (const auto& places = plan->spec.processors; !places.empty()) {
    const ProcessorSet own = processors_of_thread(getpid());
    plan->processors = mask_of_set(at_places(places, own), kMaskBytes);
  }
  int lowest = 0;
  for (const ImportedFd& wanted : fds) lowest = std::max(lowest, wanted.number + 1);
  for (ImportedFd& wanted : fds) {
    auto moved = moved_above(std::move(wanted.fd), lowest);
    if (!moved) return moved.error();
    plan->fds.push_back({moved->get(), wanted.number});
    for (const PolledFd& polled : polled_by(wanted.polled))
      plan->polled.push_back({wanted.number, polled.number, {polled.events, {.u64 = polled.data}}});
    plan->open_in_krgd_.push_back(std::move(*moved));
  }
  auto moved = moved_above(std::move(control), lowest);
  if (!moved) return moved.error();
  plan->control = moved->get();
  plan->open_in_krgd_.push_back(std::move(*moved));
  return plan;
}

void BodyPlan::close_in_krgd() {
  open_in_krgd_.clear();
}

}  // namespace krg
