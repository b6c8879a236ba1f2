// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpu_tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "cpu_texts.h"
#include "text_scan.h"

namespace krg {
namespace {

constexpr FileId kPlainPaths = 16;  // + number of the path
constexpr FileId kCpus = FileId{1} << 32;
constexpr FileId kOwnNumbers = FileId{1} << 50;
constexpr FileId kPathLimit = 1 << 12;
// Whose names come and go with nodes is asked for each time; the rest may be kept.
constexpr double kFixedValid_s = 60;

FileUser own_user() {
  return {geteuid(), getegid()};
}

FsEntry made_entry(FileId id, mode_t mode, double valid_s) {
  FsEntry entry;
  entry.id = id;
  entry.attributes.st_mode = mode;
  entry.attributes.st_nlink = S_ISDIR(mode) ? 2 : 1;
  entry.attributes.st_size = S_ISREG(mode) ? 4096 : 0;  // as sysfs says of every file
  entry.valid_s = valid_s;
  return entry;
}

// "cpu12", but not "cpufreq".
std::optional<unsigned> cpu_number(std::string_view name) {
  if (name.substr(0, 3) != "cpu") return std::nullopt;
  return to_number<unsigned>(name.substr(3));
}

size_t number_of(std::vector<std::string>& paths, const std::string& path) {
  auto found = std::find(paths.begin(), paths.end(), path);
  if (found == paths.end()) found = paths.insert(paths.end(), path);
  return static_cast<size_t>(found - paths.begin());
}

std::string joined(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : directory + '/' + std::string(name);
}

// What stands directly below `directory` in the paths of the files, and whether it is a folder.
std::vector<FsDirEntry> entries_below(const CpuFiles& files, const std::string& directory) {
  std::string prefix = directory.empty() ? "" : directory + '/';
  std::vector<FsDirEntry> entries;
  std::set<std::string> seen;
  for (const auto& [path, text] : files) {
    if (path.compare(0, prefix.size(), prefix) != 0) continue;
    std::string rest = path.substr(prefix.size());
    size_t slash = rest.find('/');
    std::string name = rest.substr(0, slash);
    if (seen.insert(name).second)
      entries.push_back({name, slash == std::string::npos ? mode_t{S_IFREG} : mode_t{S_IFDIR}});
  }
  return entries;
}

}  // namespace

CpuTree::CpuTree(NodeContext& node, ClusterFacts& facts, PlainFiles plain, SeesLocal sees_local)
    : node_(node), facts_(facts), plain_(std::move(plain)), sees_local_(std::move(sees_local)) {}

std::optional<CpuTree::CpuFile> CpuTree::cpu_file(FileId file) const {
  if (file < kCpus) return std::nullopt;
  Cpu cpu{.own_numbers = file >= kOwnNumbers, .number = 0};
  file -= cpu.own_numbers ? kOwnNumbers : kCpus;
  cpu.number = static_cast<unsigned>(file / kPathLimit);
  size_t path = file % kPathLimit;
  if (path >= cpu_paths_.size()) return std::nullopt;
  return CpuFile{cpu, cpu_paths_[path]};
}

FileId CpuTree::cpu_file_id(const Cpu& cpu, const std::string& path) {
  size_t number = number_of(cpu_paths_, path);
  check(number < kPathLimit, "a processor has few files");
  return (cpu.own_numbers ? kOwnNumbers : kCpus) + cpu.number * kPathLimit + number;
}

void CpuTree::lookup(const FsCaller& caller, FileId parent, std::string_view name,
                     FsReply<FsEntry> reply) {
  if (auto cpu = cpu_file(parent)) return lookup_below_cpu(*cpu, name, std::move(reply));
  if (auto number = cpu_number(name); number && parent == kTreeRoot)
    return lookup_cpu(caller, *number, std::move(reply));
  std::string directory = parent == kTreeRoot ? "" : plain_paths_.at(parent - kPlainPaths);
  std::string path = joined(directory, name);
  reply(plain_entry(kPlainPaths + number_of(plain_paths_, path)));
}

Result<FsEntry> CpuTree::plain_entry(FileId file) const {
  const std::string& path = plain_paths_.at(file - kPlainPaths);
  auto attributes = plain_.attributes(own_user(), path);
  if (!attributes) return attributes.error();
  FsEntry entry = made_entry(file, attributes->st_mode & ~mode_t{0222}, kFixedValid_s);
  if (!S_ISLNK(attributes->st_mode)) return entry;
  auto target = plain_.link_target(own_user(), path);
  if (!target) return target.error();
  entry.attributes.st_size = static_cast<off_t>(target->size());
  return entry;
}

void CpuTree::lookup_cpu(const FsCaller& caller, unsigned number, FsReply<FsEntry> reply) {
  Cpu cpu{.own_numbers = sees_local_(caller.tid), .number = number};
  auto answer = shared(std::move(reply));
  facts_.when_known(alive_.guard([this, cpu, answer] {
    const CpuNumbers& own = facts_.own().cpus;
    bool exists = cpu.own_numbers ? std::binary_search(own.begin(), own.end(), cpu.number)
                                  : cpu.number < facts_.cpu_count();
    if (!exists) return (*answer)(errno_error("no such processor", ENOENT));
    (*answer)(made_entry(cpu_file_id(cpu, ""), S_IFDIR | 0555, 0));
  }));
}

// Asks for the files of a processor where they are.
void CpuTree::files_of(const Cpu& cpu, FilesDone done) {
  facts_.when_known(alive_.guard([this, cpu, done = std::move(done)] {
    if (cpu.own_numbers) return facts_.cpu_files(node_.self, cpu.number, done);
    NodeId node = facts_.node_of_cpu(cpu.number);
    if (node == kNoNode) return done(errno_error("no such processor", ENOENT));
    facts_.cpu_files(node, *facts_.places(node).local_number(cpu.number), done);
  }));
}

void CpuTree::lookup_below_cpu(const CpuFile& parent, std::string_view name,
                               FsReply<FsEntry> reply) {
  auto answer = shared(std::move(reply));
  files_of(parent.cpu, alive_.guard([this, parent, name = std::string(name),
                                     answer](Result<std::shared_ptr<const CpuFiles>> files) {
    if (!files) return (*answer)(files.error());
    auto entries = entries_below(**files, parent.path);
    auto entry = std::find_if(entries.begin(), entries.end(),
                              [&](const FsDirEntry& e) { return e.name == name; });
    if (entry == entries.end()) return (*answer)(errno_error("lookup", ENOENT));
    mode_t mode = entry->type == S_IFDIR ? S_IFDIR | 0555 : S_IFREG | 0444;
    (*answer)(made_entry(cpu_file_id(parent.cpu, joined(parent.path, name)), mode, kFixedValid_s));
  }));
}

void CpuTree::getattr(const FsCaller&, FileId file, FsReply<FsEntry> reply) {
  if (file == kTreeRoot) return reply(made_entry(file, S_IFDIR | 0555, kFixedValid_s));
  auto cpu = cpu_file(file);
  if (!cpu) return reply(plain_entry(file));
  auto answer = shared(std::move(reply));
  files_of(cpu->cpu,
           [file, path = cpu->path, answer](Result<std::shared_ptr<const CpuFiles>> files) {
             if (!files) return (*answer)(files.error());
             bool is_file = std::any_of((*files)->begin(), (*files)->end(),
                                        [&](const auto& entry) { return entry.first == path; });
             (*answer)(made_entry(file, is_file ? S_IFREG | 0444 : S_IFDIR | 0555, kFixedValid_s));
           });
}

void CpuTree::readlink(const FsCaller&, FileId file, FsReply<std::string> reply) {
  if (file < kPlainPaths || file >= kPlainPaths + plain_paths_.size())
    return reply(errno_error("readlink", EINVAL));
  reply(plain_.link_target(own_user(), plain_paths_[file - kPlainPaths]));
}

void CpuTree::readdir(const FsCaller& caller, FileId directory,
                      FsReply<std::vector<FsDirEntry>> reply) {
  auto answer = shared(std::move(reply));
  if (auto cpu = cpu_file(directory)) {
    return files_of(cpu->cpu,
                    [path = cpu->path, answer](Result<std::shared_ptr<const CpuFiles>> files) {
                      if (!files) return (*answer)(files.error());
                      (*answer)(entries_below(**files, path));
                    });
  }
  std::string path = directory == kTreeRoot ? "" : plain_paths_.at(directory - kPlainPaths);
  auto entries = plain_.list(own_user(), path);
  if (!entries || directory != kTreeRoot) return (*answer)(std::move(entries));
  std::erase_if(*entries,
                [](const FsDirEntry& entry) { return cpu_number(entry.name).has_value(); });
  bool own_numbers = sees_local_(caller.tid);
  facts_.when_known(alive_.guard([this, own_numbers, entries = *entries, answer]() mutable {
    CpuNumbers own = facts_.own().cpus;
    for (unsigned cpu = 0; !own_numbers && cpu < facts_.cpu_count(); ++cpu)
      entries.push_back({fmt::format("cpu{}", cpu), S_IFDIR});
    for (unsigned cpu : own)
      if (own_numbers) entries.push_back({fmt::format("cpu{}", cpu), S_IFDIR});
    (*answer)(std::move(entries));
  }));
}

// The files that tell which processors there are; nothing for any other name.
std::optional<std::string> CpuTree::range_text(const std::string& name, bool sees_local) const {
  CpuNumbers cpus = facts_.own().cpus;
  unsigned count = facts_.cpu_count();
  if (!sees_local) {
    cpus.resize(count);
    for (unsigned cpu = 0; cpu < count; ++cpu) cpus[cpu] = cpu;
  }
  if (name == "online" || name == "present" || name == "possible")
    return format_cpu_list(cpus) + '\n';
  if (name == "offline" && !sees_local) return "\n";
  if (name != "kernel_max") return std::nullopt;
  auto own = plain_.read(own_user(), name);
  unsigned own_max = own ? to_number<unsigned>(trimmed(*own)).value_or(0) : 0;
  return fmt::format("{}\n", std::max(own_max, count - 1));
}

OpenTexts::Source CpuTree::source_of(const FsCaller& caller, FileId file) {
  if (auto cpu = cpu_file(file)) {
    return alive_.guard([this, cpu = *cpu](std::function<void(Result<std::string>)> done) {
      files_of(cpu.cpu,
               alive_.guard([this, cpu, done](Result<std::shared_ptr<const CpuFiles>> files) {
                 if (!files) return done(files.error());
                 done(text_of(cpu, **files));
               }));
    });
  }
  return alive_.guard([this, tid = caller.tid, path = plain_paths_.at(file - kPlainPaths)](
                          std::function<void(Result<std::string>)> done) {
    facts_.when_known(alive_.guard([this, tid, path, done] {
      auto range = range_text(path, sees_local_(tid));
      done(range ? Result<std::string>(*range) : plain_.read(own_user(), path));
    }));
  });
}

std::string CpuTree::text_of(const CpuFile& file, const CpuFiles& files) const {
  auto found = std::find_if(files.begin(), files.end(),
                            [&](const auto& entry) { return entry.first == file.path; });
  if (found == files.end()) return {};
  if (file.cpu.own_numbers) return found->second;
  NodeId node = facts_.node_of_cpu(file.cpu.number);
  return cluster_cpu_text(file.path, found->second, node, facts_.places(node), facts_.cpu_count());
}

void CpuTree::open(const FsCaller& caller, FileId file, int flags, FsReply<FsOpened> reply) {
  if ((flags & O_ACCMODE) != O_RDONLY) return reply(errno_error("open", EACCES));
  texts_.open(source_of(caller, file), true, {}, std::move(reply));
}

void CpuTree::read(const FsCaller&, FileId, uint64_t handle, uint64_t offset, size_t size, int,
                   FsReply<std::string> reply) {
  texts_.read(handle, offset, size, std::move(reply));
}

void CpuTree::release(FileId, uint64_t handle) {
  texts_.release(handle);
}

}  // namespace krg
