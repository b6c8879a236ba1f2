// ProcessFamily: what a process and all that descend from it are at one moment: their images, their
// places in the tree, and what their descriptors lead to, each open file once, so that offsets and
// pipes are shared again as they were. Contents of pages are beside it. Taken by capture_family()
// (family_capture.h), made processes again by FamilyInstaller (family_installer.h).
//
// A family over several nodes is one: each member, file and pipe has its node. A node's part of a
// checkpoint has the whole of it, but images and contents of its own only (part_of(), merge()).
//
// Threads: a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/ioctl.h>
#include <sys/types.h>
#include <termios.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "krg/procmgr/capabilities.h"
#include "krg/procmgr/saved_ipc.h"
#include "krg/procmgr/saved_memory.h"
#include "krg/runtime/result.h"

namespace krg {

// What the path of a mapping's file (image/process_image.h) begins with when it is memory that
// members share; its path in /dev/shm follows, or what tells it from others.
inline constexpr std::string_view kSharedMemoryPrefix = "krg-shared:";
std::string shared_memory_name(uint64_t device, uint64_t inode);

// What a terminal is set to: `contents` of the file, where that is one.
struct FamilyTerminal {
  termios settings{};
  winsize size{};
  pid_t foreground = 0;  // group; 0: none of its members
};

// What an epoll instance watches.
struct FamilyWatch {
  uint32_t file = 0;    // index of ProcessFamily::files
  int32_t number = -1;  // by which it was added
  uint32_t events = 0, padding = 0;
  uint64_t data = 0;
};

// A record lock, fcntl(2).
struct FamilyLock {
  uint32_t file = 0;
  uint32_t is_write = 0;
  int64_t start = 0, bytes = 0;  // 0: to the end
};

// An open file description (open(2)).
struct FamilyFile {
  enum class Kind : uint32_t {
    kPath,      // a file, folder or device, opened by its path
    kStandard,  // leads out of the family: krgrun's stream of the number `stream`
    kTerminal,  // krgrun's terminal, or its stream where it has none
    kPipe,      // an end of pipe `pipe`
    kDeleted,   // a file without a name: `contents` is in it, or `is_saved`, or that of another one
                // of its `memory` before it
    kSocket,    // socket `pipe`
    kEvent,     // made anew: of EventKind `pipe`, `contents` being its description (event_fds.h)
    kQueue,     // POSIX message queue `pipe` of `ipc`
    kMemory,    // `memories[pipe]`
    kMaster,    // of the pseudo-terminal of number `stream` (family/family_terminals.h)
    kSlave,     // of that
  };
  Kind kind = Kind::kPath;
  int32_t flags = 0;  // F_GETFL
  int64_t offset = 0;
  uint32_t stream = 0, pipe = 0;
  uint64_t bytes = 0;       // of a regular file
  uint32_t is_regular = 0;  // kPath: has size and offset
  uint32_t flock = 0;       // the lock that it holds: LOCK_SH, LOCK_EX; 0: none
  int64_t modified_ns = 0;  // of a regular file
  uint32_t mode = 0;        // its permissions
  uint32_t is_saved = 0;    // its contents are among the pages
  std::string memory;       // kDeleted: its name, also where members have it mapped
  uint32_t node = 0;
  std::string path;
  std::string contents;
  std::vector<FamilyWatch> watches = {};  // kEvent: of an epoll instance
  std::vector<FamilyLock> locks = {};     // by F_OFD_SETLK: the description's
};

struct FamilyPipe {
  uint32_t capacity = 0;
  uint32_t node = 0;
  uint32_t is_lost = 0;   // the other end was outside
  std::string contents;   // in flight
  std::string path = {};  // of a FIFO, which is opened there again
  uint32_t mode = 0;      // its permissions
  uint32_t is_quiet = 0;  // a FIFO that nobody has written to since its readers opened it
};

// What setsockopt(2) was told.
struct SocketOption {
  int32_t level = 0, name = 0;
  uint32_t bytes = 0;
  std::array<char, 16> value{};
};

// A socket, which one file has, or none: it was a standard stream.
struct FamilySocket {
  enum class State : uint32_t { kUnconnected, kListening, kConnected };
  static constexpr uint32_t kNone = ~0U;
  static constexpr uint32_t kEndedReading = 1, kEndedWriting = 2;

