// SPDX-License-Identifier: GPL-2.0-or-later
#include "restarts.h"

#include <fmt/format.h>

#include <map>
#include <optional>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/load_pages.h"
#include "krg/procmgr/family_installer.h"
#include "krg/runtime/log.h"
#include "krg/runtime/unix_socket.h"

namespace krg {
namespace {

using nlohmann::json;
using Request = ControlServer::Request;
using SharedReply = std::shared_ptr<ControlServer::Reply>;

class Restarts : public std::enable_shared_from_this<Restarts> {
 public:
  explicit Restarts(const Checkpoints::Parts& parts)
      : node_(parts.capture.node),
        capabilities_(parts.capture.capabilities),
        control_(parts.control),
        start_pids_after_(parts.start_pids_after) {}

  void add_commands() {
    add("restart.open", &Restarts::open);
    add("restart.files", &Restarts::files);
    add("restart.hold", &Restarts::hold);
    control_.on_disconnect([self = shared_from_this()](ControlServer::ConnectionId connection) {
      std::erase_if(self->restarts_, [connection](const auto& entry) {
        return entry.second->connection == connection;
      });
    });
  }

 private:
  // One restart, until its processes run.
  struct Restart {
    ControlServer::ConnectionId connection = 0;
    VersionInfo info;
    std::vector<std::unique_ptr<PartReader>> parts;
    std::unique_ptr<FamilyInstaller> installer;
    std::vector<FamilyInstaller::MadeFile> made;
    Status outcome;
  };
  using RestartPtr = std::shared_ptr<Restart>;

  void add(const char* name, void (Restarts::*command)(const Request&, const SharedReply&)) {
    control_.add_command(
        name, [self = shared_from_this(), command](Request request, ControlServer::Reply reply) {
          ((*self).*command)(request, std::make_shared<ControlServer::Reply>(std::move(reply)));
        });
  }

  // ---- what krgrun asks ----

  void open(const Request& request, const SharedReply& reply) {
    auto restart = std::make_shared<Restart>();
    restart->connection = request.connection;
    const std::string folder = request.arguments.value("folder", std::string());
    const uint32_t version = request.arguments.value("version", 0u);
    const uint32_t job = request.arguments.value("job", 0u);
    node_.workers.submit([self = shared_from_this(), restart, folder,
                          version] { restart->outcome = self->read(*restart, folder, version); },
                         [self = shared_from_this(), restart, reply, job] {
                           if (restart->outcome)
                             restart->outcome = restart->installer->check_pids();
                           if (!restart->outcome) return reply->fail(restart->outcome.error());
                           self->start_pids_after_(restart->installer->highest_pid());
                           json plan = self->plan(*restart);
                           if (plan.dump().size() + 1024 > kMaxPacketBytes)
                             return reply->fail(errno_error("too many open files", EMSGSIZE));
                           self->restarts_[job] = restart;
                           reply->ok(std::move(plan));
                         });
  }

  Status read(Restart& restart, const std::string& folder, uint32_t version) {
    auto store = CheckpointStore::open(folder, false);
    if (!store) return store.error();
    auto info = store->info(version);
    if (!info) return info.error();
    auto parts = store->open_parts(*info);
    if (!parts) return parts.error();
    restart.info = std::move(*info);
    restart.parts = std::move(*parts);
    auto installer =
        FamilyInstaller::create(node_, capabilities_, restart.parts.front()->contents().family);
    if (!installer) return installer.error();
    restart.installer = std::move(*installer);
    auto made = restart.installer->make_files();
    if (!made) return made.error();
    restart.made = std::move(*made);
    return {};
  }

  json plan(const Restart& restart) const {
    json files = json::array(), mapped = json::array();
    for (const FamilyFile& file : restart.installer->family().files)
      files.push_back({{"kind", static_cast<unsigned>(file.kind)},
                       {"path", file.path},
                       {"flags", file.flags},
                       {"offset", file.offset},
                       {"stream", file.stream},
                       {"flock", file.flock}});
    for (const FamilyInstaller::MappedFile& file : restart.installer->mapped())
      mapped.push_back(
          {{"path", file.path}, {"bytes", file.bytes}, {"modified_ns", file.modified_ns}});
    return {{"version", restart.info.version},
            {"pid", restart.installer->root()},
            {"program", restart.installer->program()},
            {"first_slot", restart.installer->first_slot()},
            {"files", files},
            {"mapped", mapped}};
  }

  // ---- what the root asks before it execs ----

  Result<RestartPtr> of_root(const Request& request) {
    auto found = restarts_.find(request.arguments.value("job", 0u));
    if (found == restarts_.end()) return errno_error("no restart is under way", ESRCH);
    if (request.peer.pid != found->second->installer->root())
      return errno_error("only the process that is to be restarted may ask", EPERM);
    return found->second;
  }

  void files(const Request& request, const SharedReply& reply) {
    auto restart = of_root(request);
    if (!restart) return reply->fail(restart.error());
    json slots = json::array();
    std::vector<int> fds;
    const auto& made = (*restart)->made;
    for (size_t i = request.arguments.value("from", size_t{0});
         i < made.size() && fds.size() < kMaxPacketFds; ++i) {
      slots.push_back(made[i].file);
      fds.push_back(made[i].fd.get());
    }
    reply->ok({{"slots", slots}}, fds);
  }

  void hold(const Request& request, const SharedReply& reply) {
    auto found = of_root(request);
    if (!found) return reply->fail(found.error());
    RestartPtr restart = *found;
    restart->made.clear();  // it has them
    const uint32_t job = request.arguments.value("job", 0u);
    auto holding =
        restart->installer->hold([self = shared_from_this(), restart, job](Status laid_out) {
          laid_out ? self->load(restart, job) : self->end(restart, job, std::move(laid_out));
        });
    holding ? reply->ok() : reply->fail(holding.error());
  }

  void load(const RestartPtr& restart, uint32_t job) {
    node_.workers.submit(
        [restart] {
          const FamilyInstaller& installer = *restart->installer;
          restart->outcome = load_pages(
              restart->parts, [&installer](uint32_t member, std::span<const PageRange> ranges,
                                           std::span<const std::byte> contents) {
                return installer.write(member, ranges, contents);
              });
        },
        [self = shared_from_this(), restart, job] {
          Status outcome = std::move(restart->outcome);
          if (outcome) outcome = restart->installer->thaw();
          self->end(restart, job, std::move(outcome));
        });
  }

  void end(const RestartPtr& restart, uint32_t job, Status how) {
    const VersionInfo& info = restart->info;
    if (how) {
      log_info("checkpoint", "job {}: version {} runs again, {} processes", job, info.version,
               info.processes);
      control_.notify(restart->connection, "restarted", {{"version", info.version}});
    } else {
      control_.notify(restart->connection, "restart_failed", {{"reason", how.error().message()}});
    }
    restart->installer.reset();  // what does not run is killed
    auto known = restarts_.find(job);
    if (known != restarts_.end() && known->second == restart) restarts_.erase(known);
  }

  NodeContext& node_;
  CapabilityTable& capabilities_;
  ControlServer& control_;
  std::function<void(pid_t)> start_pids_after_;
  std::map<uint32_t, RestartPtr> restarts_;  // by job
};

}  // namespace

void add_restart_commands(const Checkpoints::Parts& parts) {
  std::make_shared<Restarts>(parts)->add_commands();
}

}  // namespace krg
