// Where a cluster keeps its sockets and logs: STATE/<cluster>/n<id>/{ctl.sock,krgd.log}. STATE is
// the user's alone (0700, owner checked). Whoever keeps a cluster alive (krgrun, krg_host, each
// krgd) holds a shared lock on STATE/<cluster>/lock; a folder whose lock nobody holds is left over
// from a crash and is removed by whoever comes next.
//
// Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// $KRG_STATE_DIR, else $XDG_RUNTIME_DIR/krg, else /tmp/krg-UID; made when it is not there.
// Errors: EPERM with a sentence when it is not a directory of this user's alone.
Result<std::string> state_root();
// The root of clusters of several machines, which must be the same on all: $KRG_STATE_DIR, else
// /tmp/krg-UID.
Result<std::string> shared_state_root();

// A cluster's folder, made and locked for as long as this object lives (also across exec, when
// `keep` is inherited).
class ClusterDir {
 public:
  // Makes STATE/<name>. Errors: EEXIST when a living cluster has that name.
  static Result<ClusterDir> create(const std::string& state_root, const std::string& name);
  // Joins the lock on a folder that exists, made when `make` is true (the first process of a
  // cluster on a machine).
  static Result<ClusterDir> open(const std::string& path, bool make);

  const std::string& path() const { return path_; }
  // Removes the folder with all that is in it.
  void remove();
  // Likewise, unless another process holds the lock.
  void remove_if_last();

 private:
  ClusterDir(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string path_;
  UniqueFd lock_;
};

// STATE/<cluster>/n<id>.
std::string node_dir(const std::string& cluster_dir, NodeId node);
std::string log_path(const std::string& cluster_dir, NodeId node);
std::string control_socket_path(const std::string& cluster_dir, NodeId node);
// The living clusters' names under STATE; left-over folders are removed on the way.
std::vector<std::string> living_clusters(const std::string& state_root);

}  // namespace krg
