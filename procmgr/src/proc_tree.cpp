// SPDX-License-Identifier: GPL-2.0-or-later
#include "proc_tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>

#include "gather.h"
#include "text_scan.h"

namespace krg {
namespace {

// FileIds below those of ProcPids.
constexpr FileId kNodes = 4;
constexpr FileId kNodeCount = 5;
constexpr FileId kIpc = 6;
constexpr FileId kIpcTexts = 8;  // + index
constexpr std::array<std::string_view, 3> kIpcNames{"msg", "sem", "shm"};
constexpr FileId kMachineTexts = 16;      // + MachineText
constexpr FileId kNodeFolders = 1 << 16;  // + number * 16 + member
constexpr FileId kNodeFoldersEnd = kNodeFolders + (FileId{0x10000} << 4);
constexpr FileId kLinks = 1 << 24;  // + index
// "self" is another link for each process, "thread-self" for each thread.
constexpr FileId kSelf = 1 << 25;         // + thread group
constexpr FileId kThreadSelf = 1 << 26;   // + thread
constexpr FileId kFolderPaths = 1 << 27;  // + index

// In /proc/nodes/nodeN: the folder, its number, its texts.
constexpr unsigned kFolder = 0, kNodeNumber = 1, kNodeTexts = 2;
constexpr unsigned kCluster = 0xffff;  // the folder "cluster" stands for all nodes
constexpr std::array kNodeTextNames{MachineText::kCpuinfo, MachineText::kMeminfo,
                                    MachineText::kLoadavg, MachineText::kUptime,
                                    MachineText::kStat};

// The names in / stay what they are; only processes come and go.
constexpr double kFixedValid_s = 60;

struct NodeFolderFile {
  unsigned number;
  unsigned member;
};
std::optional<NodeFolderFile> node_folder_file(FileId file) {
  if (file < kNodeFolders || file >= kNodeFoldersEnd) return std::nullopt;
  return NodeFolderFile{static_cast<unsigned>((file - kNodeFolders) >> 4),
                        static_cast<unsigned>((file - kNodeFolders) & 15)};
}
constexpr FileId node_folder_id(unsigned number, unsigned member) {
  return kNodeFolders + (FileId{number} << 4) + member;
}

FsEntry fixed_entry(FileId id, mode_t mode) {
  FsEntry entry;
  entry.id = id;
  entry.attributes.st_mode = mode;
  entry.attributes.st_nlink = S_ISDIR(mode) ? 2 : 1;
  entry.attributes.st_mtim.tv_sec = entry.attributes.st_ctim.tv_sec =
      entry.attributes.st_atim.tv_sec = time(nullptr);
  entry.valid_s = kFixedValid_s;
  return entry;
}

FsEntry fixed_entry(FileId id) {
  auto in_folder = node_folder_file(id);
  if (id == kTreeRoot || id == kNodes || id == kIpc || (in_folder && in_folder->member == kFolder))
    return fixed_entry(id, S_IFDIR | 0555);
  return fixed_entry(id, S_IFREG | 0444);
}

FsEntry link_entry(FileId id, size_t target_bytes, double valid_s) {
  FsEntry entry = fixed_entry(id, S_IFLNK | 0777);
  entry.attributes.st_size = static_cast<off_t>(target_bytes);
  entry.valid_s = valid_s;
  return entry;
}

std::string_view name_of(MachineText what) {
  return kMachineTextNames[static_cast<unsigned>(what)];
}

bool is_pid(std::string_view name) {
  return to_number<pid_t>(name).has_value() && name[0] != '0' && name[0] != '-';
}

}  // namespace

pid_t thread_group_of(const PlainFiles& proc, pid_t tid) {
  // Most callers are the first thread of their process; a pidfd exists for those only
  // (pidfd_open(2)).
  int fd = static_cast<int>(syscall(SYS_pidfd_open, tid, 0));
  if (fd >= 0) {
    close(fd);
    return tid;
  }
  auto status = proc.read({geteuid(), getegid()}, std::to_string(tid) + "/status");
  std::string_view rest = status ? *status : std::string_view{};
  while (!rest.empty()) {
    std::string_view line = next_line(rest);
    if (line.substr(0, 5) == "Tgid:") return to_number<pid_t>(trimmed(line.substr(5))).value_or(0);
  }
  return 0;
}

ProcTree::ProcTree(NodeContext& node, ProcessTable& table, PidIdentities& identities,
                   NodeFiles& files, ClusterFacts& facts, PlainFiles proc,
                   std::string proc_directory, SeesLocal sees_local)
    : node_(node),
      proc_(proc),
      proc_directory_(proc_directory),
      sees_local_(std::move(sees_local)),
      machine_(node, files, facts),
      pids_(node, table, identities, files, facts, proc, proc_directory, texts_) {}

void ProcTree::lookup(const FsCaller& caller, FileId parent, std::string_view name,
                      FsReply<FsEntry> reply) {
  if (ProcPids::owns(parent)) return pids_.lookup(caller, parent, name, std::move(reply));
  if (parent == kTreeRoot) return lookup_in_root(caller, name, std::move(reply));
  if (const std::string* path = folder_path(parent))
    return reply(folder_entry(*path + '/' + std::string(name)));
  lookup_in_nodes(parent, name, std::move(reply));
}

void ProcTree::lookup_in_root(const FsCaller& caller, std::string_view name,
                              FsReply<FsEntry> reply) {
  if (is_pid(name)) return pids_.lookup_pid(caller, *to_number<pid_t>(name), std::move(reply));
  if (name == "self" || name == "thread-self") {
    pid_t group = thread_group_of(proc_, caller.tid);
    if (group == 0) return reply(errno_error("self", ENOENT));
    FileId id = name == "self" ? kSelf + static_cast<FileId>(group)
                               : kThreadSelf + static_cast<FileId>(caller.tid);
    return reply(link_entry(id, target_of(id).size(), 0));
  }
  if (name == "nodes") return reply(fixed_entry(kNodes));
  if (name == "sysvipc" && ipc_text_) return reply(fixed_entry(kIpc));
  if (folder_of(name, nullptr)) return reply(folder_entry(std::string(name)));
  if (auto what = machine_text(name))
    return reply(fixed_entry(kMachineTexts + static_cast<FileId>(*what)));
  auto plain = proc_.attributes({geteuid(), getegid()}, std::string(name));
  if (!plain) return reply(plain.error());
  FileId id = link_number(name);
  reply(link_entry(id, target_of(id).size(), kFixedValid_s));
}

void ProcTree::lookup_in_nodes(FileId parent, std::string_view name, FsReply<FsEntry> reply) {
  auto refuse = [&] { reply(errno_error("lookup", ENOENT)); };
  if (parent == kIpc) {
    const auto* found = std::ranges::find(kIpcNames, name);
    if (found == kIpcNames.end()) return refuse();
    return reply(fixed_entry(kIpcTexts + static_cast<FileId>(found - kIpcNames.begin())));
  }
  if (parent == kNodes) {
    if (name == "nrnodes") return reply(fixed_entry(kNodeCount));
    if (name == "cluster") return reply(fixed_entry(node_folder_id(kCluster, kFolder)));
    if (name.substr(0, 4) != "node") return refuse();
    auto number = to_number<uint16_t>(name.substr(4));
    if (!number || *number >= node_.node_count || node_.messenger.is_failed(NodeId{*number}))
      return refuse();
    return reply(fixed_entry(node_folder_id(*number, kFolder)));
  }
  auto folder = node_folder_file(parent);
  if (!folder || folder->member != kFolder) return refuse();
  if (name == "nodeid" && folder->number != kCluster)
    return reply(fixed_entry(node_folder_id(folder->number, kNodeNumber)));
  for (unsigned i = 0; i < kNodeTextNames.size(); ++i)
    if (name == name_of(kNodeTextNames[i]))
      return reply(fixed_entry(node_folder_id(folder->number, kNodeTexts + i)));
  refuse();
}

void ProcTree::getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) {
  if (ProcPids::owns(file)) return pids_.getattr(caller, file, std::move(reply));
  if (const std::string* path = folder_path(file)) return reply(folder_entry(*path));
  if (file >= kLinks) return reply(link_entry(file, target_of(file).size(), kFixedValid_s));
  reply(fixed_entry(file));
}

