// SPDX-License-Identifier: GPL-2.0-or-later
#include "signal_rules.h"

#include <gtest/gtest.h>
#include <linux/capability.h>

#include <csignal>

namespace krg {
namespace {

constexpr NodeId kSelf{1};
const PidRange kPids(kSelf, 4);
constexpr pid_t kLocal = (1 << 16) + 500, kForeign = (2 << 16) + 500;

SignalTarget target_of(pid_t pid, pid_t own_group = kLocal, NodeId leader_origin = kNoNode) {
  return signal_target(pid, own_group, leader_origin, kPids, kSelf);
}

TEST(SignalTarget, APositivePidIsOneProcess) {
  EXPECT_TRUE(std::holds_alternative<OneProcess>(target_of(kForeign)));
}

TEST(SignalTarget, MinusOneIsEverybody) {
  EXPECT_TRUE(std::holds_alternative<Everybody>(target_of(-1)));
}

TEST(SignalTarget, ZeroIsTheCallersKernelGroup) {
  const auto target = target_of(0);
  ASSERT_TRUE(std::holds_alternative<KernelGroup>(target));
  EXPECT_EQ(std::get<KernelGroup>(target).group, kLocal);
}

TEST(SignalTarget, ZeroInAGroupLedFromOutsideStaysInTheJob) {
  EXPECT_TRUE(std::holds_alternative<OutsideGroup>(target_of(0, 0)));
}

TEST(SignalTarget, ZeroInABodysGroupIsAskedWhereItsShadowIs) {
  const auto target = target_of(0, kForeign, NodeId{2});
  ASSERT_TRUE(std::holds_alternative<GroupOfShadow>(target));
  EXPECT_EQ(std::get<GroupOfShadow>(target).node, NodeId{2});
  EXPECT_EQ(std::get<GroupOfShadow>(target).body, kForeign);
}

TEST(SignalTarget, AGroupsTruthIsOnTheNodeOfItsNumber) {
  ASSERT_TRUE(std::holds_alternative<KernelGroup>(target_of(-kLocal)));
  const auto target = target_of(-kForeign);
  ASSERT_TRUE(std::holds_alternative<GroupAt>(target));
  EXPECT_EQ(std::get<GroupAt>(target).node, NodeId{2});
  EXPECT_EQ(std::get<GroupAt>(target).group, kForeign);
}

TEST(MaySignal, ComparesAsTheKernelDoes) {
  const Credentials alice{1000, 1000, 1000, 0, 0, 0, 0}, bob{1001, 1001, 1001, 0, 0, 0, 0};
  EXPECT_TRUE(may_signal(alice, alice));
  EXPECT_FALSE(may_signal(alice, bob));
  Credentials setuid_root_by_alice = alice;
  setuid_root_by_alice.effective_uid = setuid_root_by_alice.saved_uid = 0;
  EXPECT_TRUE(may_signal(alice, setuid_root_by_alice)) << "the real uid is still hers";
  Credentials effective_only = bob;
  effective_only.effective_uid = 1000;
  EXPECT_FALSE(may_signal(alice, effective_only)) << "the target's effective uid does not count";
  Credentials killer = alice;
  killer.effective_capabilities = 1u << CAP_KILL;
  EXPECT_TRUE(may_signal(killer, bob));
  const Credentials powerless_root{0, 0, 0, 0, 0, 0, 0};
  EXPECT_FALSE(may_signal(powerless_root, bob));
}

TEST(Uncatchable, IsWhatSigactionRefuses) {
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  for (int signal : {SIGKILL, SIGSTOP, SIGTSTP, SIGCONT, SIGTTIN, SIGTERM}) {
    struct sigaction before {};
    const bool refused = sigaction(signal, &ignore, &before) != 0;
    if (!refused) sigaction(signal, &before, nullptr);
    EXPECT_EQ(is_uncatchable(signal), refused) << signal;
  }
}

}  // namespace
}  // namespace krg
