// SPDX-License-Identifier: GPL-2.0-or-later
#include "restarts.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "checkpoint_messages.h"
#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/load_pages.h"
#include "krg/procmgr/family_installer.h"
#include "krg/procmgr/threads_again.h"
#include "krg/runtime/hex.h"
#include "krg/runtime/log.h"
#include "krg/runtime/run_after.h"
#include "krg/runtime/unix_socket.h"
#include "late_members.h"
#include "member_loads.h"
#include "payloads.h"
#include "socket_plan.h"

namespace krg {
namespace {

using nlohmann::json;
using namespace checkpoint_messages;
using Request = ControlServer::Request;
using SharedReply = std::shared_ptr<ControlServer::Reply>;

class Restarts : public std::enable_shared_from_this<Restarts> {
 public:
  Restarts(const Checkpoints::Parts& parts, std::function<void(pid_t, uint64_t)> give_data)
      : node_(parts.capture.node),
        parts_(parts),
        control_(parts.control),
        give_data_(std::move(give_data)),
        late_(std::make_shared<LateMembers>(node_, parts.capture.pages)),
        loads_(std::make_shared<MemberLoads>(node_, late_)) {}

  void add_commands() {
    add("restart.open", &Restarts::open);
    add("restart.files", &Restarts::files);
    add("restart.hold", &Restarts::hold);
    node_.messenger.on_request<SettlePids>(
        [self = shared_from_this()](NodeId from, const SettlePids& ask, std::string_view pids,
                                    Messenger::Reply reply) {
          self->settle_here(from, ask, split_rows<pid_t>(pids),
                            std::make_shared<Messenger::Reply>(std::move(reply)));
        });
    loads_->listen();
    control_.on_disconnect([self = shared_from_this()](ControlServer::ConnectionId connection) {
      std::erase_if(self->restarts_, [connection](const auto& entry) {
        return entry.second->connection == connection;
      });
    });
  }

  bool has(pid_t pid) const {
    return late_->has(pid) ||
           std::any_of(restarts_.begin(), restarts_.end(), [pid](const auto& entry) {
             const auto& members = entry.second->installer->family().members;
             return std::any_of(members.begin(), members.end(),
                                [pid](const FamilyMember& member) { return member.pid == pid; });
           });
  }

 private:
  // One restart, until its processes run.
  struct Restart {
    ControlServer::ConnectionId connection = 0;
    VersionInfo info;
    std::string folder;
    SharedParts parts;
    std::optional<Error> failure;
    bool is_lazy = false;  // pages come while it runs
    bool is_late = false;  // so they do
    bool puts_files_back = false;
    bool shows_progress = false;
    bool closes_lost = false;  // connections to outside
    ThreadsAgain threads;
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
    restart->folder = request.arguments.value("folder", std::string());
    restart->shows_progress = request.arguments.value("progress", false);
    restart->closes_lost = request.arguments.value("close_lost", false);
    restart->is_lazy = request.arguments.value("lazy", false);
    restart->puts_files_back = request.arguments.value("files", false);
    if (const auto come_home = request.arguments.find("threads_come_home");
        come_home != request.arguments.end())
      restart->threads.come_home = come_home->get<bool>();
    const uint32_t version = request.arguments.value("version", 0u);
    const uint32_t job = request.arguments.value("job", 0u);
    restart->threads.job = job;
    node_.workers.submit([self = shared_from_this(), restart,
                          version] { restart->outcome = self->read(*restart, version); },
                         [self = shared_from_this(), restart, reply, job] {
                           if (!restart->outcome) return reply->fail(restart->outcome.error());
                           self->settle(restart, false, [self, restart, reply, job] {
                             self->make_shared_ipc(restart, reply, job);
                           });
                         });
  }

