// PageSet: a set of 4 KiB pages that programs of this node have mapped. The node's frames are a
// memfd; programs map it shared, and their faults on it (userfaultfd, modes MISSING, MINOR, WP) are
// answered by the protocol: a read fault is a get, a write fault a grab. An unpinned page that is
// mapped stays so until the protocol takes it away (ObjectMemory::protect, release).
//
// Page states and what they are in the memfd and the page tables (docs: shmem/README.md):
//   invalid   a hole; any access faults
//   shared    a page, mapped write-protected where it was touched
//   modified  a page, mapped writable where it was touched
//
// Threads: the loop's thread. Owned by who opened it (procmgr's SharedMemory); the programs'
// mappings may outlive it only after shut_down().
// Source: userfaultfd(2), ioctl_userfaultfd(2), Linux 6.1 or newer.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/types.h"
#include "krg/runtime/unique_fd.h"
#include "krg/shmem/ids.h"
#include "krg/shmem/kddm.h"

namespace krg {

inline constexpr size_t kPageBytes = 4096;

struct PageSetOptions {
  std::shared_ptr<IoLinker> linker;  // none: pages start as zeros
  // A page that was just granted is not given away again before this has passed (ping-pong).
  std::chrono::microseconds hold_time{200};
  // Pages fetched ahead of sequential or strided faults, at the most.
  unsigned max_read_ahead = 256;
};

struct PageSetStatistics {
  uint64_t read_faults = 0;
  uint64_t write_faults = 0;
  uint64_t upgrades = 0;           // write faults on a page that was mapped for reading
  uint64_t fetched_ahead = 0;      // pages asked for before their fault
  uint64_t fetched_ahead_hit = 0;  // of those, touched before they were taken away
  uint64_t pages_here = 0;
};

// What a program's memory must be registered with: opened in that program.
struct UserfaultfdRequest {
  int flags;  // of userfaultfd(2); O_NONBLOCK | O_CLOEXEC, and UFFD_USER_MODE_ONLY where needed
  uint64_t features;  // for UFFDIO_API
  uint64_t modes;     // for UFFDIO_REGISTER
};

class PageSet {
 public:
  // Opens the set `set` in `kddm` with memory of its own; `pages` may be changed later.
  // Errors: what memfd_create(2) and Kddm::open_set say.
  static Result<std::unique_ptr<PageSet>> create(EventLoop& loop, Kddm& kddm, SetId set,
                                                 size_t pages, PageSetOptions options = {});
  ~PageSet();
  PageSet(const PageSet&) = delete;
  PageSet& operator=(const PageSet&) = delete;

  SetId id() const;
  size_t pages() const;
  // Grows, or shrinks: pages beyond the end are dropped here, without the protocol (the caller sees
  // to it that every node does the same), and accesses to them give SIGBUS.
  Status resize(size_t pages);
  // The memfd that programs map MAP_SHARED; page i of the set is at i * kPageBytes.
  int memory() const;

  // How programs have to open and register their userfaultfd. `user_mode_only`: without the
  // privilege to serve faults that the kernel makes for a program.
  static UserfaultfdRequest userfaultfd_request(bool user_mode_only);
  // Serves the faults of [address, address + count pages) in `pid`'s address space, which maps
  // pages from `first` on and is registered with `userfaultfd` as userfaultfd_request() says. The
  // mapping is forgotten when it is unmapped, or its address space goes. A fork's copy is served as
  // well. Errors: EINVAL (out of the set's range).
  Status attach(UniqueFd userfaultfd, pid_t pid, RemoteAddr address, PageIndex first, size_t count);
  // Mappings that are served now. on_idle runs each time it falls to zero.
  size_t mapping_count() const;
  void on_idle(std::function<void()> idle);

  // read(2) and write(2) of the set as a file, by krgd: any range inside of it, coherent; not
  // atomic over pages. Errors in the completion: EOWNERDEAD (a page was lost with its node).
  void read(uint64_t offset, size_t bytes, std::function<void(Result<std::string>)> done);
  void write(uint64_t offset, std::string_view bytes, std::function<void(Status)> done);

  // Programs that touch a page that was lost with a node get SIGBUS.
  PageSetStatistics statistics() const;

  // Where `address` of `pid` lies in the set, if one of its mappings covers it: for futexes.
  struct Location {
    PageIndex page;
    size_t offset;  // bytes into the page
  };
  std::optional<Location> locate(pid_t pid, RemoteAddr address) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