  State state = State::kUnconnected;
  int32_t domain = 0, type = 0, protocol = 0;
  int32_t backlog = 0;
  int32_t standard = -1;  // by which number of 0, 1 and 2 it is had
  uint32_t ended = 0;     // its directions
  uint32_t peer = kNone;  // ProcessFamily::sockets; kNone: closed, or outside of the family
  uint32_t is_lost = 0;   // the peer was outside
  uint32_t node = 0;
  uint32_t unsent_bytes = 0;    // as many as the peer has not got of `unsent`: the last ones
  std::string name, peer_name;  // sockaddr
  std::string folder;           // which the path of a unix socket begins in
  std::vector<SocketOption> options;
  // What it has not read: packets with a 32-bit length before each, where it is not a stream's.
  std::string contents;
  std::string unsent;  // what it has written, and the peer has not got
};

struct FamilyFd {
  int32_t number = -1;
  uint32_t file = 0;  // index of ProcessFamily::files
  uint32_t close_on_exec = 0;
};

struct FamilyMember {
  pid_t pid = 0, parent = 0;     // kInit: it is an orphan
  pid_t group = 0, session = 0;  // 0: outside of the session
  int32_t wait_status = -1;      // >= 0: it has ended so and waits to be waited for
  uint32_t node = 0;             // where it executed
  CapabilitySets capabilities;
  std::string name;
  std::string image;  // ProcessImage; empty when it has ended
  std::vector<FamilyFd> fds;
  std::vector<FamilyLock> locks;
  // What it is spread again by, over nodes (spread/spread_again.h); empty: it was not.
  std::string spread;
  static constexpr pid_t kInit = 1;
  bool has_ended() const { return wait_status >= 0; }
};

struct ProcessFamily {
  std::string command;
  std::vector<FamilyMember> members;  // parents before their children
  std::vector<FamilyFile> files;
  std::vector<FamilyPipe> pipes;
  std::vector<FamilySocket> sockets;
  SavedIpc ipc;
  std::vector<SavedMemory> memories;  // that nodes share

  // Error: EBADMSG.
  static Result<ProcessFamily> parse(std::string_view bytes);
  std::string serialize() const;

  // Of groups and sessions that members are in, those whose leader is none of them: it has ended.
  std::vector<pid_t> ended_leaders() const;
  // What pages of `memories[memory]` have for a member's number (FamilySnapshot::Pages).
  uint32_t owner_of_memory(size_t memory) const;
  bool may_change(uint32_t file) const;  // a regular file with a path that is open for writing

  // What `files[file]` is set to; none: it is no terminal.
  std::optional<FamilyTerminal> terminal_of(uint32_t file) const;
  // The file of the master of a slave. Nothing: it was not a member's.
  std::optional<uint32_t> master_of(const FamilyFile& slave) const;
  // The file of a socket; FamilySocket::kNone: none.
  uint32_t file_of_socket(uint32_t socket) const;
  // Of the connections that have one end here: how many come before that of `socket`.
  uint32_t place_of_other_end(uint32_t socket) const;
  // What a socket is to read first when it is made again.
  std::string input_of_socket(uint32_t socket) const;

  // Without images and contents of other nodes.
  ProcessFamily part_of(uint32_t node) const;
  // Takes in what a part of the same family has. Errors: EBADMSG: of another one.
  Status merge(ProcessFamily part);
  // The nodes that have something of it, in order.
  std::vector<uint32_t> nodes() const;
};

}  // namespace krg
