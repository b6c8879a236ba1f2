// Programs whose images tests take: each says "ready" when it is to be moved, goes on when a byte
// comes (or by itself), and says what it found. The exit status is 0 when all was as if nothing had
// been.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "image/testing/image_tracee.h"

using krg::testing::must;
using krg::testing::say;
using krg::testing::text_of;
using krg::testing::wait_for_byte;

namespace {

double now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

std::string link_of(const char* path) {
  char target[4096];
  const ssize_t length = readlink(path, target, sizeof target);
  return length < 0 ? "" : std::string(target, static_cast<size_t>(length));
}
// ---- memory: everything a program may have ----

thread_local int tls_value = 0;
int data_value = 1;
std::map<int, std::string> heap_values;
volatile std::sig_atomic_t signalled = 0;

// What the kernel says of the calling thread's privileges and signals.
std::string privileges() {
  std::string found;
  FILE* file = fopen("/proc/thread-self/status", "r");
  char line[512];
  while (file && fgets(line, sizeof line, file))
    for (const char* key :
         {"Name:", "Uid:", "Gid:", "Groups:", "Cap", "SigB", "SigC", "SigI", "Tgid:"})
      if (strncmp(line, key, strlen(key)) == 0) found += line;
  if (file) fclose(file);
  return found;
}

std::string identity() {
  std::string all = std::to_string(getpid()) + " " + link_of("/proc/self/exe") + " " +
                    link_of("/proc/self/cwd") + " " + text_of("/proc/self/comm") +
                    text_of("/proc/self/cmdline") + text_of("/proc/self/environ") +
                    text_of("/proc/self/auxv") + text_of("/proc/self/limits");
  const mode_t mask = umask(0);
  umask(mask);
  return all + privileges() + std::to_string(mask) + " " + std::to_string(prctl(PR_GET_DUMPABLE));
}

// As deep as the stack has never been.
int recurse(int depth) {
  volatile char frame[4096];
  frame[0] = static_cast<char>(depth);
  return depth == 0 ? frame[0] : recurse(depth - 1) + (frame[0] == static_cast<char>(depth));
}

int check_memory() {
  constexpr size_t kPages = 64, kPage = 4096;
  tls_value = 77;
  data_value = 78;
  for (int i = 0; i < 5000; ++i) heap_values[i] = std::string(100, static_cast<char>('a' + i % 26));
  auto* anonymous = static_cast<char*>(
      mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (size_t i = 0; i < kPages; i += 2) anonymous[i * kPage + 5] = static_cast<char>(i + 1);
  mprotect(anonymous, kPage, PROT_READ);              // content that is only to be read
  mprotect(anonymous + 2 * kPage, kPage, PROT_NONE);  // or not even that
  madvise(anonymous + 10 * kPage, kPage, MADV_DONTFORK);
  const int file = open(link_of("/proc/self/exe").c_str(), O_RDONLY);
  auto* of_file =
      static_cast<char*>(mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
  close(file);
  of_file[kPage] = 'X';
  prctl(PR_SET_NAME, "renamed");
  umask(0027);
  void* end_of_heap = sbrk(4096 * 3 + 100);
  const std::string before = identity();
  const int open_before = open("/dev/null", O_RDONLY);
  close(open_before);
  say("ready");
  wait_for_byte();

  must(identity() == before, "identity");
  must(tls_value == 77 && data_value == 78, "variables");
  for (int i = 0; i < 5000; ++i)
    must(heap_values[i] == std::string(100, static_cast<char>('a' + i % 26)), "heap");
  mprotect(anonymous + 2 * kPage, kPage, PROT_READ);
  for (size_t i = 0; i < kPages; ++i)
    must(anonymous[i * kPage + 5] == (i % 2 == 0 ? static_cast<char>(i + 1) : 0), "pages");
  must(memcmp(of_file, "\177ELF", 4) == 0 && of_file[kPage] == 'X', "mapping of a file");
  must(sbrk(0) == static_cast<char*>(end_of_heap) + 4096 * 3 + 100, "break");
  must(recurse(500) == 500, "stack grows");
  must(sbrk(1 << 20) != reinterpret_cast<void*>(-1), "heap grows");
  const int open_after = open("/dev/null", O_RDONLY);
  must(open_after == open_before, "no descriptor is left behind");
  const pid_t child = fork();
  if (child == 0) _exit(17);
  int status = 0;
  must(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 17, "fork");
  std::thread([] { must(tls_value == 0, "TLS of a new thread"); }).join();
  return 0;
}

// ---- registers: nothing but a loop ----

int check_registers() {
  struct sigaction action {};
  action.sa_handler = [](int) { signalled = 1; };
  sigaction(SIGUSR1, &action, nullptr);
  alignas(32) unsigned char in[16][32], out[16][32];
  for (int r = 0; r < 16; ++r) memset(in[r], r * 7 + 1, sizeof in[r]);
  uint64_t general[4] = {0x1111, 0x2222, 0x3333, 0x4444};
  say("ready");
  asm volatile(
      "vmovdqa 0(%[in]), %%ymm0\n vmovdqa 32(%[in]), %%ymm1\n vmovdqa 224(%[in]), %%ymm7\n"
      "vmovdqa 480(%[in]), %%ymm15\n"
      "mov 0(%[g]), %%r12\n mov 8(%[g]), %%r13\n mov 16(%[g]), %%r14\n mov 24(%[g]), %%r15\n"
      "1: cmpl $0, (%[flag])\n"
      "je 1b\n"
      "vmovdqa %%ymm0, 0(%[out])\n vmovdqa %%ymm1, 32(%[out])\n vmovdqa %%ymm7, 224(%[out])\n"
      "vmovdqa %%ymm15, 480(%[out])\n"
      "mov %%r12, 0(%[g])\n mov %%r13, 8(%[g])\n mov %%r14, 16(%[g])\n mov %%r15, 24(%[g])\n"
      :
      : [in] "r"(in), [out] "r"(out), [g] "r"(general), [flag] "r"(&signalled)
      : "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm7", "xmm15", "memory", "cc");
  for (int r : {0, 1, 7, 15}) must(memcmp(in[r], out[r], 32) == 0, "vector registers");
  must(general[0] == 0x1111 && general[3] == 0x4444, "general registers");
  return 0;
}

// ---- signals ----

bool is_blocked(int signal) {
  sigset_t mask;
  sigprocmask(SIG_SETMASK, nullptr, &mask);
  return sigismember(&mask, signal) == 1;
}

std::atomic<int> handled_value = 0;

int check_signals() {
  static std::array<char, 65536> stack;
  const stack_t alternate{stack.data(), 0, stack.size()};
  sigaltstack(&alternate, nullptr);
  struct sigaction action {};
  action.sa_sigaction = [](int, siginfo_t*, void*) {
    char here;
    say("ready");
    wait_for_byte();
    must(&here > stack.data() && &here < stack.data() + stack.size(), "the alternate stack");
    must(is_blocked(SIGUSR1) && is_blocked(SIGHUP) && !is_blocked(SIGTERM), "mask of the handler");
    stack_t now{};
    sigaltstack(nullptr, &now);
    must(now.ss_flags == SS_ONSTACK && now.ss_sp == stack.data(), "sigaltstack");
    signalled = 1;
  };
  action.sa_flags = SA_ONSTACK | SA_SIGINFO;
  sigaddset(&action.sa_mask, SIGHUP);
  sigaction(SIGUSR1, &action, nullptr);
  struct sigaction valued {};
  valued.sa_sigaction = [](int, siginfo_t* info, void*) {
    handled_value = info->si_value.sival_int;
  };
  valued.sa_flags = SA_SIGINFO;
  sigaction(SIGRTMIN, &valued, nullptr);
  signal(SIGINT, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  sigqueue(getpid(), SIGRTMIN, sigval{.sival_int = 1234});
  raise(SIGUSR1);
  must(signalled == 1 && !is_blocked(SIGUSR1), "return from the handler");
  struct sigaction found {};
  sigaction(SIGINT, nullptr, &found);
  must(found.sa_handler == SIG_IGN, "ignored signal");
  must(handled_value == 0, "blocked signal");
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
  must(handled_value == 1234, "signal that waited");
  return 0;
}

// ---- functions of the kernel that the C library knows ----

// Each says what the system call says.
int check_clocks() {
  say("ready");
  wait_for_byte();
  for (int i = 0; i < 1000; ++i) {
    for (const clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME,
                                  CLOCK_REALTIME_COARSE, CLOCK_PROCESS_CPUTIME_ID}) {
      timespec before, here, after, resolution, told;
      syscall(SYS_clock_gettime, clock, &before);
      must(clock_gettime(clock, &here) == 0, "clock_gettime");
      syscall(SYS_clock_gettime, clock, &after);
      const auto ns = [](const timespec& time) { return time.tv_sec * 1e9 + time.tv_nsec; };
      must(ns(before) <= ns(here) && ns(here) <= ns(after), "a clock");
      syscall(SYS_clock_getres, clock, &told);
      must(clock_getres(clock, &resolution) == 0 && resolution.tv_nsec == told.tv_nsec,
           "clock_getres");
    }
    timeval now{};
    must(gettimeofday(&now, nullptr) == 0 && std::abs(time(nullptr) - now.tv_sec) <= 1, "time");
    must(sched_getcpu() >= 0, "getcpu");
  }
  return 0;
}

// ---- calls that last ----

int check_sleep() {
  timespec left{0, 400'000'000};
  const double begin = now();
  say("ready");
  const int result = clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left);
  must(result == 0, "sleep");
  must(now() - begin >= 0.4 && now() - begin < 5, "time slept");
  return 0;
}

int check_poll() {
  pollfd input{0, POLLIN, 0};
  say("ready");
  must(poll(&input, 1, 60'000) == 1 && (input.revents & POLLIN), "poll");
  wait_for_byte();
  return 0;
}

int check_timers() {
  struct sigaction action {};
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    handled_value += info->si_value.sival_int;
  };
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGRTMIN, &action, nullptr);
  action.sa_sigaction = [](int, siginfo_t*, void*) { signalled = 1; };
  sigaction(SIGALRM, &action, nullptr);
  timer_t timers[2];
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN;
  event.sigev_value.sival_int = 55;
  for (timer_t& timer : timers)
    must(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
  timer_delete(timers[0]);
  const itimerspec once{{0, 0}, {0, 300'000'000}};
  timer_settime(timers[1], 0, &once, nullptr);
  const itimerval alarm{{0, 0}, {0, 350'000}};
  setitimer(ITIMER_REAL, &alarm, nullptr);
  sigset_t none;
  sigemptyset(&none);
  say("ready");
  wait_for_byte();
  while (signalled == 0 || handled_value == 0) usleep(1000);
  must(handled_value == 55, "value of the timer");
  must(timer_delete(timers[1]) == 0, "id of the timer");
  return 0;
}

// ---- threads ----

int check_threads(int count) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
  std::atomic<bool> go_on = false;
  std::atomic<int> running = 0;
  uint64_t sum = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i)
    threads.emplace_back([&, i] {
      tls_value = i;
      setpriority(PRIO_PROCESS, 0, i % 3);
      const auto tid = syscall(SYS_gettid);
      const std::string name = "thread " + std::to_string(i);
      prctl(PR_SET_NAME, name.c_str());
      const std::string before = privileges();
      ++running;
      if (i % 2 == 0) {  // waits in the kernel
        pthread_mutex_lock(&mutex);
        while (!go_on) pthread_cond_wait(&changed, &mutex);
        pthread_mutex_unlock(&mutex);
      }
      uint64_t own = 0;
      while (!go_on) {
        ++own;
        pthread_mutex_lock(&mutex);
        ++sum;
        pthread_mutex_unlock(&mutex);
      }
      char now[16] = "";
      prctl(PR_GET_NAME, now);
      must(name == now, "name of a thread");
      must(privileges() == before, "privileges of a thread");
      must(tls_value == i, "TLS");
      must(getpriority(PRIO_PROCESS, 0) == i % 3, "priority of a thread");
      must(syscall(SYS_gettid) == tid, "id of a thread");
      pthread_mutex_lock(&mutex);
      sum -= own;
      pthread_mutex_unlock(&mutex);
    });
  while (running < count) usleep(100);
  say("ready");
  wait_for_byte();
  pthread_mutex_lock(&mutex);
  go_on = true;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
  for (auto& thread : threads) thread.join();
  must(sum == 0, "sum of what the threads did");
  return 0;
}

// ---- a fork ----

int check_fork() {
  tls_value = 77;
  heap_values[1] = "heap";
  const pid_t parent = getpid();
  say("ready");
  wait_for_byte();
  const pid_t child = fork();
  if (child == 0) {
    must(tls_value == 77 && heap_values[1] == "heap", "memory of the child");
    must(getpid() != parent && getpid() == syscall(SYS_gettid), "id of the child");
    std::thread([] { data_value = 5; }).join();
    must(data_value == 5, "a thread of the child");
    say("child");
    _exit(0);
  }
  int status = 0;
  must(waitpid(child, &status, 0) == child, "the parent's wait");
  must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the parent sees the end");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  int result = 2;
  if (what == "memory") result = check_memory();
  if (what == "registers") result = check_registers();
  if (what == "signals") result = check_signals();
  if (what == "sleep") result = check_sleep();
  if (what == "poll") result = check_poll();
  if (what == "clocks") result = check_clocks();
  if (what == "timers") result = check_timers();
  if (what == "obstacle") result = krg::testing::meet_obstacle(argc > 2 ? argv[2] : "");
  if (what == "fork") result = check_fork();
  if (what == "threads") result = check_threads(argc > 2 ? atoi(argv[2]) : 1);
  if (result == 0) say("done");
  return result;
}