// The folder that `path` is in, and the path below it.
ProcFolder* ProcTree::folder_of(std::string_view path, std::string* below) const {
  const size_t slash = path.find('/');
  for (ProcFolder* folder : folders_) {
    if (folder->name() != path.substr(0, slash)) continue;
    if (below) *below = slash == std::string_view::npos ? "" : path.substr(slash + 1);
    return folder;
  }
  return nullptr;
}

const std::string* ProcTree::folder_path(FileId file) const {
  if (file < kFolderPaths || file - kFolderPaths >= folder_paths_.size()) return nullptr;
  return &folder_paths_[file - kFolderPaths];
}

Result<FsEntry> ProcTree::folder_entry(const std::string& path) {
  std::string below;
  const ProcFolder* folder = folder_of(path, &below);
  const auto type = folder ? folder->type(below) : std::nullopt;
  if (!type) return errno_error("lookup", ENOENT);
  auto found = std::find(folder_paths_.begin(), folder_paths_.end(), path);
  const auto index = static_cast<FileId>(found - folder_paths_.begin());
  if (found == folder_paths_.end()) folder_paths_.push_back(path);
  FsEntry entry = fixed_entry(kFolderPaths + index, *type | (S_ISDIR(*type) ? 0555 : 0444));
  entry.valid_s = 0;
  return entry;
}

