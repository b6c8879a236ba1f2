// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/capabilities.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

constexpr Capability kChange = Capability::kChangeKerrighedCap;
constexpr Capability kFork = Capability::kDistantFork;
constexpr Capability kLocalStat = Capability::kSeeLocalProcStat;

int errno_of(const Result<CapabilitySets>& result) {
  return result ? 0 : result.error().errno_or(-1);
}

TEST(Capabilities, NamesAndBitsAreTheOriginals) {
  EXPECT_EQ(capability_name(Capability::kChangeKerrighedCap), "CHANGE_KERRIGHED_CAP");
  EXPECT_EQ(capability_name(Capability::kSyscallExitHook), "SYSCALL_EXIT_HOOK");
  for (unsigned i = 0; i < kCapabilityCount; ++i)
    EXPECT_EQ(find_capability(capability_name(static_cast<Capability>(i))),
              static_cast<Capability>(i));
  EXPECT_EQ(find_capability("CAN_CHECKPOINT"), Capability::kCheckpointable);
  EXPECT_EQ(find_capability("USE_CONTAINERS"), Capability::kUseRemoteMemory);
  EXPECT_EQ(find_capability("CAP_DISTANT_FORK"), kFork);
  EXPECT_FALSE(find_capability("DISTANT"));
  EXPECT_FALSE(find_capability(""));
}

TEST(Capabilities, ParsesListsChangesAndOctal) {
  CapabilitySet old = capability_set({kChange, Capability::kDebug});
  auto parse = [old](std::string_view text) {
    Result<CapabilitySet> set = parse_capability_set(text, old);
    return set ? static_cast<int>(set->bits) : -1;
  };
  EXPECT_EQ(parse("+DISTANT_FORK"), 02005);
  EXPECT_EQ(parse("-DEBUG"), 01);
  EXPECT_EQ(parse("+DISTANT_FORK,-DEBUG"), 05);
  EXPECT_EQ(parse("+DISTANT_FORK,FORK_DELAY"), 02015) << "the sign holds for the rest of the list";
  EXPECT_EQ(parse("-DEBUG,CHANGE_KERRIGHED_CAP"), 0);
  EXPECT_EQ(parse("DISTANT_FORK,CAN_MIGRATE"), 06);
  EXPECT_EQ(parse("043"), 043);
  EXPECT_EQ(parse("43"), 043);
  EXPECT_EQ(parse("0"), 0);
  EXPECT_EQ(parse("020000"), -1) << "bit 13 names nothing";
  EXPECT_EQ(parse("09"), -1);
  EXPECT_EQ(parse(""), -1);
  EXPECT_EQ(parse("+"), -1);
  EXPECT_EQ(parse("+DISTANT_FORK,"), -1);
  EXPECT_EQ(parse("+distant_fork"), -1);
}

TEST(Capabilities, PrintsAsTheOriginal) {
  CapabilitySets sets{{043}, {07}, {0}, {01}};
  EXPECT_EQ(format_capabilities(sets),
            "Permitted Capabilities: 07\n"
            "\tCHANGE_KERRIGHED_CAP, CAN_MIGRATE, DISTANT_FORK\n"
            "Effective Capabilities: 043\n"
            "\tCHANGE_KERRIGHED_CAP, CAN_MIGRATE, USE_REMOTE_MEMORY\n"
            "Inheritable Permitted Capabilities: 01\n"
            "\tCHANGE_KERRIGHED_CAP\n"
            "Inheritable Effective Capabilities: 00\n"
            "\n");
}

TEST(Capabilities, PrintedLinesFitEightyColumns) {
  CapabilitySets sets{{017777}, {017777}, {017777}, {017777}};
  std::string text = format_capabilities(sets);
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\n', at);
    EXPECT_LE(end - at, 80u - 7u) << "a tab is eight columns: " << text.substr(at, end - at);
    at = end + 1;
  }
}

TEST(Capabilities, AJobStartsLikeTheOriginalsInit) {
  CapabilitySets sets = initial_capabilities();
  EXPECT_EQ(sets.permitted, kSupportedCapabilities);
  EXPECT_EQ(sets.inheritable_permitted, kSupportedCapabilities);
  EXPECT_EQ(sets.effective, capability_set({kChange}));
  EXPECT_EQ(sets.inheritable_effective, capability_set({kChange}));
  EXPECT_EQ(sets.at_fork(), sets) << "a process without a mark of its own has exactly these";
}

TEST(Capabilities, AJobsListSetsBothEffectiveSets) {
  Result<CapabilitySets> sets = initial_capabilities("+DISTANT_FORK");
  ASSERT_TRUE(sets);
  EXPECT_EQ(sets->effective, capability_set({kChange, kFork}));
  EXPECT_EQ(sets->inheritable_effective, capability_set({kChange, kFork}));
  EXPECT_EQ(sets->permitted, kSupportedCapabilities);
  EXPECT_EQ(errno_of(initial_capabilities("+FORK_DELAY")), ENOSYS);
  EXPECT_EQ(errno_of(initial_capabilities("+NONE")), EINVAL);
}

