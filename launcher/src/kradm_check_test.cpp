// The probes of kradm check: each says what it finds, and each notices when the thing is taken
// away. SPDX-License-Identifier: GPL-2.0-or-later
#include "kradm_check.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "check/user_namespace.h"
#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

using std::chrono::milliseconds;

TEST(RunInChild, BringsTheWholeFindingBack) {
  const Finding finding = run_in_child([] {
    Finding inner = limited("half of it");
    inner.mend = "do this";
    return inner;
  });
  EXPECT_EQ(finding.state, ProbeState::kLimited);
  EXPECT_EQ(finding.detail, "half of it");
  EXPECT_EQ(finding.mend, "do this");
}

TEST(RunInChild, NamesTheSignalThatAProbeDiedOf) {
  const Finding finding = run_in_child([]() -> Finding {
    ::signal(SIGSEGV, SIG_DFL);
    ::raise(SIGSEGV);
    return found("not reached");
  });
  EXPECT_EQ(finding.state, ProbeState::kLacking);
  EXPECT_NE(finding.detail.find("signal 11"), std::string::npos) << finding.detail;
}

TEST(RunInChild, EndsAProbeThatHangsAndWhatItStarted) {
  UniqueFd ends[2];
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  ends[0] = UniqueFd(pipe[0]);
  ends[1] = UniqueFd(pipe[1]);
  const Finding finding = run_in_child(
      []() -> Finding {
        ::fork();
        for (;;) ::pause();
      },
      milliseconds(50));
  EXPECT_EQ(finding.state, ProbeState::kLacking);
  // Both held the pipe's writing end: end of file says that both are gone.
  ends[1].reset();
  char byte;
  EXPECT_EQ(::read(ends[0].get(), &byte, 1), 0);
}

// Makes system call `number` fail with `error` in this process and its children.
void deny(long number, int error) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

// Without a system call (or two, where there is another way), the probe that needs it must not say
// that all is well.
struct Denial {
  const char* probe;
  long system_call;
  long other_call = -1;
};
class WithoutASystemCall : public testing::TestWithParam<Denial> {};

TEST_P(WithoutASystemCall, TheProbeNotices) {
  const auto [name, number, other] = GetParam();
  const auto probes = machine_probes();
  const auto probe = std::find_if(probes.begin(), probes.end(),
                                  [&](const Probe& p) { return std::string(p.name) == name; });
  ASSERT_NE(probe, probes.end());
  const Finding finding = run_in_child([&] {
    deny(number, EPERM);
    if (other >= 0) deny(other, EPERM);
    return probe->run();
  });
  EXPECT_NE(finding.state, ProbeState::kOk) << finding.detail;
  EXPECT_FALSE(finding.detail.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Each, WithoutASystemCall,
    testing::Values(Denial{"user_namespaces", SYS_unshare}, Denial{"apparmor_userns", SYS_mount},
                    Denial{"network_namespaces", SYS_unshare}, Denial{"set_tid", SYS_clone3},
                    Denial{"ns_last_pid", SYS_mount}, Denial{"timer_slack", SYS_mount},
                    Denial{"pidfd_getfd", SYS_pidfd_getfd}, Denial{"ptrace", SYS_ptrace},
                    Denial{"seccomp_notification", SYS_seccomp}, Denial{"fuse_device", SYS_openat},
                    Denial{"fuse_in_user_namespace", SYS_mount},
                    Denial{"userfaultfd", SYS_userfaultfd},
                    Denial{"userfaultfd_kernel_faults", SYS_userfaultfd, SYS_openat},
                    Denial{"dirty_pages", SYS_userfaultfd}, Denial{"open_mpi", SYS_execve},
                    Denial{"ucx", SYS_execve}, Denial{"hdf5", SYS_openat},
                    Denial{"slurm", SYS_execve}),
    [](const auto& param) { return std::string(param.param.probe); });

TEST(Probes, NamesAreUniqueAndEveryRowIsFilled) {
  std::set<std::string> names;
  for (const Probe& probe : machine_probes()) {
    EXPECT_TRUE(names.insert(probe.name).second) << probe.name;
    EXPECT_STRNE(probe.suffers, "");
    EXPECT_STRNE(probe.mend, "");
  }
}

TEST(Probes, NoneFailsByAccident) {
  for (const Probe& probe : machine_probes()) {
    const Finding finding = probe.run();
    EXPECT_EQ(finding.detail.find("the probe "), std::string::npos)
        << probe.name << ": " << finding.detail;
    EXPECT_EQ(finding.detail.find("no answer"), std::string::npos)
        << probe.name << ": " << finding.detail;
  }
}

TEST(Probes, TheMachinesPidLimitIsLeftAlone) {
  const auto read_limit = [] {
    UniqueFd file(::open("/proc/sys/kernel/pid_max", O_RDONLY | O_CLOEXEC));
    char buffer[32] = {};
    EXPECT_GT(::read(file.get(), buffer, sizeof buffer - 1), 0);
    return std::string(buffer);
  };
  const std::string before = read_limit();
  probe_pid_max();
  EXPECT_EQ(read_limit(), before);
}

TEST(Probes, KernelVersionIsTheRunningOne) {
  utsname names{};
  ::uname(&names);
  EXPECT_EQ(probe_kernel_version().detail, names.release);
}

TEST(Probes, NoUserNamespacesLeftIsNamedWithItsCure) {
  const Finding finding = run_in_child([] {
    if (auto done = enter_own_namespaces(CLONE_NEWNS); !done) return lacking("no namespace at all");
    // In a user namespace of our own the limit is ours to set (namespaces(7)).
    UniqueFd limit(::open("/proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC));
    if (!limit || ::write(limit.get(), "0", 1) != 1) return lacking_errno("max_user_namespaces");
    return probe_user_namespaces();
  });
  EXPECT_EQ(finding.state, ProbeState::kLacking);
  EXPECT_EQ(finding.mend, "sysctl -w user.max_user_namespaces=15000") << finding.detail;
}

constexpr Probe kSamples[] = {
    {"good", true, "nothing", "nothing", [] { return found("there"); }},
    {"poor", false, "speed", "buy more", [] { return limited("slow"); }},
    {"gone", false, "comfort", "general cure",
     [] {
       return Finding{ProbeState::kLacking, "not there", "special cure"};
     }},
};

TEST(CheckReport, NamesWhatSuffersAndTheSpecialCureFirst) {
  const nlohmann::json report = check_report(kSamples);
  ASSERT_EQ(report["probes"].size(), 3u);
  EXPECT_EQ(report["probes"][0]["state"], "ok");
  EXPECT_FALSE(report["probes"][0].contains("mend"));
  EXPECT_EQ(report["probes"][1]["state"], "limited");
  EXPECT_EQ(report["probes"][1]["mend"], "buy more");
  EXPECT_EQ(report["probes"][2]["mend"], "special cure");
  const std::string text = format_check_report(report);
  EXPECT_NE(text.find("suffers: comfort"), std::string::npos) << text;
  EXPECT_EQ(text.find("general cure"), std::string::npos) << text;
}

TEST(CheckReport, OnlyALackOfSomethingRequiredFails) {
  EXPECT_FALSE(lacks_required(check_report(kSamples)));
  constexpr Probe kRequired[] = {{"gone", true, "all", "none", [] { return lacking("no"); }}};
  EXPECT_TRUE(lacks_required(check_report(kRequired)));
}

TEST(KradmCheck, RefusesUnknownArguments) {
  const std::string arguments[] = {"--jason"};
  EXPECT_EQ(kradm_check(arguments), 2);
}

}  // namespace
}  // namespace krg
