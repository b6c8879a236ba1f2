/* States: restartable sequences, registers, and what prctl(2) says.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/rseq.h>

#include "states.h"

/* --- restartable sequences --- */

enum { kSequencers = 3, kMostProcessors = 4096 };
static volatile long counters[kMostProcessors];

static struct rseq* own_area(void) {
  return (struct rseq*)((char*)__builtin_thread_pointer() + __rseq_offset);
}
/* Adds one to this processor's counter, slowly: 0 when it was interrupted, which then has left no
 * trace. */
static int add_here(struct rseq* area) {
  __asm__ goto(
      ".pushsection __rseq_cs, \"aw\"\n .balign 32\n"
      "3: .long 0, 0\n .quad 1f, 2f - 1f, 4f\n .popsection\n"
      "leaq 3b(%%rip), %%rax\n movq %%rax, 8(%[area])\n"
      "1: movl 4(%[area]), %%eax\n"
      "movq (%[counters], %%rax, 8), %%rcx\n movl $2000, %%edx\n"
      "5: decl %%edx\n jnz 5b\n incq %%rcx\n"
      "movq %%rcx, (%[counters], %%rax, 8)\n"
      "2:\n"
      ".pushsection __rseq_failure, \"ax\"\n .byte 0x0f, 0xb9, 0x3d\n .long %c[signature]\n"
      "4: jmp %l[interrupted]\n .popsection\n"
      :
      : [area] "r"(area), [counters] "r"(counters), [signature] "i"(RSEQ_SIG)
      : "rax", "rcx", "rdx", "cc", "memory"
      : interrupted);
  return 1;
interrupted:
  return 0;
}
static void* adds(void* unused) {
  struct rseq* area = own_area();
  long added = 0;
  while (goes_on()) {
    for (int i = 0; i < 500; ++i) {
      if (area->cpu_id >= kMostProcessors) return (void*)-1l;
      added += add_here(area);
    }
    /* It is registered, and of no use to anybody else. */
    if (syscall(SYS_rseq, area, 32, 0, RSEQ_SIG) != -1 || errno != EBUSY) return (void*)-2l;
    /* Between the two it may be given to another processor, but not each time. */
    int same = 0;
    for (int i = 0; i < 10000 && !same; ++i) {
      unsigned now = 0;
      syscall(SYS_getcpu, &now, NULL, NULL);
      same = now == area->cpu_id && area->cpu_id_start == area->cpu_id;
    }
    if (!same) return (void*)-3l;
    rest(1);
  }
  (void)unused;
  return (void*)added;
}
void sequences(void) {
  if (__rseq_size == 0) {
    puts("all sequences counted");
    return;
  }
  pthread_t made[kSequencers];
  long added = 0, found = 0;
  for (int i = 0; i < kSequencers; ++i) pthread_create(&made[i], NULL, adds, NULL);
  for (int i = 0; i < kSequencers; ++i) {
    void* own;
    pthread_join(made[i], &own);
    if ((long)own < 0) printf("thread %d: %ld\n", i, (long)own);
    added += (long)own;
  }
  for (int i = 0; i < kMostProcessors; ++i) found += counters[i];
  if (added != found) printf("%ld of %ld\n", found, added);
  puts("all sequences counted");
}

/* --- registers --- */

enum { kMostVectorBytes = 32 * 64 };
static unsigned char before[kMostVectorBytes], after[kMostVectorBytes];
static const uint64_t masks_before[8] = {0, 0x11, 0x222, 0x3333, 0x44444, 0x55, 0x66, 0x777};
static uint64_t masks_after[8];

