/* Features: files, and memory that is made of them. SPDX-License-Identifier: GPL-2.0-or-later */
#include <sys/file.h>

#include "features.h"

/* Offsets, deleted and nameless files, folders. */
void files(void) {
  char name[64], line[32];
  snprintf(name, sizeof name, "features.%d", getpid());
  const int log = open(name, O_WRONLY | O_CREAT | O_APPEND, 0600), in = open(name, O_RDONLY);
  const int own = open(name, O_RDWR), folder = open(".", O_RDONLY | O_DIRECTORY);
  const int nameless = open(".", O_TMPFILE | O_RDWR, 0600);
  unlink(name);
  check(log >= 0 && in >= 0 && own >= 0 && folder >= 0 && nameless >= 0, "open");
  long lines = 0;
  for (; goes_on(); ++lines) {
    snprintf(line, sizeof line, "%07ld\n", lines);
    check(write(log, line, 8) == 8, "append");
    check(write(nameless, line, 8) == 8, "write");
    char back[8];
    check(read(in, back, 8) == 8 && memcmp(back, line, 8) == 0, "read");
    check(pwrite(own, line, 7, lines * 8) == 7 && pread(own, back, 8, lines * 8) == 8, "pwrite");
    check(lseek(own, 0, SEEK_CUR) == lines * 8 && write(own, line, 8) == 8, "seek");
    check(lseek(nameless, -8, SEEK_CUR) == lines * 8 && read(nameless, back, 8) == 8, "seek");
    check(memcmp(back, line, 8) == 0, "read back");
    struct stat found;
    check(fstatat(folder, ".", &found, 0) == 0 && S_ISDIR(found.st_mode), "fstatat");
    rest(5);
  }
  struct stat found;
  check(fstat(log, &found) == 0 && found.st_size == lines * 8, "size");
  puts("files kept");
}

/* What a child, which stays where it was made, sees of the lock of a file: it tries, and it holds
 * it for a while. */
static void lock_child(const char* name, int orders, int answers) {
  const int file = open(name, O_RDWR);
  char order;
  while (read(orders, &order, 1) == 1) {
    const int is_free = flock(file, LOCK_EX | LOCK_NB) == 0;
    if (write(answers, is_free ? "free" : "held", 4) != 4) break;
    if (order == 'h') usleep(30000);
    if (is_free) flock(file, LOCK_UN);
  }
  _exit(file < 0);
}
static void order(int to, char what, int from, const char* expected, const char* otherwise) {
  char answer[5] = "";
  ssize_t got;
  check(write(to, &what, 1) == 1, "order");
  while ((got = read(from, answer, 4)) < 0 && errno == EINTR) {
  }
  check(got == 4 && strcmp(answer, expected) == 0, otherwise);
}
void flocks(void) {
  char name[64];
  snprintf(name, sizeof name, "flocks.%d", getpid());
  const int file = open(name, O_RDWR | O_CREAT, 0600);
  int orders[2], answers[2];
  check(file >= 0 && pipe(orders) == 0 && pipe(answers) == 0, "open");
  const pid_t child = fork();
  if (child == 0) {
    close(orders[1]);
    close(file);
    lock_child(name, orders[0], answers[1]);
  }
  close(orders[0]);
  while (goes_on()) {
    check(flock(file, LOCK_EX) == 0, "lock");
    check(write(file, "locked", 6) == 6 && lseek(file, -6, SEEK_CUR) >= 0, "write");
    rest(20);
    order(orders[1], 't', answers[0], "held", "a lock was lost");
    check(flock(file, LOCK_UN) == 0, "unlock");
    order(orders[1], 'h', answers[0], "free", "a lock was kept");
    while (flock(file, LOCK_SH) != 0) check(errno == EINTR, "wait for a lock");
  }
  close(orders[1]);
  unlink(name);
  int status;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  puts("locks kept");
}

/* The same by fcntl(2), of a part of the file; who has it counts up what the file begins with. */
static int lock_part(int file, int command, short type, off_t start) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 10};
  return fcntl(file, command, &lock);
}
static void count_up(int file) {
  long count = 0;
  check(pread(file, &count, sizeof count, 0) >= 0, "pread");
  ++count;
  check(pwrite(file, &count, sizeof count, 0) == sizeof count, "pwrite");
}
static void record_lock_child(const char* name, int orders, int answers) {
  const int file = open(name, O_RDWR);
  char order;
  while (read(orders, &order, 1) == 1) {
    /* t: try; b: try another part; w: wait for it, have it for a while. */
    const off_t start = order == 'b' ? 100 : 5;
    const int is_free = lock_part(file, order == 'w' ? F_SETLKW : F_SETLK, F_WRLCK, start) == 0;
    if (order == 'w') count_up(file);
    if (write(answers, is_free ? "free" : "held", 4) != 4) break;
    if (order == 'w') usleep(30000);
    if (is_free) lock_part(file, F_SETLK, F_UNLCK, start);
  }
  _exit(file < 0);
}
void record_locks(void) {
  char name[64];
  snprintf(name, sizeof name, "record_locks.%d", getpid());
  int file = open(name, O_RDWR | O_CREAT, 0600);
  int orders[2], answers[2];
  check(file >= 0 && pipe(orders) == 0 && pipe(answers) == 0, "open");
  const pid_t child = fork();
  if (child == 0) {
    close(orders[1]);
    close(file);
    record_lock_child(name, orders[0], answers[1]);
  }
  close(orders[0]);
  long rounds = 0, count = 0;
  for (; goes_on(); ++rounds) {
    while (lock_part(file, F_SETLKW, F_WRLCK, 0) != 0) check(errno == EINTR, "wait for a lock");
    count_up(file);
    rest(20);
    order(orders[1], 't', answers[0], "held", "a lock was lost");
    order(orders[1], 'b', answers[0], "free", "too much is locked");
    check(pread(file, &count, sizeof count, 0) == sizeof count && count == 2 * rounds + 1, "count");
    /* Either ends it. */
    if (rounds % 2 == 0) {
      check(lock_part(file, F_SETLK, F_UNLCK, 0) == 0, "unlock");
    } else {
      close(file);
      file = open(name, O_RDWR);
      check(file >= 0, "open");
    }
    order(orders[1], 'w', answers[0], "free", "a lock was kept");
  }
  close(orders[1]);
  unlink(name);
  int status;
  check(waitpid(child, &status, 0) == child && status == 0, "child");
  puts("record locks kept");
}

