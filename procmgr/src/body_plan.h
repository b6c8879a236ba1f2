// BodyPlan: all that a body does between clone3 and exec, laid out before it exists. The child
// shares krgd's memory until it execs, while krgd goes on: it must not allocate, nor use the C
// library (errno is krgd's), nor write anything but this plan.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/filter.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "krg/procmgr/descriptors.h"
#include "krg/procmgr/exec_spec.h"

namespace krg {

// What a body was doing when it failed. All but the last mean that it cannot be had on this node.
enum class BodyStage : uint32_t {
  kJoinSession,
  kChangeDirectory,
  kAttributes,
  kDescriptors,
  kFilter,
  kCredentials,
  kExec,
};
const char* name_of(BodyStage stage);

// What a body says on its control socket: that the filter's listener comes with this packet, or
// why it ends. End of file without a failure: exec succeeded.
struct BodyReport {
  enum Kind : uint32_t { kListener, kFailure };
  Kind kind;
  BodyStage stage;
  int32_t error;
};

// Which namespaces the body joins; -1: it stays in krgd's own.
struct BodyPlace {
  int mount_ns = -1, uts_ns = -1;
  bool own_session = false;  // not krgd's
};

// What a child of krgd's has to begin with. krgd does not change it once it serves.
struct KrgdAttributes {
  static KrgdAttributes read();
  uint64_t bounding = 0, permitted = 0;  // capabilities
  std::array<rlimit, RLIM_NLIMITS> limits{};
  uint64_t ignored_signals = 0;
  int policy = 0, nice = 0;
  std::array<uid_t, 3> uids{};  // real, effective, saved
  std::array<gid_t, 3> gids{};
  std::vector<gid_t> groups;
};

// CAP_CHECKPOINT_RESTORE.
inline constexpr uint64_t kChooseThreadIds = uint64_t{1} << 40;

struct BodyPlan {
  // `filter` may be empty; it and `own` outlive the plan; `control` is the child's end of its
  // control socket. Errors: EMFILE when krgd may not have descriptors above those that the body
  // wants.
  static Result<std::unique_ptr<BodyPlan>> make(ExecSpec spec, std::vector<ImportedFd> fds,
                                                std::span<const sock_filter> filter,
                                                UniqueFd control, BodyPlace place,
                                                const KrgdAttributes& own);
  BodyPlan(const BodyPlan&) = delete;
  BodyPlan& operator=(const BodyPlan&) = delete;

  const ExecSpec spec;
  const BodyPlace place;
  sock_fprog filter{};
  // krgd's numbers, which lie above every number that the body wants.
  struct Placed {
    int source, number;
  };
  std::vector<Placed> fds;
  // What its epoll instances watch. It adds that itself: krgd, of whose file system some of it is,
  // would wait for its own answer.
  struct Polled {
    int instance, number;
    epoll_event event;
  };
  std::vector<Polled> polled;
  int control = -1;
  const std::vector<char*> argv, environment;  // of the spec
  uint64_t kept_capabilities = 0;  // that its exec leaves it although the spec has them not
  std::optional<uint64_t> timer_slack_ns;
  std::string processors;              // a mask, as sched_setaffinity(2) takes it; empty: as krgd
  std::atomic<uint32_t> may_exec = 0;  // a futex: krgd has told its tables of the body

  const KrgdAttributes& own;

  // Closes krgd's copies of the above; the child has its own once it exists.
  void close_in_krgd();

  // The control packet.
  BodyReport report{};
  iovec report_vector{&report, sizeof report};
  alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};

 private:
  BodyPlan(ExecSpec spec, BodyPlace place, const KrgdAttributes& own);
  std::vector<UniqueFd> open_in_krgd_;
};

// The child: never returns.
[[noreturn]] void run_body(BodyPlan& plan);

}  // namespace krg
