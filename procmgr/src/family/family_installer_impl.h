// The parts of FamilyInstaller. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "family/family_bodies.h"
#include "family/family_tree.h"
#include "family/made_files.h"
#include "family/made_memory.h"
#include "image/image_installer.h"
#include "ipc/native_ipc.h"
#include "krg/procmgr/family_installer.h"
#include "krg/procmgr/ipc.h"

namespace krg {

struct FamilyInstaller::Impl : std::enable_shared_from_this<Impl> {
  const Parts parts;
  NodeContext& node = parts.node;
  const ProcessFamily family;
  std::vector<ProcessImage> images;  // by member
  std::vector<MappedFile> mapped;
  std::vector<int> programs;   // by member: its index in `mapped`; -1: the root's
  std::vector<NodeId> places;  // by member
  int first_slot = 3;
  bool has_late_pages = false;
  std::function<void(Status)> laid_out;
  bool is_given_up = false;
  std::unique_ptr<FamilyTree> tree;
  std::map<uint32_t, std::unique_ptr<InstalledProcess>> installed;
  std::shared_ptr<FamilyBodies> bodies = std::make_shared<FamilyBodies>(parts);
  size_t starting = 0;  // bodies
  std::optional<Error> failure;
  // Files that were open for writing: they are cut to their lengths at the checkpoint.
  struct Cut {
    UniqueFd fd;
    uint64_t bytes = 0;
  };
  std::map<uint32_t, Cut> cuts;  // by file
  MadeIpc ipc;
  Ipc::Restored shared_ipc;  // in a cluster of several nodes
  MadeMemory memory{node, parts.shared, family};
  std::set<pid_t> sharing_again;         // share_again()
  std::optional<size_t> first_shared;    // of what memory.install() needs: index in `mapped`
  std::map<uint32_t, UniqueFd> written;  // those that get their contents back

  Impl(const Parts& p, ProcessFamily f) : parts(p), family(std::move(f)) {}

  Status parse();
  uint32_t index_of(const ImageFile& file);
  void on_held(Result<FrozenThread> held);
  Status lay_out(FrozenThread root);
  Status fill_all_sockets() const;
  void put_terminal_back() const;
  void choose_places(const std::function<NodeId(const FamilyMember&)>& place);
  bool may_go(uint32_t member) const;
  bool stays(const FamilyFile& file) const;
  bool may_be_late(uint32_t member) const;
  Status install(uint32_t member);
  void start_bodies();
  void start_body(uint32_t member);
  void one_body_less();
  void take_files_to_cut(uint32_t member);
  Result<std::vector<MadeFile>> make_files();
  Result<UniqueFd> make_deleted_file(uint32_t index, const std::vector<MadeFile>& made);
  Status make_memories(std::vector<MadeFile>& made) const;
  Result<UniqueFd> make_file(const FamilyFile& file, const std::vector<PipeEnds>& pipes) const;
  void make_shared_memory(std::function<void(Result<std::vector<MadeFile>>)> done);
  Result<std::vector<MadeFile>> name_memories();
  Result<std::vector<MadeFile>> open_shared_files() const;
  std::optional<uint32_t> member_of(pid_t pid) const;
  Status place_descriptors(FrozenProcess& process, const FamilyMember& member) const;
  Status set_locks(FrozenProcess& process, const FamilyMember& member) const;
  Status cut_files();
  void spread_next(std::function<void(Status)> done);
  Status thaw();
  void know_watched_paths() const;
  Status end(Status how);
};

}  // namespace krg
