// MappedFile: an ordinary file whose contents are a page set while programs of several nodes have
// it mapped: pages begin as what the file has, and are written back to it.
//
// Each node writes the pages that it was the first in the cluster to touch: together those are all
// that may have changed. Owner: the page set, as its linker, and its SharedFile.
// Threads: the loop's thread; the file itself is read and written by workers.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/unique_fd.h"
#include "krg/runtime/worker_pool.h"
#include "krg/shmem/io_linker.h"

namespace krg {

class MappedFile : public IoLinker, public std::enable_shared_from_this<MappedFile> {
 public:
  // Names the same file on all nodes: by its path in the session, and its inode number.
  struct Name {
    std::string path;
    uint64_t inode = 0;
    auto operator<=>(const Name&) const = default;
  };
  // Opens it below the session's root directory. Blocks. Errors: of open(2); ESTALE when another
  // file is there.
  static Result<std::shared_ptr<MappedFile>> open(int session_mount_ns, WorkerPool& workers,
                                                  const Name& name);

  const Name& name() const { return name_; }
  // Pages that this node has brought from the file, and what tells their contents in it from
  // others.
  using Digest = uint64_t;
  std::map<uint64_t, Digest>& pages() { return pages_; }
  // Writes those of the pages from `first` on that are not what `digests` say, as far as they lie
  // inside of the file; returns what they are now. Blocks; any thread.
  Result<std::vector<Digest>> write(uint64_t first, std::string_view bytes,
                                    std::vector<Digest> digests) const;

  void first_touch(ObjectId object, std::span<std::byte> bytes,
                   std::function<void(Status)> done) override;

 private:
  MappedFile(WorkerPool& workers, Name name, UniqueFd file)
      : workers_(workers), name_(std::move(name)), file_(std::move(file)) {}

  WorkerPool& workers_;
  const Name name_;
  const UniqueFd file_;
  std::map<uint64_t, Digest> pages_;
};

}  // namespace krg
