// SPDX-License-Identifier: GPL-2.0-or-later
#include "proc_pids.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "gather.h"

namespace krg {
namespace {

constexpr pid_t kKrgd = 1;

// What is below a directory is found through it, and the directory is asked for each time: so the
// names in it may be kept.
constexpr double kNameValid_s = 10;
// While a program goes through all processes (PidSweeps), and for its next few calls otherwise.
constexpr double kSweptValid_s = 0.05;
// A link into procfs stays right when its process ends: procfs has no such name then. It goes wrong
// only when the process becomes a shadow, which happens at the first exec of a forked process.
constexpr double kPidLinkValid_s = 1;
constexpr uint32_t kForkedNotExecuted = 0x40;  // PF_FORKNOEXEC of linux/sched.h

FileUser user_of(const FsCaller& caller) {
  return {caller.uid, caller.gid};
}
FileUser own_user() {
  return {geteuid(), getegid()};
}

struct stat made_attributes(mode_t mode, uid_t uid, gid_t gid) {
  struct stat attributes {};
  attributes.st_mode = mode;
  attributes.st_nlink = S_ISDIR(mode) ? 2 : 1;
  attributes.st_uid = uid;
  attributes.st_gid = gid;
  attributes.st_mtim.tv_sec = attributes.st_ctim.tv_sec = attributes.st_atim.tv_sec = time(nullptr);
  return attributes;
}

// Files that every process has, so that looking one up needs no message. Modes as in proc(5).
struct KnownFile {
  std::string_view name;
  mode_t mode;
};
constexpr std::array kKnownFiles{
    KnownFile{"stat", 0444},    KnownFile{"status", 0444},    KnownFile{"statm", 0444},
    KnownFile{"cmdline", 0444}, KnownFile{"comm", 0644},      KnownFile{"environ", 0400},
    KnownFile{"wchan", 0444},   KnownFile{"cgroup", 0444},    KnownFile{"limits", 0444},
    KnownFile{"io", 0400},      KnownFile{"maps", 0444},      KnownFile{"oom_score", 0444},
    KnownFile{"smaps", 0444},   KnownFile{"mountinfo", 0444}, KnownFile{"oom_score_adj", 0644}};

bool is_a_process_or_thread(std::string_view path) {
  return std::count(path.begin(), path.end(), '/') % 2 == 0;  // "1", "1/task/2"
}

// What a body's directory shows of its own; the rest links into the session's procfs.
bool is_shown_for_bodies(std::string_view name) {
  constexpr std::array kNames{"stat", "status", "task", "exe", "cwd", "root"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

// What procfs reads in the process's memory.
bool is_in_memory(std::string_view name) {
  return name == "cmdline" || name == "environ";
}

}  // namespace

ProcPids::ProcPids(NodeContext& node, ProcessTable& table, PidIdentities& identities,
                   NodeFiles& files, ClusterFacts& facts, PlainFiles proc,
                   std::string proc_directory, OpenTexts& texts)
    : node_(node),
      table_(table),
      identities_(identities),
      files_(files),
      facts_(facts),
      proc_(std::move(proc)),
      proc_directory_(std::move(proc_directory)),
      texts_(texts),
      sweeps_(node.loop, files) {}

void ProcPids::lookup_pid(const FsCaller& caller, pid_t pid, FsReply<FsEntry> reply) {
  if (const ListedProcess* listed = sweeps_.find(caller.tid, pid)) {
    return reply(entry_of({listed->runs_on,
                           pid,
                           std::to_string(pid),
                           made_attributes(S_IFDIR | 0555, listed->uid, listed->gid),
                           {}},
                          kSweptValid_s));
  }
  if (const ProcessTable::Shadow* shadow = table_.find_shadow(pid))
    return lookup_on(shadow->body_node, caller, pid, std::move(reply));
  // Threads of this node have pids of its range too, and are found like processes.
  // What is here of a spread process of another node is not its process.
  const bool is_here = !table_.is_hidden(pid) &&
                       static_cast<bool>(proc_.attributes(own_user(), std::to_string(pid)));
  if (is_here) return lookup_local(pid, std::move(reply));
  lookup_elsewhere(caller, pid, std::move(reply));
}

void ProcPids::lookup_local(pid_t pid, FsReply<FsEntry> reply) {
  auto attributes = proc_.attributes(own_user(), std::to_string(pid));
  if (!attributes) return reply(errno_error("no such process", ENOENT));
  if (identities_.differs_from_kernel(pid) || files_.are_completed(pid))
    return reply(entry_of({node_.self, pid, std::to_string(pid), *attributes, {}}, 0));
  auto text = proc_.read(own_user(), std::to_string(pid) + "/stat");
  auto stat = parse_pid_stat(text ? *text : std::string());
  FsEntry entry;
  entry.id = kPidLinkBase + static_cast<FileId>(pid);
  entry.attributes = made_attributes(S_IFLNK | 0777, attributes->st_uid, attributes->st_gid);
  entry.attributes.st_size = static_cast<off_t>(link_path(std::to_string(pid)).size());
  entry.valid_s = stat && !(stat->flags & kForkedNotExecuted) ? kPidLinkValid_s : 0;
  reply(entry);
}

void ProcPids::lookup_elsewhere(const FsCaller& caller, pid_t pid, FsReply<FsEntry> reply) {
  const bool may_exist = pid >= kReservedPids && pid < 1 << kPidBits &&
                         table_.home_of(GlobalPid{pid}).value < node_.node_count;
  if (!may_exist) return reply(errno_error("no such process", ENOENT));
  lookup_on(table_.home_of(GlobalPid{pid}), caller, pid, std::move(reply));
}

// Where the node of birth has the shadow only.
void ProcPids::lookup_where_it_runs(const FsCaller& caller, pid_t pid, FsReply<FsEntry> reply) {
  auto answer = shared(std::move(reply));
  table_.locate(GlobalPid{pid}, alive_.guard([this, caller, pid, answer](Result<NodeId> node) {
    if (!node || *node == node_.self) return lookup_local(pid, std::move(*answer));
    lookup_on(*node, caller, pid, std::move(*answer));
  }));
}

void ProcPids::lookup_on(NodeId node, const FsCaller& caller, pid_t pid, FsReply<FsEntry> reply) {
  auto answer = shared(std::move(reply));
  files_.attributes(node, user_of(caller), std::to_string(pid),
                    alive_.guard([this, node, caller, pid, answer](Result<struct stat> attributes) {
                      if (!attributes && attributes.error().errno_or(0) == EREMOTE)
                        return lookup_where_it_runs(caller, pid, std::move(*answer));
                      // A body that has just ended leaves its shadow behind, to be waited for.
                      if (!attributes) return lookup_local(pid, std::move(*answer));
                      (*answer)(entry_of({node, pid, std::to_string(pid), *attributes, {}}, 0));
                    }));
}

void ProcPids::list_pids(const FsCaller& caller,
                         std::function<void(std::vector<FsDirEntry>)> done) {
  using Processes = std::vector<ListedProcess>;
  gather<Processes>(
      living_nodes(node_.messenger),
      [&](NodeId node, auto answered) { files_.processes(node, answered); },
      alive_.guard([this, caller, done = std::move(done)](NodeAnswers<Processes> answers) {
        // A body that starts while the nodes are asked may be missing where it runs, but then its
        // shadow is there: both are taken, the one that runs wins.
        std::map<pid_t, ListedProcess> all;
        for (const auto& [node, processes] : answers)
          for (const ListedProcess& process : processes)
            if (process.runs_on == node || !all.contains(process.pid)) all[process.pid] = process;
        std::vector<FsDirEntry> entries{{std::to_string(kKrgd), 0}};
        Processes elsewhere;
        for (const auto& [pid, process] : all) {
          // Of unknown type: programs that want directories (htop) follow the link then.
          entries.push_back({std::to_string(pid), 0});
          if (process.runs_on != node_.self) elsewhere.push_back(process);
        }
        sweeps_.begin(caller.tid, elsewhere);
        done(std::move(entries));
      }));
}

const ProcPids::Place* ProcPids::find(FileId file) const {
  auto found = places_.find(file);
  return found == places_.end() ? nullptr : &found->second;
}

pid_t ProcPids::process_of(FileId file) const {
  const Place* place = find(file);
  return place && place->path == std::to_string(place->pid) ? place->pid : 0;
}

FsEntry ProcPids::entry_of(Place place, double valid_s) {
  FsEntry entry;
  if (S_ISLNK(place.attributes.st_mode)) {
    entry.id = next_number_++;  // the kernel keeps a link's target with its number
  } else {
    auto [number, is_new] = numbers_.try_emplace({place.node, place.path}, next_number_);
    if (is_new) ++next_number_;
    entry.id = number->second;
  }
  entry.attributes = place.attributes;
  entry.valid_s = valid_s;
  places_[entry.id] = std::move(place);
  return entry;
}

void ProcPids::forget(FileId file) {
  auto found = places_.find(file);
  if (found == places_.end()) return;
  if (!S_ISLNK(found->second.attributes.st_mode))
    numbers_.erase({found->second.node, found->second.path});
  places_.erase(found);
}

// Whether this name of a process's or thread's directory leads into the session's own procfs.
bool ProcPids::is_linked(const Place& directory, std::string_view name) const {
  if (directory.node != node_.self || !is_a_process_or_thread(directory.path)) return false;
  if (is_shown_for_bodies(name)) return false;
  return !is_in_memory(name) || !files_.are_completed(directory.pid);
}

// Files that are there without asking. True when it has answered.
bool ProcPids::lookup_known(const Place& parent, std::string_view name, FsReply<FsEntry>& reply) {
  if (!is_a_process_or_thread(parent.path)) return false;
  Place place{parent.node, parent.pid, parent.path + '/' + std::string(name), {}, {}};
  auto known = std::find_if(kKnownFiles.begin(), kKnownFiles.end(),
                            [&](const KnownFile& file) { return file.name == name; });
  if (known == kKnownFiles.end()) return false;
  const bool is_link = is_linked(parent, name);
  place.attributes = made_attributes(is_link ? S_IFLNK | 0777 : S_IFREG | known->mode,
                                     parent.attributes.st_uid, parent.attributes.st_gid);
  if (is_link) {
    place.target = link_path(place.path);
    place.attributes.st_size = static_cast<off_t>(place.target.size());
  }
  reply(entry_of(std::move(place), kNameValid_s));
  return true;
}

void ProcPids::lookup(const FsCaller& caller, FileId parent, std::string_view name,
                      FsReply<FsEntry> reply) {
  const Place* directory = find(parent);
  if (!directory) return reply(errno_error("lookup", ENOENT));
  if (lookup_known(*directory, name, reply)) return;
  Place place{directory->node, directory->pid, directory->path + '/' + std::string(name), {}, {}};
  const bool is_plain = is_linked(*directory, name);
  auto answer = shared(std::move(reply));
  files_.attributes(
      place.node, user_of(caller), place.path,
      alive_.guard([this, caller, place, is_plain, answer](Result<struct stat> attributes) mutable {
        if (!attributes) return (*answer)(attributes.error());
        place.attributes = *attributes;
        if (is_plain) {
          place.target = link_path(place.path);
          place.attributes =
              made_attributes(S_IFLNK | 0777, attributes->st_uid, attributes->st_gid);
          place.attributes.st_size = static_cast<off_t>(place.target.size());
        } else if (S_ISLNK(attributes->st_mode)) {
          return lookup_link(caller, std::move(place), std::move(*answer));
        }
        (*answer)(entry_of(std::move(place), 0));
      }));
}

// A link of a process elsewhere, or whose own name would be shown otherwise (exe, cwd). Who may not
// read it sees that it is there.
void ProcPids::lookup_link(const FsCaller& caller, Place place, FsReply<FsEntry> reply) {
  auto answer = shared(std::move(reply));
  files_.link_target(place.node, user_of(caller), place.path,
                     alive_.guard([this, place, answer](Result<std::string> target) mutable {
                       place.target = target ? std::move(*target) : std::string();
                       place.attributes.st_size = static_cast<off_t>(place.target.size());
                       (*answer)(entry_of(std::move(place), 0));
                     }));
}

void ProcPids::getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) {
  if (file < kFirstNumbered)
    return lookup_local(static_cast<pid_t>(file - kPidLinkBase), std::move(reply));
  const Place* place = find(file);
  if (!place) return reply(errno_error("getattr", ENOENT));
  if (!S_ISDIR(place->attributes.st_mode)) {
    FsEntry entry;
    entry.id = file;
    entry.attributes = place->attributes;
    entry.valid_s = kNameValid_s;
    return reply(entry);
  }
  auto answer = shared(std::move(reply));
  files_.attributes(place->node, user_of(caller), place->path,
                    [file, answer](Result<struct stat> attributes) {
                      if (!attributes) return (*answer)(attributes.error());
                      FsEntry entry;
                      entry.id = file;
                      entry.attributes = *attributes;
                      (*answer)(entry);
                    });
}

void ProcPids::readlink(const FsCaller& caller, FileId file, FsReply<std::string> reply) {
  if (file < kFirstNumbered) return reply(link_path(std::to_string(file - kPidLinkBase)));
  const Place* place = find(file);
  if (!place) return reply(errno_error("readlink", ENOENT));
  if (!place->target.empty()) return reply(place->target);
  auto answer = shared(std::move(reply));  // for the error that the caller gets
  files_.link_target(place->node, user_of(caller), place->path,
                     [answer](Result<std::string> target) { (*answer)(std::move(target)); });
}

void ProcPids::readdir(const FsCaller& caller, FileId directory,
                       FsReply<std::vector<FsDirEntry>> reply) {
  const Place* place = find(directory);
  if (!place) return reply(errno_error("readdir", ENOENT));
  auto answer = shared(std::move(reply));
  files_.list(
      place->node, user_of(caller), place->path,
      alive_.guard([this, listed = *place, answer](Result<std::vector<FsDirEntry>> entries) {
        if (entries)
          for (FsDirEntry& entry : *entries)
            if (is_linked(listed, entry.name)) entry.type = S_IFLNK;
        (*answer)(std::move(entries));
      }));
}

// The text of a file as this node's programs have to see it.
Result<std::string> ProcPids::as_seen_here(const Place& place, Result<std::string> text) const {
  if (!text || place.node == node_.self || place.name() != "stat") return text;
  return shift_pid_stat(*text, facts_.shift_from(place.node));
}

void ProcPids::read(const FsCaller& caller, const Place& place, bool may_sweep, TextDone done) {
  auto read_alone = alive_.guard([this, caller, place, done] {
    files_.read(place.node, user_of(caller), place.path,
                alive_.guard([this, place, done](Result<std::string> text) {
                  done(as_seen_here(place, std::move(text)));
                }));
  });
  if (!may_sweep || place.node == node_.self) return read_alone();
  sweeps_.read(
      caller.tid, user_of(caller), place.node, place.pid, place.name(),
      alive_.guard([this, place, done, read_alone](std::optional<std::string> text) mutable {
        if (!text) return read_alone();
        done(as_seen_here(place, std::move(*text)));
      }));
}

void ProcPids::open(const FsCaller& caller, FileId file, int flags, FsReply<FsOpened> reply) {
  const Place* place = find(file);
  if (!place) return reply(errno_error("open", ENOENT));
  OpenTexts::Sink sink;
  const bool reads = (flags & O_ACCMODE) != O_WRONLY;
  if ((flags & O_ACCMODE) != O_RDONLY) {
    sink = alive_.guard([this, node = place->node, path = place->path, user = user_of(caller)](
                            std::string_view data, FsReply<size_t> written) {
      auto answer = shared(std::move(written));
      files_.write(node, user, path, data,
                   [answer](Result<size_t> count) { (*answer)(std::move(count)); });
    });
  }
  // Only the first text may come out of a sweep: who reads again wants to see what has changed.
  auto may_sweep = std::make_shared<bool>(place->path.find('/') == place->path.rfind('/'));
  auto source = alive_.guard([this, caller, place = *place, may_sweep](TextDone done) {
    facts_.when_known(alive_.guard([this, caller, place, may_sweep, done] {
      read(caller, place, std::exchange(*may_sweep, false), done);
    }));
  });
  texts_.open(std::move(source), reads, std::move(sink), std::move(reply));
}

}  // namespace krg