  void make_shared_ipc(const RestartPtr& restart, const SharedReply& reply, uint32_t job) {
    if (restart->failure) return opened(restart, reply, job);
    restart->installer->make_shared_ipc([self = shared_from_this(), restart, reply,
                                         job](Result<std::vector<FamilyInstaller::MadeFile>> made) {
      if (made)
        std::move(made->begin(), made->end(), std::back_inserter(restart->made));
      else
        restart->failure = made.error();
      self->opened(restart, reply, job);
    });
  }

  void opened(const RestartPtr& restart, const SharedReply& reply, uint32_t job) {
    const auto refuse = [&](const Error& why) {
      settle(restart, true, [reply, why] { reply->fail(why); });
    };
    if (restart->failure) return refuse(*restart->failure);
    json plan = this->plan(*restart);
    if (plan.dump().size() + 1024 > kMaxPacketBytes)
      return refuse(errno_error("too many open files", EMSGSIZE));
    restarts_[job] = restart;
    reply->ok(std::move(plan));
  }

  // ---- pids, which all nodes are told of ----

  void settle(const RestartPtr& restart, bool forget, const std::function<void()>& done) {
    const auto pids = rows(restart->installer->all_ids());
    std::vector<NodeId> nodes;
    for (uint16_t n = 0; n < node_.node_count; ++n)
      if (!node_.messenger.is_failed(NodeId{n})) nodes.push_back(NodeId{n});
    auto left = std::make_shared<size_t>(nodes.size());
    SettlePids ask;
    ask.forget = forget;
    for (NodeId to : nodes)
      node_.messenger.request(to, ask, pids, [restart, left, done](Result<std::string> reply) {
        if (!reply && !restart->failure) restart->failure = reply.error();
        if (--*left == 0) done();
      });
  }

  // Whoever has one of the numbers may be on its way out, with a job that has just been ended: so
  // many looks are taken.
  static constexpr unsigned kLooks = 60;
  static constexpr std::chrono::milliseconds kBetweenLooks{50};

  void settle_here(NodeId home, const SettlePids& ask, const std::vector<pid_t>& pids,
                   const std::shared_ptr<Messenger::Reply>& reply, unsigned looks = kLooks) {
    const auto taken = ask.forget ? pids.end() : std::find_if(pids.begin(), pids.end(), is_taken);
    if (taken != pids.end() && looks > 1)
      return run_after(node_.loop, kBetweenLooks,
                       [self = shared_from_this(), home, ask, pids, reply, looks] {
                         self->settle_here(home, ask, pids, reply, looks - 1);
                       });
    if (taken != pids.end()) return reply->fail(EEXIST, fmt::format("pid {} is taken", *taken));
    pid_t highest = 0;
    for (pid_t pid : pids) {
      ask.forget ? parts_.capture.table.forget_stray(GlobalPid{pid})
                 : parts_.capture.table.add_stray(GlobalPid{pid}, home);
      if (node_.pids.is_local(GlobalPid{pid})) highest = std::max(highest, pid);
    }
    if (!ask.forget && highest > 0) parts_.start_pids_after(highest);
    reply->ok();
  }
  static bool is_taken(pid_t pid) {
    return access(fmt::format("/proc/{}", pid).c_str(), F_OK) == 0;
  }

  // ---- files ----

  Status read(Restart& restart, uint32_t version) {
    auto store = CheckpointStore::open(restart.folder, false);
    if (!store) return store.error();
    auto info = store->info(version);
    if (!info) return info.error();
    auto parts = store->open_parts(*info);
    if (!parts) return parts.error();
    restart.info = std::move(*info);
    restart.parts =
        std::make_shared<const std::vector<std::unique_ptr<PartReader>>>(std::move(*parts));
    auto family = merged_family(restart.info, *restart.parts);
    if (!family) return family.error();
    for (FamilyMember& member : family->members)
      member.spread = with_threads(member.spread, restart.threads);
    auto installer = FamilyInstaller::create(
        {node_, parts_.capture.capabilities, parts_.capture.table, parts_.shadows,
         parts_.body_descriptors(), parts_.capture.spread, *parts_.capture.ipc,
         parts_.capture.shared_memory(),
         parts_.capture.descriptors ? &parts_.capture.descriptors->watched_paths() : nullptr},
        std::move(*family), [this](const FamilyMember& member) { return place_of(member); });
    if (!installer) return installer.error();
    restart.installer = std::move(*installer);
    if (auto lost = lost_peers(restart); !lost.empty() && !restart.closes_lost)
      return text_error(lost.front() + " (--lost-peers=close goes on without)");
    auto made = restart.installer->make_files();
    if (!made) return made.error();
    restart.made = std::move(*made);
    return {};
  }

