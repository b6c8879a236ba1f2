// TerminalMirrors: pseudo-terminals of this node that stand for terminals of other nodes. The body
// has the slave, so isatty, ttyname, stty and the window size work natively. Output goes home in
// order and once. Input is read at home only when a process really waits for it (tty_readers.h):
// type-ahead for the shell is left alone. Modes are mirrored both ways; the slave is EXTPROC, so
// that lines are edited and echoed by the home terminal alone.
//
// Owner: Descriptors. Threads: the loop's thread. Source: termios(3), ioctl_tty(2), TIOCPKT_IOCTL.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "alive.h"
#include "krg/procmgr/node_context.h"
#include "krg/runtime/unique_fd.h"
#include "terminal_messages.h"

namespace krg {

class TerminalMirrors {
 public:
  // Which terminal a slave stands for.
  struct Source {
    NodeId home;
    HomeId id;
    TerminalSettings settings;
  };

  // Asks the shadow of `body`, on whatever node, whether what is below it may read the terminal.
  using MayRead =
      std::function<void(pid_t body, const Source& source, std::function<void(Status)> done)>;

  explicit TerminalMirrors(NodeContext& node);
  ~TerminalMirrors();
  TerminalMirrors(const TerminalMirrors&) = delete;
  TerminalMirrors& operator=(const TerminalMirrors&) = delete;

  // A slave descriptor for `body`; its descriptors of one terminal share one mirror. A new mirror
  // takes over a reference at home, which `is_new` tells the caller to acquire.
  Result<UniqueFd> open(pid_t body, const Source& source, int flags, bool& is_new);
  // Runs `done` when what the body wrote has been written at home.
  void drain(pid_t body, std::function<void()> done);
  // Before `body`, which stands still, leaves for another node: runs `done` when what it wrote is
  // home and nothing is on its way to it. Error: EAGAIN: that takes long (a terminal that is
  // stopped by ^S), or it has input that it has not read yet, which would stay behind.
  void settle(pid_t body, const std::function<void(Status)>& done);
  std::optional<Source> source_of(dev_t slave) const;
  std::optional<Source> source_of(const std::string& slave) const;
  // The slave's path, of a terminal that `body` has; empty: none.
  std::string slave_of(pid_t body) const;

  // Job control below a body, a shell whose jobs are processes of this node: the kernel group that
  // has the terminal. 0: the body's own group.
  pid_t foreground(pid_t body, NodeId home, HomeId id) const;
  void set_foreground(pid_t body, NodeId home, HomeId id, pid_t group);
  // Of any of its terminals.
  pid_t foreground(pid_t body) const;
  // Till then everybody may.
  void set_may_read(MayRead may_read) { may_read_ = std::move(may_read); }
  // The kernel group that input and a new window size of the terminal are for.
  pid_t receivers(pid_t body, NodeId home, HomeId id) const;
  size_t size() const { return mirrors_.size(); }

 private:
  struct Mirror;
  Result<Mirror*> make(pid_t body, const Source& source);
  void watch(Mirror& mirror);
  void read_output(Mirror& mirror);
  void send_home(Mirror& mirror, std::string output);
  void modes_changed_here(Mirror& mirror);
  void state_arrived(NodeId from, const TerminalState& state);
  void look_for_readers(Mirror& mirror, bool input_waits);
  void ask_for_input(Mirror& mirror);
  void end_asking(Mirror& mirror);
  Status has_read_all(pid_t body) const;
  static pid_t receivers(const Mirror& mirror);
  void put_input(Mirror& mirror, const std::string& input);
  void close(Mirror& mirror);
  Mirror* find(uint64_t number) const;
  Mirror* find(pid_t body, NodeId home, HomeId id) const;

  NodeContext& node_;
  MayRead may_read_ = [](pid_t, const Source&, const std::function<void(Status)>& done) {
    done({});
  };
  std::vector<std::unique_ptr<Mirror>> mirrors_;
  uint64_t next_ = 1;
  Alive alive_;
};

}  // namespace krg
