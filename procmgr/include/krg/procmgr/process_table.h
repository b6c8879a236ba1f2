// ProcessTable: which processes of the session are not simply native: shadows (their body is
// elsewhere) and bodies (born elsewhere, executing here), and the jobs that processes belong to. It
// answers "on which node does this pid execute?". Everything about native processes is read from
// the kernel (the session's procfs) when it is needed. Where processes execute that are not at home
// is told to other nodes by a KDDM set (process_places.h).
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "krg/procmgr/node_context.h"

namespace krg {

class Kddm;

// The start time that /proc/PID/stat shows (field 22), so that a reused pid is told apart; 0 when
// there is none.
uint64_t process_start_time(pid_t pid);

struct JobId {
  uint32_t value = 0;  // node id of the krgrun in the upper 16 bits
  auto operator<=>(const JobId&) const = default;
};

class ProcessTable {
 public:
  struct Shadow {
    NodeId body_node;
    JobId job;
    // Of a guardian: where the shadow proper is. The process was a guest here, and has left
    // children, whom its guardian keeps.
    NodeId origin = kNoNode;
    bool is_guardian() const { return origin != kNoNode; }
  };
  struct Body {
    NodeId origin;  // where its shadow is
    JobId job;
    pid_t virtual_group;  // as its shadow had them when the body was made or last told
    pid_t virtual_session;
    // Where it has left children, for whom its shadow or guardian there waits on its behalf.
    std::vector<NodeId> children_on = {};
  };

  // A process is placed, frozen or moved by one part at a time: who holds its claim. Given back
  // when this goes.
  class Claim {
   public:
    Claim(Claim&& other) noexcept = default;
    Claim& operator=(Claim&&) = delete;
    ~Claim();
    // Waits of the process that krgd has in hand are to end, so that it can be frozen: all, or all
    // but those for its children.
    void end_waits();
    void end_waits_but_for_children();

   private:
    friend class ProcessTable;
    enum class Ends { kNone, kAllButForChildren, kAll };
    using Claimed = std::map<pid_t, Ends>;
    Claim(std::shared_ptr<Claimed> claimed, pid_t pid) : claimed_(std::move(claimed)), pid_(pid) {}
    std::shared_ptr<Claimed> claimed_;
    pid_t pid_;
  };
  // Errors: EBUSY.
  Result<Claim> claim(pid_t pid);
  // Whether its claim said so, of waits for children or of others.
  bool ends_waits_for_children(pid_t pid) const;
  bool ends_waits(pid_t pid) const;

  // Without `kddm` a home is asked each time.
  explicit ProcessTable(NodeContext& node, Kddm* kddm = nullptr);
  ~ProcessTable();
  ProcessTable(const ProcessTable&) = delete;
  ProcessTable& operator=(const ProcessTable&) = delete;

  void add_shadow(pid_t pid, Shadow shadow);
  void remove_shadow(pid_t pid);
  const Shadow* find_shadow(pid_t pid) const;
  std::vector<pid_t> shadows() const;
  // `known` runs when every node would find what was last said of this shadow, or of its end.
  void when_known(pid_t pid, std::function<void()> known);

  void add_body(pid_t pid, Body body);
  void remove_body(pid_t pid);
  Body* find_body(pid_t pid);
  std::vector<pid_t> bodies() const;
  // The body whose kernel process group `group` this is (a body leads its group), also after the
  // body itself has gone while descendants remain; nullptr for a native group.
  Body* find_group(pid_t group);
  // False when find_group() finds nothing whatever it is asked.
  bool has_groups() const;

  // A task of krgd's own that looks like a process of the session: nobody is shown it.
  void hide(pid_t pid);
  void forget_hidden(pid_t pid);
  bool is_hidden(pid_t pid) const;

  // Every session process that executes on this node: native ones and bodies, without shadows,
  // hidden ones and krgd.
  std::vector<pid_t> local_processes() const;
  // Processes that were restarted on another node than the one that their numbers say, which every
  // node has been told of.
  void add_stray(GlobalPid pid, NodeId home);
  void forget_stray(GlobalPid pid);
  // Where the place of `pid` is: it is native, or has its shadow there. REQUIRES: pid.value > 0.
  NodeId home_of(GlobalPid pid) const;
  bool is_at_home(GlobalPid pid) const;
  // Whether a process of that number would execute on this node: at home, or as a body.
  bool executes_here(pid_t pid) const;

  // On which node `pid` executes. Errors: ESRCH; EHOSTDOWN when its origin is dead.
  void locate(GlobalPid pid, std::function<void(Result<NodeId>)> done);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
