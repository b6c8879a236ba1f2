// SocketTurns: which HomeSockets stand for one socket of this node, as after forks and execs whose
// processes are on several nodes. What comes by such a socket is for one of them: only who has the
// turn may send a piece on, and it passes on when that has been read, or is not wanted.
// Owner: SocketRelays. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace krg {

class SocketTurn {
 public:
  // `wake` is called when it may be this member's turn; it may take the turn, or leave.
  uint64_t join(std::function<void()> wake);
  void leave(uint64_t member);
  bool is_shared() const { return members_.size() > 1; }

  // False: another one has it.
  bool take(uint64_t member);
  // Nothing has come that anybody could want.
  void release(uint64_t member);
  // The others are woken, one after the other until one takes it, then `member` itself.
  void pass_on(uint64_t member);

  // Packets that were taken off the socket for somebody who has not read them: they come first.
  std::deque<std::string>& kept() { return kept_; }

 private:
  std::map<uint64_t, std::function<void()>> members_;
  uint64_t next_ = 1, holder_ = 0;
  std::deque<std::string> kept_;
};

class SocketTurns {
 public:
  // The one of all who have that socket, as long as any of them holds it.
  std::shared_ptr<SocketTurn> of(int socket);

 private:
  std::map<ino_t, std::weak_ptr<SocketTurn>> turns_;
};

}  // namespace krg