  // Where it was, as far as there are so many nodes.
  NodeId place_of(const FamilyMember& member) const {
    const NodeId place{static_cast<uint16_t>(member.node % node_.node_count)};
    return node_.messenger.is_failed(place) || !parts_.is_online(place) ? node_.self : place;
  }

  // Connections and pipes whose other end was outside of the family, each in a sentence.
  static std::vector<std::string> lost_peers(const Restart& restart) {
    std::vector<std::string> lost;
    const ProcessFamily& family = restart.installer->family();
    for (uint32_t i = 0; i < family.files.size(); ++i) {
      const FamilyFile& file = family.files[i];
      const bool is_socket = file.kind == FamilyFile::Kind::kSocket;
      const bool is_pipe = file.kind == FamilyFile::Kind::kPipe;
      if (!(is_socket && family.sockets[file.pipe].is_lost) &&
          !(is_pipe && family.pipes[file.pipe].is_lost))
        continue;
      for (const FamilyMember& owner : family.members) {
        const auto fd = std::find_if(owner.fds.begin(), owner.fds.end(),
                                     [i](const FamilyFd& one) { return one.file == i; });
        if (fd == owner.fds.end()) continue;
        const std::string what = is_socket
                                     ? "a connection to outside: " + file.path
                                     : fmt::format("a pipe to outside: descriptor {}", fd->number);
        lost.push_back(fmt::format("process {} ({}) had {}", owner.pid, owner.name, what));
        break;
      }
    }
    return lost;
  }

  static bool has_distant_threads(const ProcessFamily& family) {
    return std::any_of(family.members.begin(), family.members.end(), [](const FamilyMember& m) {
      return !m.spread.empty() || m.capabilities.effective.has(Capability::kDistantThread);
    });
  }

  // Why all pages are loaded before a process runs, though it was asked otherwise.
  std::string loads_first(const Restart& restart) const {
    const Status later = late_->can_come_later();
    return restart.is_lazy && !later ? later.error().message() : "";
  }

