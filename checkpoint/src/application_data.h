// ApplicationData: 64 bits that an application keeps with itself (libkrg,
// application_set_userdata()), also over checkpoints; 0 until it sets them. They are kept where the
// place of its root is (ProcessTable::home_of()), wherever that executes.
//
// Threads: the loop's thread. Owned by Checkpoints. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>

#include "applications.h"
#include "krg/runtime/control_server.h"
#include "process_notes.h"

namespace krg {

class ApplicationData : public std::enable_shared_from_this<ApplicationData> {
 public:
  using Done = std::function<void(Result<uint64_t>)>;

  ApplicationData(NodeContext& node, ControlServer& control, ProcessTable& table,
                  std::shared_ptr<Applications> applications)
      : node_(node), control_(control), table_(table), applications_(std::move(applications)) {}
  // `application.data` {pid, value}: that of its application, set where there is a value.
  void listen();

  // Errors: EHOSTDOWN.
  void get(pid_t root, Done done);
  void set(pid_t root, uint64_t value, Done done);

 private:
  void ask(pid_t root, bool sets, uint64_t value, Done done);

  NodeContext& node_;
  ControlServer& control_;
  ProcessTable& table_;
  std::shared_ptr<Applications> applications_;
  ProcessNotes<uint64_t> values_;  // of roots whose place is here
};

}  // namespace krg