FileId ProcTree::link_number(std::string_view name) {
  auto found = std::find(links_.begin(), links_.end(), name);
  const auto index = static_cast<FileId>(found - links_.begin());
  if (found == links_.end()) links_.emplace_back(name);
  return kLinks + index;
}

// Of a link of ours; empty when there is none such.
std::string ProcTree::target_of(FileId link) const {
  if (link >= kThreadSelf) {
    auto tid = static_cast<pid_t>(link - kThreadSelf);
    return fmt::format("{}/task/{}", thread_group_of(proc_, tid), tid);
  }
  if (link >= kSelf) return std::to_string(link - kSelf);
  if (link < kLinks || link - kLinks >= links_.size()) return {};
  const std::string& name = links_[link - kLinks];
  // What is a link in procfs (mounts, net) stays the same link.
  auto target = proc_.link_target({geteuid(), getegid()}, name);
  return target ? std::move(*target) : proc_directory_ + '/' + name;
}

void ProcTree::readlink(const FsCaller& caller, FileId file, FsReply<std::string> reply) {
  if (ProcPids::owns(file)) return pids_.readlink(caller, file, std::move(reply));
  std::string target = target_of(file);
  if (target.empty()) return reply(errno_error("readlink", EINVAL));
  reply(std::move(target));
}

void ProcTree::readdir(const FsCaller& caller, FileId directory,
                       FsReply<std::vector<FsDirEntry>> reply) {
  if (ProcPids::owns(directory)) return pids_.readdir(caller, directory, std::move(reply));
  if (directory == kTreeRoot) return list_root(caller, std::move(reply));
  std::vector<FsDirEntry> entries;
  if (const std::string* path = folder_path(directory)) {
    std::string below;
    if (const ProcFolder* folder = folder_of(*path, &below)) entries = folder->list(below);
  } else if (directory == kNodes) {
    entries = {{"nrnodes", S_IFREG}, {"cluster", S_IFDIR}};
    for (unsigned i = 0; i < node_.node_count; ++i)
      if (!node_.messenger.is_failed(NodeId{static_cast<uint16_t>(i)}))
        entries.push_back({fmt::format("node{}", i), S_IFDIR});
  } else if (directory == kIpc) {
    for (std::string_view name : kIpcNames) entries.push_back({std::string(name), S_IFREG});
  } else if (auto folder = node_folder_file(directory)) {
    if (folder->number != kCluster) entries.push_back({"nodeid", S_IFREG});
    for (MachineText what : kNodeTextNames)
      entries.push_back({std::string(name_of(what)), S_IFREG});
  }
  reply(std::move(entries));
}

