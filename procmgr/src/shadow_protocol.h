// What krgd and krg_shadow say to each other on the shadow's control socket (SOCK_SEQPACKET): one
// struct a packet. Also read by the shadow, which has no C library: plain types only.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

namespace krg {

inline constexpr int kShadowControlFd = 0;  // where the shadow finds its end
inline constexpr int kShadowProgramFd = 1;  // krg_shadow itself, close-on-exec

enum class ShadowVerb : uint32_t {
  kExit,           // argument: the exit code
  kDie,            // argument: the signal to die of, without a core
  kStop,           // argument: the signal to stop by
  kSetGroup,       // setpgid(0, argument); answered
  kSetSession,     // setsid(); answered
  kSetForeground,  // tcsetpgrp() of its controlling terminal; answered
  kWait,           // waitid(argument, id, …, options | WNOHANG); answered with the child's change
  kLock,           // fcntl(argument, id, the lock of type `options`); answered with the lock. An
                   // argument of kSentFile: the file comes with the command, and is kept
  kCloseFile,      // one that it has been sent or has kept
};
inline constexpr int kSentFile = -1;
struct ShadowCommand {
  ShadowVerb verb;
  int32_t argument;
  int32_t id, options;
  int64_t start = 0, length = 0;  // kLock: of the lock
};
static_assert(sizeof(ShadowCommand) == 32);

struct ShadowReport {
  enum Kind : uint32_t {
    kSignal,
    kAnswer,
    kContinued,  // back from a stop by kStop
  };
  Kind kind;
  int32_t signal;  // kSignal, an answer to kWait: as siginfo_t has them; there, si_status
  int32_t code;    // an answer to kLock: l_type, `signal` the number of the file
  int32_t sender;  // there: l_pid
  uint32_t sender_uid;
  int32_t result;      // kAnswer: what the call returned; negative: -errno
  uint64_t value;      // kSignal: si_value
  uint64_t usage[18];  // answer to kWait: a struct rusage; to kLock: l_start, l_len
};
static_assert(sizeof(ShadowReport) == 176);

// si_value of a SIGCONT by which krgd resumes a shadow whose body goes on already: not passed on.
inline constexpr uint64_t kResumeOnly = 0x6b72'6752'6573'756d;

}  // namespace krg
