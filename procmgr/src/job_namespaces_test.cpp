// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/job_namespaces.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace krg;

namespace {

TEST(JobNamespaces, TellJobsApartAcrossForkAndSetsid) {
  if (geteuid() != 0) GTEST_SKIP() << "lacks root: needed to make namespaces";
  JobNamespaces jobs;
  const JobId one{1}, two{2};
  auto fd = jobs.descriptor(one);
  ASSERT_TRUE(fd) << fd.error().message();
  ASSERT_TRUE(jobs.descriptor(two));
  EXPECT_EQ(*jobs.descriptor(one), *fd);
  EXPECT_EQ(jobs.job_of(getpid()), std::nullopt);

  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  pid_t child = fork();
  if (child == 0) {
    if (setns(*fd, CLONE_NEWUTS) != 0) _exit(1);
    setsid();
    if (fork() == 0) setsid();
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char byte[2];
  for (int got = 0; got < 2;) got += static_cast<int>(read(ready[0], byte, 1));
  EXPECT_EQ(jobs.job_of(child), one);
  auto members = jobs.members(one);
  EXPECT_EQ(members.size(), 2u);
  EXPECT_TRUE(jobs.members(two).empty());
  for (pid_t pid : members) kill(pid, SIGKILL);
  waitpid(child, nullptr, 0);
  jobs.forget(one);
  EXPECT_EQ(jobs.jobs(), std::vector<JobId>{two});
}

}  // namespace