  json plan(const Restart& restart) const {
    json files = json::array(), mapped = json::array();
    const ProcessFamily& family = restart.installer->family();
    for (uint32_t i = 0; i < family.files.size(); ++i) {
      const FamilyFile& file = family.files[i];
      files.push_back({{"kind", static_cast<unsigned>(file.kind)},
                       {"path", file.path},
                       {"flags", file.flags},
                       {"offset", file.offset},
                       {"stream", file.stream},
                       {"flock", file.flock},
                       {"socket", file.pipe},
                       {"master", family.master_of(file).value_or(0)},
                       {"bytes", file.bytes},
                       {"modified_ns", file.is_regular ? file.modified_ns : 0},
                       {"mode", file.mode},
                       {"is_put_back", restart.puts_files_back && file.is_saved &&
                                           file.kind == FamilyFile::Kind::kPath}});
      for (const FamilyLock& lock : file.locks)
        files.back()["locks"].push_back({lock.is_write != 0, lock.start, lock.bytes});
      if (const auto terminal = family.terminal_of(i))
        files.back()["terminal"] =
            to_hex({reinterpret_cast<const char*>(&terminal->settings), sizeof(termios)});
    }
    for (const FamilyInstaller::MappedFile& file : restart.installer->mapped())
      mapped.push_back(
          {{"path", file.path}, {"bytes", file.bytes}, {"modified_ns", file.modified_ns}});
    return {{"version", restart.info.version},
            {"pid", restart.installer->root()},
            {"program", restart.installer->program()},
            {"first_slot", restart.installer->first_slot()},
            {"sockets", sockets_for_plan(restart.installer->family())},
            {"lost", lost_peers(restart)},
            {"loads_first", loads_first(restart)},
            {"distant_threads", has_distant_threads(restart.installer->family())},
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
    restart->is_late = restart->is_lazy && late_->can_come_later();
    auto holding = restart->installer->hold(
        restart->is_late, [self = shared_from_this(), restart, job](Status laid_out) {
          laid_out ? self->load(restart, job) : self->end(restart, job, std::move(laid_out));
        });
    holding ? reply->ok() : reply->fail(holding.error());
  }

  // Each node reads what its members have, but for those that need not have it before they run.
  void load(const RestartPtr& restart, uint32_t job) {
    auto left = std::make_shared<size_t>(0);
    restart->failure.reset();
    const auto one_has = [self = shared_from_this(), restart, job, left](const Status& loaded) {
      if (!loaded && !restart->failure) restart->failure = loaded.error();
      if (--*left > 0) return;
      restart->failure ? self->end(restart, job, *restart->failure)
                       : self->put_files_back(restart, job);
    };
    const auto& family = restart->installer->family().members;
    std::map<NodeId, std::vector<pid_t>> members;
    std::vector<pid_t> pids;
    std::map<uint32_t, UniqueFd> late;
    for (uint32_t i = 0; i < family.size(); ++i) {
      if (family[i].has_ended()) continue;
      pids.push_back(family[i].pid);
      if (auto userfaultfd = restart->installer->take_userfaultfd(i))
        late.emplace(i, std::move(userfaultfd));
      else
        members[restart->installer->node_of(i)].push_back(family[i].pid);
    }
    *left = late.size() + members.size() + 1;
    load_memory(restart, one_has);
    const auto awaited = restart->is_late ? await_late(restart, std::move(pids)) : nullptr;
    for (auto& [member, userfaultfd] : late) {
      auto added = late_->add(
          awaited, {restart->info, restart->parts, member, std::move(userfaultfd)}, one_has);
      if (!added) one_has(added);
    }
    for (const auto& [to, there] : members) load_there(restart, awaited, to, there, one_has);
  }

  LateMembers::FamilyPtr await_late(const RestartPtr& restart, std::vector<pid_t> pids) {
    return late_->add_family(
        std::move(pids), [this, connection = restart->connection](const Status& all) {
          all ? control_.notify(connection, "loaded", {})
              : control_.notify(connection, "restart_lost", {{"reason", all.error().message()}});
        });
  }

  // `awaited`: not null: pages may come while the members run.
  void load_there(const RestartPtr& restart, const LateMembers::FamilyPtr& awaited, NodeId to,
                  const std::vector<pid_t>& pids, const std::function<void(Status)>& may_run) {
    LoadPages ask;
    ask.number = restart->info.version;
    ask.id = restart->info.id;
    ask.audience = {node_.self, restart->shows_progress ? restart->connection : 0};
    ask.is_lazy = awaited && to != node_.self;
    ask.load = ++last_load_;
    const auto all_here = ask.is_lazy ? late_->add_others(awaited) : [](const Status&) {};
    node_.messenger.request(
        to, ask, with_text(restart->folder, rows(pids)),
        [self = shared_from_this(), to, ask, all_here, may_run](const Result<std::string>& reply) {
          if (reply && ask.is_lazy) self->await_there(to, ask.load, all_here);
          if (!reply) all_here({});  // nothing comes any more
          may_run(reply ? Status() : Status(reply.error()));
        });
  }

  // Members whose node fails end with it; the others go on.
  void await_there(NodeId to, uint64_t load, const std::function<void(Status)>& all_here) {
    AwaitPages ask;
    ask.load = load;
    node_.messenger.request(to, ask, {}, [all_here](const Result<std::string>& reply) {
      const bool is_lost = !reply && reply.error().errno_or(0) != EHOSTDOWN;
      all_here(is_lost ? Status(reply.error()) : Status());
    });
  }

  // That which nodes shared.
  void load_memory(const RestartPtr& restart, const std::function<void(Status)>& loaded) {
    auto outcome = std::make_shared<Status>();
    node_.workers.submit(
        [restart, outcome] {
          *outcome =
              load_memories(restart->info, *restart->parts,
                            [&](uint32_t memory, std::span<const PageRange> ranges,
                                std::span<const std::byte> contents) {
                              return restart->installer->write_memory(memory, ranges, contents);
                            });
        },
        [outcome, loaded] { loaded(*outcome); });
  }

  // The last that happens: all else is as it was.
  void put_files_back(const RestartPtr& restart, uint32_t job) {
    node_.workers.submit([restart] { restart->outcome = write_files(*restart); },
                         [self = shared_from_this(), restart, job] {
                           if (!restart->outcome)
                             return self->end(restart, job, std::move(restart->outcome));
                           self->give_data_(restart->installer->root(), restart->info.user_data);
                           restart->installer->thaw([self, restart, job](Status thawed) {
                             self->end(restart, job, std::move(thawed));
                           });
                         });
  }

  // All is read, and so checked, before anything is written that others see.
  static Status write_files(const Restart& restart) {
    const FamilyInstaller& installer = *restart.installer;
    const auto& files = installer.family().files;
    const auto is_written = [&](uint32_t file) {
      return files[file].is_saved != 0 &&
             (restart.puts_files_back || files[file].kind == FamilyFile::Kind::kDeleted);
    };
    if (restart.puts_files_back) {
      auto checked = load_files(restart.info, *restart.parts, is_written,
                                [](auto, auto, auto) -> Status { return {}; });
      if (!checked) return checked;
    }
    bool has_any = false;
    for (uint32_t i = 0; i < files.size(); ++i) {
      if (!is_written(i)) continue;
      has_any = true;
      if (auto cleared = installer.clear_file(i); !cleared) return cleared;
    }
    if (!has_any) return {};
    return load_files(
        restart.info, *restart.parts, is_written,
        [&](uint32_t file, std::span<const PageRange> ranges, std::span<const std::byte> contents) {
          return installer.write_file(file, ranges, contents);
        });
  }

  void end(const RestartPtr& restart, uint32_t job, Status how) {
    const VersionInfo& info = restart->info;
    if (how) {
      log_info("checkpoint", "job {}: version {} runs again, {} processes", job, info.version,
               info.processes);
      control_.notify(restart->connection, "restarted", {{"version", info.version}});
    } else {
      control_.notify(restart->connection, "restart_failed",
                      {{"reason", how.error().message()}, {"errno", how.error().errno_or(EIO)}});
    }
    restart->installer.reset();  // what does not run is killed
    auto known = restarts_.find(job);
    if (known != restarts_.end() && known->second == restart) restarts_.erase(known);
  }

  NodeContext& node_;
  const Checkpoints::Parts& parts_;
  ControlServer& control_;
  const std::function<void(pid_t, uint64_t)> give_data_;
  const std::shared_ptr<LateMembers> late_;
  const std::shared_ptr<MemberLoads> loads_;
  uint64_t last_load_ = 0;
  std::map<uint32_t, RestartPtr> restarts_;  // by job
};

}  // namespace

std::function<bool(pid_t)> add_restart_commands(const Checkpoints::Parts& parts,
                                                std::function<void(pid_t, uint64_t)> give_data) {
  auto restarts = std::make_shared<Restarts>(parts, std::move(give_data));
  restarts->add_commands();
  return [restarts](pid_t pid) { return restarts->has(pid); };
}

}  // namespace krg
