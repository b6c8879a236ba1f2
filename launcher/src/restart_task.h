// RestartPlan: what the first process of a restart does before it execs: it opens again what its
// family had open, asks krgd for what only krgd can make, and execs the program at which krgd takes
// it over (krg/checkpoint/checkpoints.h, restart.*).
//
// Threads: one. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "krg/runtime/control_client.h"
#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"
#include "restart_sockets.h"

namespace krg {

struct RestartPlan {
  using Lock =
      std::tuple<bool, int64_t, int64_t>;  // is to write, first byte, bytes (0: to the end)
  struct File {
    unsigned kind = 0;  // FamilyFile::Kind
    std::string path;
    int flags = 0;
    int64_t offset = 0;
    int stream = 0, flock = 0;
    uint32_t socket = 0, master = 0;  // its socket; which file is the slave's master
    uint64_t bytes = 0;
    int64_t modified_ns = 0;  // of a regular file
    mode_t mode = 0;
    bool is_put_back = false;  // its contents are
    std::string terminal;      // a terminal's settings: struct termios
    std::vector<Lock> locks;   // F_OFD_SETLK
  };
  struct Mapped {
    std::string path;
    uint64_t bytes = 0;
    int64_t modified_ns = 0;
  };
  uint32_t job = 0, version = 0;
  pid_t pid = 0;
  std::string program;
  int first_slot = 3;
  std::vector<File> files;
  std::vector<Mapped> mapped;
  RestartSockets sockets;
  std::vector<std::string> lost;  // what is gone, and told
  bool distant_threads = false;   // the threads of one may run on other nodes

  // The answer to restart.open.
  static RestartPlan parse(const nlohmann::json& answer, uint32_t job);
  // In the process itself, in its session, with its standard streams in place. Returns only what
  // went wrong.
  Error exec(const std::string& control_path) const;

 private:
  Status open_sockets(std::vector<UniqueFd>& slots) const;
  Result<std::vector<UniqueFd>> open_slots(ControlClient& krgd) const;
  Result<UniqueFd> open_file(const File& file) const;
  static Result<UniqueFd> open_slave(const File& file, int master);
  bool is_put_back(const std::string& path) const;
  Result<UniqueFd> open_mapped(const Mapped& file) const;
  // Those that are not made elsewhere, `may_change` or not.
  Status open_mapped(std::vector<UniqueFd>& slots, bool may_change) const;
};

}  // namespace krg