void ProcTree::list_root(const FsCaller& caller, FsReply<std::vector<FsDirEntry>> reply) {
  auto answer = shared(std::move(reply));
  pids_.list_pids(caller, alive_.guard([this, answer](std::vector<FsDirEntry> entries) {
    auto plain = proc_.list({geteuid(), getegid()}, "");
    if (!plain) return (*answer)(plain.error());
    for (FsDirEntry& entry : *plain) {
      if (is_pid(entry.name)) continue;
      entry.type = machine_text(entry.name)               ? S_IFREG
                   : entry.name == "sysvipc" && ipc_text_ ? S_IFDIR
                                                          : S_IFLNK;
      entries.push_back(std::move(entry));
    }
    entries.push_back({"nodes", S_IFDIR});
    for (const ProcFolder* folder : folders_) entries.push_back({folder->name(), S_IFDIR});
    (*answer)(std::move(entries));
  }));
}

OpenTexts::Source ProcTree::ipc_source(std::string_view name) {
  return alive_.guard([this, name](OpenTexts::Done done) {
    if (!ipc_text_(name, done))
      done(proc_.read({geteuid(), getegid()}, "sysvipc/" + std::string(name)));
  });
}

OpenTexts::Source ProcTree::source_of(const FsCaller& caller, FileId file) {
  if (file >= kIpcTexts && file < kIpcTexts + kIpcNames.size())
    return ipc_source(kIpcNames[file - kIpcTexts]);
  auto folder = node_folder_file(file);
  return alive_.guard([this, caller, file, folder](auto done) {
    if (const std::string* path = folder_path(file)) {
      std::string below;
      return folder_of(*path, &below)->text(below, done);
    }
    if (file == kNodeCount) return done(fmt::format("{}\n", living_nodes(node_.messenger).size()));
    if (!folder) {
      auto what = static_cast<MachineText>(file - kMachineTexts);
      return sees_local_(caller.tid) ? machine_.of_node(what, node_.self, done)
                                     : machine_.of_cluster(what, done);
    }
    if (folder->member == kNodeNumber) return done(fmt::format("{}\n", folder->number));
    MachineText what = kNodeTextNames[folder->member - kNodeTexts];
    if (folder->number == kCluster) return machine_.of_cluster(what, done);
    machine_.of_node(what, NodeId{static_cast<uint16_t>(folder->number)}, done);
  });
}

void ProcTree::open(const FsCaller& caller, FileId file, int flags, FsReply<FsOpened> reply) {
  if (ProcPids::owns(file)) return pids_.open(caller, file, flags, std::move(reply));
  if ((flags & O_ACCMODE) != O_RDONLY) return reply(errno_error("open", EACCES));
  texts_.open(source_of(caller, file), false, {}, std::move(reply));
}

void ProcTree::read(const FsCaller&, FileId, uint64_t handle, uint64_t offset, size_t size, int,
                    FsReply<std::string> reply) {
  texts_.read(handle, offset, size, std::move(reply));
}

void ProcTree::write(const FsCaller&, FileId, uint64_t handle, uint64_t, std::string_view data, int,
                     FsReply<size_t> reply) {
  texts_.write(handle, data, std::move(reply));
}

// Opening with O_TRUNC is what a shell's > does; procfs ignores it.
void ProcTree::truncate(const FsCaller& caller, FileId file, uint64_t, bool,
                        FsReply<FsEntry> reply) {
  getattr(caller, file, std::move(reply));
}

void ProcTree::release(FileId, uint64_t handle) {
  texts_.release(handle);
}

void ProcTree::forget(FileId file) {
  if (ProcPids::owns(file)) pids_.forget(file);
}

}  // namespace krg