TEST(Capabilities, WhatAChildInherits) {
  CapabilitySets sets{capability_set({kChange, kFork}),
                      capability_set({kChange, kFork, kLocalStat}),
                      capability_set({kChange, kLocalStat}), capability_set({kChange, kLocalStat})};
  CapabilitySets child = sets.at_fork();
  EXPECT_EQ(child.effective, capability_set({kChange, kLocalStat}));
  EXPECT_EQ(child.permitted, capability_set({kChange, kLocalStat}));
  EXPECT_EQ(child.inheritable_effective, sets.inheritable_effective);
  EXPECT_EQ(child.inheritable_permitted, sets.inheritable_permitted);
  EXPECT_EQ(child.at_fork(), child) << "a grandchild has what the child has";
}

class ChangeTest : public testing::Test {
 protected:
  CapabilitySets old_ = initial_capabilities();
};

TEST_F(ChangeTest, ASetThatIsNotNamedStays) {
  Result<CapabilitySets> now =
      change_capabilities(old_, {.effective = capability_set({kChange, kFork})});
  ASSERT_TRUE(now);
  CapabilitySets expected = old_;
  expected.effective = capability_set({kChange, kFork});
  EXPECT_EQ(*now, expected);
}

TEST_F(ChangeTest, EffectiveMustBePermitted) {
  EXPECT_EQ(
      errno_of(change_capabilities(old_, {.effective = capability_set({kFork}),
                                          .permitted = capability_set({kChange}),
                                          .inheritable_permitted = capability_set({kChange})})),
      EINVAL);
}

TEST_F(ChangeTest, InheritablePermittedMustBePermitted) {
  EXPECT_EQ(errno_of(change_capabilities(old_, {.permitted = capability_set({kChange})})), EINVAL);
}

TEST_F(ChangeTest, InheritableEffectiveMustBeInheritablePermitted) {
  EXPECT_EQ(errno_of(change_capabilities(old_, {.inheritable_permitted = CapabilitySet{}})),
            EINVAL);
}

TEST_F(ChangeTest, UnsupportedIsEnosysInEverySet) {
  CapabilitySet delay = capability_set({kChange, Capability::kForkDelay});
  EXPECT_EQ(errno_of(change_capabilities(old_, {.effective = delay})), ENOSYS);
  EXPECT_EQ(errno_of(change_capabilities(old_, {.permitted = delay})), ENOSYS);
  EXPECT_EQ(errno_of(change_capabilities(old_, {.inheritable_effective = delay})), ENOSYS);
  EXPECT_EQ(errno_of(change_capabilities(old_, {.inheritable_permitted = delay})), ENOSYS);
}

TEST_F(ChangeTest, NeedsChangeKerrighedCap) {
  Result<CapabilitySets> dropped = change_capabilities(old_, {.effective = CapabilitySet{}});
  ASSERT_TRUE(dropped);
  EXPECT_EQ(errno_of(change_capabilities(*dropped, {.effective = capability_set({kChange})})),
            EPERM)
      << "permitted is not enough";
}

TEST_F(ChangeTest, WhatIsInUseCannotBeDropped) {
  old_.effective = capability_set({kChange, kFork});
  CapabilitySet in_use = capability_set({kFork});
  EXPECT_EQ(errno_of(change_capabilities(old_, {.effective = capability_set({kChange})}, in_use)),
            EBUSY);
  EXPECT_EQ(errno_of(change_capabilities(old_, {.effective = capability_set({kFork})}, in_use)), 0);
}

TEST_F(ChangeTest, PermittedOnlyShrinks) {
  CapabilitySet change = capability_set({kChange});
  Result<CapabilitySets> less =
      change_capabilities(old_, {.permitted = change, .inheritable_permitted = change});
  ASSERT_TRUE(less);
  EXPECT_EQ(less->permitted, change);
  Result<CapabilitySets> more =
      change_capabilities(*less, {.effective = capability_set({kChange, kFork}),
                                  .permitted = kSupportedCapabilities,
                                  .inheritable_effective = capability_set({kFork}),
                                  .inheritable_permitted = kSupportedCapabilities});
  ASSERT_TRUE(more) << "asking for more than there is left is no error";
  EXPECT_EQ(more->permitted, change);
  EXPECT_EQ(more->effective, change);
  EXPECT_EQ(more->inheritable_permitted, change);
  EXPECT_EQ(more->inheritable_effective, CapabilitySet{});
}

}  // namespace
}  // namespace krg
