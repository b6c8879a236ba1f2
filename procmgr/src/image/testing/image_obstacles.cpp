// What images cannot have. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <thread>

#include "image/testing/image_tracee.h"

namespace krg::testing {
namespace {

std::string scratch_file() {
  char path[] = "/tmp/image_tracee_XXXXXX";
  const int file = mkstemp(path);
  must(file >= 0 && ftruncate(file, 8192) == 0, "mkstemp");
  close(file);
  return path;
}

// A deleted one that is not to be written: else it counts as shared with others.
void map_shared_file(bool deleted) {
  const std::string path = scratch_file();
  const int file = open(path.c_str(), deleted ? O_RDONLY : O_RDWR);
  if (deleted) unlink(path.c_str());
  mmap(nullptr, 8192, deleted ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (!deleted) {  // gone when the test ends, there when it looks
    static std::string remembered = path;
    atexit([] { unlink(remembered.c_str()); });
  }
  close(file);
}

void map_ring() {
  io_uring_params params{};
  const auto ring = static_cast<int>(syscall(SYS_io_uring_setup, 1, &params));
  must(ring >= 0, "io_uring_setup");
  void* queue = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  must(queue != MAP_FAILED, "mmap of a ring");
}

void watch_memory() {
  const auto file = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
  uffdio_api api{UFFD_API, 0, 0};
  void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uffdio_register range{
      {reinterpret_cast<uint64_t>(memory), 4096}, UFFDIO_REGISTER_MODE_MISSING, 0};
  must(file >= 0 && ioctl(file, UFFDIO_API, &api) == 0 && ioctl(file, UFFDIO_REGISTER, &range) == 0,
       "userfaultfd");
}

void have_deadlines() {
  struct {
    uint32_t size = 48, policy = SCHED_DEADLINE;
    uint64_t flags = 0;
    int32_t nice = 0;
    uint32_t priority = 0;
    uint64_t runtime = 1'000'000, deadline = 100'000'000, period = 100'000'000;
  } wanted;
  must(syscall(SYS_sched_setattr, 0, &wanted, 0) == 0, "sched_setattr");
}

}  // namespace

int meet_obstacle(const std::string& what) {
  if (what == "shared")
    mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (what == "shared_file") map_shared_file(false);
  if (what == "deleted_file") map_shared_file(true);
  if (what == "memfd") {
    const int file = memfd_create("of its own", 0);
    must(ftruncate(file, 4096) == 0, "memfd");
    mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file, 0);
  }
  if (what == "aio") {
    unsigned long context = 0;
    must(syscall(SYS_io_setup, 1, &context) == 0, "io_setup");
  }
  if (what == "io_uring") map_ring();
  if (what == "userfaultfd") watch_memory();
  if (what == "securebits") must(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT) == 0, "securebits");
  if (what == "deadline") have_deadlines();
  if (what == "chroot") must(chroot("/tmp") == 0, "chroot");
  if (what == "ipc_namespace") must(unshare(CLONE_NEWIPC) == 0, "unshare");
  if (what == "folders") {
    std::atomic<bool> is_apart = false;
    std::thread([&] {
      unshare(CLONE_FS);
      is_apart = true;
      pause();
    }).detach();
    while (!is_apart) usleep(100);
  }
  if (what == "cpu_timer") {
    timer_t timer;
    timer_create(CLOCK_PROCESS_CPUTIME_ID, nullptr, &timer);
  }
  if (what == "main_thread") {
    std::thread([] {
      while (text_of("/proc/self/stat").find(") Z") == std::string::npos) usleep(1000);
      say("ready");
      wait_for_byte();
      say("done");
      exit(0);
    }).detach();
    pthread_exit(nullptr);
  }
  say("ready");
  wait_for_byte();
  return 0;
}

}  // namespace krg::testing
