// A frozen process becomes a shadow: it connects to krgd by a socket of its own, is sent the
// shadow's program over it, and execs that. Until the descriptors 0 and 1 are taken, everything can
// be undone. SPDX-License-Identifier: GPL-2.0-or-later
#include "image/frozen_shadow.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "image/call_batch.h"
#include "image/frozen_process.h"
#include "image/install_parts.h"
#include "krg/runtime/unix_socket.h"
#include "shadow.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr size_t kMostArgumentBytes = 8192;
constexpr int kIntervalTimers = 3;

// A listener at an address that the kernel chooses, which is not a file.
struct Listener {
  UniqueFd socket;
  sockaddr_un address{};
  socklen_t length = sizeof address;

  static Result<Listener> create() {
    Listener listener;
    listener.socket = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const sockaddr_un any{AF_UNIX, {}};
    auto* address = reinterpret_cast<sockaddr*>(&listener.address);
    if (!listener.socket ||
        bind(listener.socket.get(), reinterpret_cast<const sockaddr*>(&any),
             sizeof any.sun_family) != 0 ||
        listen(listener.socket.get(), 8) != 0 ||
        getsockname(listener.socket.get(), address, &listener.length) != 0)
      return errno_error("socket for a shadow");
    return listener;
  }
  // The connection of that process; others that found the address are hung up on.
  Result<UniqueFd> accept_from(pid_t pid) {
    for (;;) {
      UniqueFd connection(accept4(socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!connection) return errno_error("the process has not connected");
      auto peer = peer_credentials(connection.get());
      if (peer && peer->pid == pid) return connection;
    }
  }
};

// What recvmsg(2) is told of the packet that passes the program, and tells.
struct PassedProgram {
  msghdr header;
  iovec vector;
  alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int))];
  char byte;
};

// Its way from two descriptors to the exec.
class Becoming {
 public:
  Becoming(FrozenProcess& process, std::span<const int> kept, int socket, int program)
      : process_(process), kept_(kept), socket_(socket), program_(program) {}

  Status exec() {
    auto scratch = process_.scratch();
    if (!scratch) return scratch.error();
    scratch_ = *scratch;
    CallBatch batch(process_);
    if (auto placed = place_descriptors(batch); !placed) return placed;
    if (!kept_.empty()) close_all_but_kept(batch);
    // They are the body's now.
    const RemoteAddr disarmed = batch.put(itimerval{});
    for (uint64_t timer = 0; timer < kIntervalTimers; ++timer)
      batch.add(SYS_setitimer, {timer, disarmed.value, 0});
    if (auto run = batch.run(); !run) return run;
    for (size_t i = 0; i < batch.size(); ++i)
      if (auto done = done_by_call("descriptors and timers of a shadow", batch.result(i)); !done)
        return done;
    process_.detach_from_memory();
    auto argv = write_arguments();
    if (!argv) return argv.error();
    const uint64_t environment = kept_.empty() ? 0 : environment_.value;
    return process_.become(SYS_execveat, {kShadowProgramFd, empty_string_.value, argv->value,
                                          environment, AT_EMPTY_PATH});
  }

 private:
  // The socket to kShadowControlFd, the program to kShadowProgramFd, wherever they are now.
  Status place_descriptors(CallBatch& batch) {
    static_assert(kShadowControlFd == 0 && kShadowProgramFd == 1);
    auto socket = static_cast<uint64_t>(socket_), program = static_cast<uint64_t>(program_);
    if (socket == kShadowProgramFd) {
      const int64_t moved = process_.call(SYS_fcntl, {socket, F_DUPFD, kShadowProgramFd + 1});
      if (auto done = done_by_call("descriptors of a shadow", moved); !done) return done;
      socket = static_cast<uint64_t>(moved);
    }
    if (program != kShadowProgramFd) batch.add(SYS_dup3, {program, kShadowProgramFd, O_CLOEXEC});
    if (socket == kShadowControlFd)
      batch.add(SYS_fcntl, {socket, F_SETFD, 0});
    else
      batch.add(SYS_dup3, {socket, kShadowControlFd, 0});
    return {};
  }

  // The shadow has no C library that would do so.
  void close_all_but_kept(CallBatch& batch) {
    uint64_t next = kShadowProgramFd + 1;
    for (int number : kept_) {
      const auto kept = static_cast<uint64_t>(number);
      batch.add(SYS_fcntl, {kept, F_SETFD, 0});
      if (kept > next) batch.add(SYS_close_range, {next, kept - 1, 0});
      next = kept + 1;
    }
    batch.add(SYS_close_range, {next, ~0U, 0});
  }