/* Memory that has a descriptor, but is not mapped. */
void memfds(void) {
  const int memory = (int)syscall(SYS_memfd_create, "features", 1u /* MFD_CLOEXEC */);
  check(memory >= 0, "memfd_create");
  for (int32_t round = 0, back = 0; goes_on(); ++round) {
    check(pwrite(memory, &round, sizeof round, round * 4000) == sizeof round, "write");
    check(pread(memory, &back, sizeof back, round / 2 * 4000) == sizeof back, "read");
    check(back == round / 2, "contents");
    struct stat found;
    check(fstat(memory, &found) == 0 && found.st_size == round * 4000 + 4, "size");
    rest(3);
  }
  check(ftruncate(memory, 10) == 0 && lseek(memory, 0, SEEK_END) == 10, "truncate");
  puts("memory kept");
}

/* Memory that a child has, too: both count in it by turns, each waits for the other. */
static void wait_while(volatile uint32_t* word, uint32_t value) {
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value)
    syscall(SYS_futex, word, 0 /* wait */, value, NULL, NULL, 0);
}
static void hand_on(volatile uint32_t* word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, word, 1 /* wake */, 1, NULL, NULL, 0);
}
void shared_memory(void) {
  enum { kMine, kYours, kOver, kWords = 4096 };
  char name[64];
  snprintf(name, sizeof name, "/dev/shm/features.%d", getpid());
  const int file = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
  check(file >= 0 && ftruncate(file, kWords * 4) == 0, "file");
  uint32_t* words = mmap(NULL, kWords * 4, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  check(words != MAP_FAILED, "mmap");
  close(file);
  unlink(name);
  const pid_t child = fork();
  for (uint32_t round = 1; child == 0; ++round) {
    wait_while(&words[0], kMine);
    if (words[0] == kOver) _exit(7);
    for (int i = 1; i < kWords; ++i) words[i] += 1;
    hand_on(&words[0], kMine);
  }
  uint32_t round = 0;
  while (goes_on()) {
    rest(3);
    hand_on(&words[0], kYours);
    ++round;
    wait_while(&words[0], kYours);
    for (int i = 1; i < kWords; ++i) check(words[i] == round, "shared memory");
  }
  hand_on(&words[0], kOver);
  int status = 0;
  pid_t ended;
  while ((ended = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
  }
  check(ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child's end");
  puts("memory shared");
}

static uint64_t sum_of(const unsigned char* bytes, size_t count) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum = sum * 31 + bytes[i];
  return sum;
}
static uint64_t deep(int depth, uint64_t value) {
  volatile char room[2000];
  room[depth % 2000] = (char)value;
  return depth == 0 ? value
                    : deep(depth - 1, value * 3 + (uint64_t)(unsigned char)room[depth % 2000]) + 1;
}
/* Files that were deleted, memory of all protections, the heap, a stack that grows. */
void mappings(void) {
  enum { kBytes = 300000 };
  char name[64];
  snprintf(name, sizeof name, "mapped.%d", getpid());
  const int file = open(name, O_RDWR | O_CREAT, 0600);
  unsigned char* bytes = malloc(kBytes);
  for (int i = 0; i < kBytes; ++i) bytes[i] = (unsigned char)(i * 7 + i / 251);
  check(write(file, bytes, kBytes) == kBytes, "write");
  unsigned char* mapped = mmap(NULL, 1u << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  const unsigned char* second = mmap(NULL, kBytes, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  unlink(name);
  check(mapped != MAP_FAILED && second != MAP_FAILED, "mmap");
  const uint64_t right = sum_of(bytes, kBytes);
  char* guarded = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  strcpy(guarded + 8192, "kept behind a guard");
  mprotect(guarded + 4096, 8192, PROT_NONE);
  uint64_t rounds = 0;
  for (; goes_on(); ++rounds) {
    mapped[rounds % kBytes] ^= 1;
    check(sum_of(second, kBytes) == right, "deleted file");
    mapped[rounds % kBytes] ^= 1;
    check(sum_of(mapped, kBytes) == right, "changed mapping of a deleted file");
    char* heap = sbrk(8192);
    memset(heap, 5, 8192);
    check(deep(200 + (int)(rounds % 50), 1) != 0, "stack");
    sbrk(-8192);
    rest(5);
  }
  mprotect(guarded + 4096, 8192, PROT_READ);
  check(strcmp(guarded + 8192, "kept behind a guard") == 0, "protected memory");
  puts("mappings kept");
}