/* Each spins for a while and makes a system call (getpid) with them in use. */
__attribute__((target("avx512f,avx512bw"))) static void keep_512(void) {
  __asm__ volatile(
      ".irp "
      "i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
      "vmovdqu64 \\i*64(%0), %%zmm\\i\n .endr\n"
      ".irp i,1,2,3,4,5,6,7\n kmovq \\i*8(%2), %%k\\i\n .endr\n"
      "movl $2000000, %%ecx\n 1: decl %%ecx\n jnz 1b\n movl $39, %%eax\n syscall\n"
      ".irp "
      "i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
      "vmovdqu64 %%zmm\\i, \\i*64(%1)\n .endr\n"
      ".irp i,1,2,3,4,5,6,7\n kmovq %%k\\i, \\i*8(%3)\n .endr\n vzeroall\n"
      :
      : "r"(before), "r"(after), "r"(masks_before), "r"(masks_after)
      : "rax", "rcx", "r11", "memory");
  check(memcmp(before, after, 32 * 64) == 0, "zmm registers");
  check(memcmp(masks_before, masks_after, sizeof masks_after) == 0, "mask registers");
}
__attribute__((target("avx"))) static void keep_256(void) {
  __asm__ volatile(
      ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu \\i*32(%0), %%ymm\\i\n "
      ".endr\n"
      "movl $2000000, %%ecx\n 1: decl %%ecx\n jnz 1b\n movl $39, %%eax\n syscall\n"
      ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu %%ymm\\i, \\i*32(%1)\n .endr\n"
      "vzeroall\n"
      :
      : "r"(before), "r"(after)
      : "rax", "rcx", "r11", "memory");
  check(memcmp(before, after, 16 * 32) == 0, "ymm registers");
}
static void keep_128(void) {
  __asm__ volatile(
      ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movdqu \\i*16(%0), %%xmm\\i\n "
      ".endr\n"
      "movl $2000000, %%ecx\n 1: decl %%ecx\n jnz 1b\n movl $39, %%eax\n syscall\n"
      ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movdqu %%xmm\\i, \\i*16(%1)\n .endr\n"
      :
      : "r"(before), "r"(after)
      : "rax", "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
        "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  check(memcmp(before, after, 16 * 16) == 0, "xmm registers");
}
/* How numbers are rounded and what is left on the stack of the x87. */
static void keep_modes(unsigned round) {
  const uint32_t mxcsr = 0x1f80 | (round % 4) << 13 | (round / 4 % 2) << 15;
  const uint16_t control = (uint16_t)(0x037f | (round % 4) << 10);
  uint32_t mxcsr_after, mxcsr_usual;
  uint16_t control_after, control_usual;
  uint64_t left;
  __asm__ volatile(
      "stmxcsr %3\n fnstcw %4\n ldmxcsr %5\n fldcw %6\n fld1\n fldpi\n"
      "movl $2000000, %%ecx\n 1: decl %%ecx\n jnz 1b\n movl $39, %%eax\n syscall\n"
      "fstp %%st(0)\n fstpl %2\n stmxcsr %0\n fnstcw %1\n fldcw %4\n ldmxcsr %3\n"
      : "=m"(mxcsr_after), "=m"(control_after), "=m"(left), "=m"(mxcsr_usual), "=m"(control_usual)
      : "m"(mxcsr), "m"(control)
      : "rax", "rcx", "r11", "memory");
  check((mxcsr_after & ~0x3fu) == mxcsr, "MXCSR");
  check(control_after == control && left == 0x3ff0000000000000ull, "x87");
}
void vectors(void) {
  for (unsigned round = 0; goes_on(); ++round) {
    for (size_t i = 0; i < sizeof before; ++i) before[i] = (unsigned char)(i * 7 + round);
    memset(after, 0, sizeof after);
    if (__builtin_cpu_supports("avx512bw")) keep_512();
    if (__builtin_cpu_supports("avx")) keep_256();
    keep_128();
    keep_modes(round);
  }
  puts("all registers kept");
}

/* --- prctl --- */

/* Not in every header. */
enum { kSetMdwe = 65, kGetMdwe = 66, kSetMemoryMerge = 67, kGetMemoryMerge = 68 };

static int asked_by_pointer(int what) {
  int value = -1;
  return prctl(what, &value, 0, 0, 0) == 0 ? value : -1;
}
static int speculation(void) {
  return prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, 0, 0, 0);
}

/* It may not read the time-stamp counter, by which the C library reads clocks. */
static volatile int has_ended;
static void* without_counter(void* unused) {
  (void)unused;
  if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) != 0) return NULL;
  while (!has_ended) {
    if (asked_by_pointer(PR_GET_TSC) != PR_TSC_SIGSEGV) return "time-stamp counter";
    rest(3);
  }
  return NULL;
}

struct setting {
  const char* name;
  int get, set, value, by_pointer;
};
static const struct setting kSettings[] = {
    {"dumpable", PR_GET_DUMPABLE, PR_SET_DUMPABLE, 0, 0},
    {"huge pages", PR_GET_THP_DISABLE, PR_SET_THP_DISABLE, 1, 0},
    {"signal of the parent's end", PR_GET_PDEATHSIG, PR_SET_PDEATHSIG, SIGUSR1, 1},
    {"no new executable memory", kGetMdwe, kSetMdwe, 1, 0},
    {"merging", kGetMemoryMerge, kSetMemoryMerge, 1, 0},
};
enum { kSettingCount = sizeof kSettings / sizeof kSettings[0] };
static int asked(const struct setting* setting) {
  return setting->by_pointer ? asked_by_pointer(setting->get) : prctl(setting->get, 0, 0, 0, 0);
}
/* What this kernel does not have, or does not let the process have, is as it was. */
void process_settings(void) {
  pthread_t thread;
  check(pthread_create(&thread, NULL, without_counter, NULL) == 0, "pthread_create");
  int wanted[kSettingCount];
  prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
  prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_DISABLE, 0, 0);
  for (int i = 0; i < kSettingCount; ++i) {
    prctl(kSettings[i].set, kSettings[i].value, 0, 0, 0);
    wanted[i] = asked(&kSettings[i]);
  }
  const int speculates = speculation();
  while (goes_on()) {
    for (int i = 0; i < kSettingCount; ++i)
      check(asked(&kSettings[i]) == wanted[i], kSettings[i].name);
    check(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_EARLY, "errors of memory");
    check(speculation() == speculates, "speculation");
    rest(3);
  }
  has_ended = 1;
  void* lost = NULL;
  pthread_join(thread, &lost);
  check(!lost, lost ? lost : "");
  puts("all settings kept");
}