  // The program's, as far as there is room, so that those who look at the node from outside of the
  // session see what it is. Returns where argv is.
  Result<RemoteAddr> write_arguments() {
    auto text = read_whole_file(fmt::format("/proc/{}/cmdline", process_.pid()));
    if (!text) return errno_error("the process died", ESRCH);
    text->resize(std::min(text->size(), kMostArgumentBytes - 2));
    text->append(2, '\0');  // the last of these is the empty string
    const size_t room = (FrozenProcess::kScratchBytes - text->size()) / sizeof(uint64_t) - 4;
    std::vector<uint64_t> argv;
    for (size_t at = 0; at + 2 < text->size() && argv.size() < room; at = text->find('\0', at) + 1)
      argv.push_back(scratch_.value + at);
    argv.push_back(0);
    const size_t arguments = argv.size();
    argv.insert(argv.end(), {scratch_.value, 0});
    empty_string_ = scratch_ + (text->size() - 1);
    const uint64_t after_text = (text->size() + 7) / 8 * 8;
    if (auto put = process_.write(scratch_, *text); !put) return put.error();
    const std::span<const char> pointers(reinterpret_cast<const char*>(argv.data()),
                                         argv.size() * sizeof(uint64_t));
    if (auto put = process_.write(scratch_ + after_text, pointers); !put) return put.error();
    environment_ = scratch_ + (after_text + arguments * sizeof(uint64_t));
    return scratch_ + after_text;
  }

  FrozenProcess& process_;
  const std::span<const int> kept_;
  const int socket_, program_;
  RemoteAddr scratch_{}, empty_string_{};
  RemoteAddr environment_{};  // not empty: it has descriptors to keep
};

}  // namespace

Result<std::unique_ptr<FrozenShadow>> FrozenShadow::prepare(FrozenProcess& process, int program) {
  std::unique_ptr<FrozenShadow> prepared(new FrozenShadow(process));
  if (auto connected = prepared->connect(program); !connected) return connected.error();
  return prepared;
}

FrozenShadow::~FrozenShadow() {
  if (has_become_) return;
  for (int number : {socket_, program_})
    if (number >= 0) process_.call(SYS_close, {static_cast<uint64_t>(number)});
  process_.drop_scratch();
}

Status FrozenShadow::connect(int program) {
  auto scratch = process_.scratch();
  if (!scratch) return scratch.error();
  auto listener = Listener::create();
  if (!listener) return listener.error();
  const int64_t number = process_.call(SYS_socket, {AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0});
  if (auto done = done_by_call("socket of a shadow", number); !done) return done;
  socket_ = static_cast<int>(number);
  if (auto put = process_.write_value(*scratch, listener->address); !put) return put;
  const int64_t connected = process_.call(
      SYS_connect, {static_cast<uint64_t>(socket_), scratch->value, listener->length});
  if (auto done = done_by_call("socket of a shadow", connected); !done) return done;
  auto connection = listener->accept_from(process_.pid());
  if (!connection) return connection.error();
  connection_ = std::move(*connection);
  if (auto sent = send_packet(connection_.get(), "p", {&program, 1}); !sent) return sent;
  return receive_program();
}

Status FrozenShadow::receive_program() {
  auto scratch = process_.scratch();
  if (!scratch) return scratch.error();
  const auto at = [&](size_t offset) { return reinterpret_cast<char*>(scratch->value + offset); };
  PassedProgram message{};
  message.vector = {at(offsetof(PassedProgram, byte)), 1};
  message.header.msg_iov = reinterpret_cast<iovec*>(at(offsetof(PassedProgram, vector)));
  message.header.msg_iovlen = 1;
  message.header.msg_control = at(offsetof(PassedProgram, ancillary));
  message.header.msg_controllen = sizeof message.ancillary;
  if (auto put = process_.write_value(*scratch, message); !put) return put;
  const int64_t got = process_.call(SYS_recvmsg, {static_cast<uint64_t>(socket_), scratch->value,
                                                  MSG_CMSG_CLOEXEC | MSG_DONTWAIT});
  if (auto done = done_by_call("program of a shadow", got); !done) return done;
  auto answer = process_.read_value<PassedProgram>(*scratch);
  if (!answer) return answer.error();
  if (answer->header.msg_controllen < CMSG_LEN(sizeof(int)))
    return errno_error("program of a shadow", EMFILE);
  memcpy(&program_, answer->ancillary + CMSG_LEN(0), sizeof program_);
  return {};
}

Status FrozenShadow::exec(std::span<const int> kept) {
  return Becoming(process_, kept, socket_, program_).exec();
}

Result<std::unique_ptr<Shadow>> FrozenShadow::become(EventLoop& loop, Shadow::Events events,
                                                     std::span<const int> kept) {
  has_become_ = true;
  auto shadow = Shadow::create(loop, process_.pid(), std::move(connection_), std::move(events));
  Status done = shadow ? exec(kept) : Status(shadow.error());
  if (done) return shadow;
  process_.kill();  // neither what it was nor a shadow
  return done.error();
}

Result<std::unique_ptr<Shadow>> Shadow::become_shadow(EventLoop& loop, FrozenProcess& process,
                                                      int program, Events events,
                                                      std::span<const int> kept) {
  auto prepared = FrozenShadow::prepare(process, program);
  if (!prepared) return prepared.error();
  return (*prepared)->become(loop, std::move(events), kept);
}

}  // namespace krg
