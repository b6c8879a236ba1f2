// Memory that nodes share, in a process that is made of an image: it maps the page set's memory of
// this node, which serves its faults from then on. SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>

#include "image/install_parts.h"
#include "image/known_mappings.h"
#include "krg/procmgr/shared_memory.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "krg/shmem/page_set.h"

namespace krg {
namespace {

constexpr unsigned long kNewUserfaultfd = 0xaa00;  // USERFAULTFD_IOC_NEW, not in every header

SharedUse use_of(const ImageMapping& mapping) {
  return {mapping.shared_file, (mapping.advice & ImageMapping::kMayWrite) != 0};
}

Status map_shared(FrozenProcess& process, const ImageMapping& m, SharedMemory& shared, int memory,
                  int device) {
  const uint64_t flags = MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_NORESERVE | kUnnotifiedMapFlags;
  const int64_t at = process.call(SYS_mmap, {m.start.value, m.bytes, m.protection, flags,
                                             static_cast<uint64_t>(memory), m.offset});
  if (at != static_cast<int64_t>(m.start.value))
    return done_by_call("mapping shared memory", at < 0 ? at : -EEXIST);
  auto userfaultfd = open_userfaultfd(process, device);
  if (!userfaultfd) return userfaultfd.error();
  if (auto served = shared.serve(m.shared_file, std::move(*userfaultfd), process.pid(), m.start,
                                 m.offset, m.bytes);
      !served)
    return served;
  if (!(m.advice & ImageMapping::kDontFork)) return {};
  return done_by_call("madvise",
                      process.call(SYS_madvise, {m.start.value, m.bytes, MADV_DONTFORK}));
}

}  // namespace

Result<UniqueFd> open_userfaultfd(FrozenProcess& process, int device) {
  const auto flags = static_cast<uint64_t>(PageSet::userfaultfd_flags(false));
  const int64_t number =
      device >= 0 ? process.call(SYS_ioctl, {static_cast<uint64_t>(device), kNewUserfaultfd, flags})
                  : process.call(SYS_userfaultfd, {flags});
  if (auto opened = done_by_call("userfaultfd", number); !opened) return opened.error();
  auto taken = take_descriptor(process.pid(), static_cast<int>(number));
  process.call(SYS_close, {static_cast<uint64_t>(number)});
  return taken;
}

// As the process may: it is another user's where krgd cannot open it either.
int open_userfaultfd_device(FrozenProcess& process) {
  static constexpr char kPath[] = "/dev/userfaultfd";
  auto scratch = process.scratch();
  if (!scratch || !process.write(*scratch, std::span(kPath))) return -1;
  const int64_t opened = process.call(
      SYS_openat, {static_cast<uint64_t>(AT_FDCWD), scratch->value, O_RDWR | O_CLOEXEC});
  process.drop_scratch();
  return static_cast<int>(opened);
}

Status follow_fork(FrozenProcess& child, SharedMemory& shared) {
  auto maps = MappingTexts::read_maps(child.pid());
  if (!maps) return maps.error();
  const int device = open_userfaultfd_device(child);
  Status outcome;
  for (const MappingText& m : maps->all()) {
    const uint64_t file = m.is_shared() ? shared.file_of_memory(m.inode) : 0;
    if (file == 0) continue;
    const RemoteAddr at{m.start};
    auto userfaultfd = open_userfaultfd(child, device);
    Status served = userfaultfd ? shared.serve(file, std::move(*userfaultfd), child.pid(), at,
                                               m.offset, m.end - m.start)
                                : Status(userfaultfd.error());
    if (served) continue;
    outcome = served;
    child.call(SYS_munmap, {at.value, m.end - m.start});
  }
  if (device >= 0) child.call(SYS_close, {static_cast<uint64_t>(device)});
  return outcome;
}

std::vector<SharedUse> shared_memories(const ProcessImage& image) {
  std::vector<SharedUse> uses;
  for (const ImageMapping& m : image.mappings)
    if (m.kind == ImageMapping::Kind::kShared &&
        std::find(uses.begin(), uses.end(), use_of(m)) == uses.end())
      uses.push_back(use_of(m));
  return uses;
}

Result<UniqueFd> take_descriptor(pid_t pid, int number) {
  UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!process) return errno_error("pidfd_open");
  UniqueFd taken(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), number, 0)));
  if (!taken) return errno_error("pidfd_getfd");
  fcntl(taken.get(), F_SETFD, FD_CLOEXEC);
  return taken;
}

Status install_shared_memory(FrozenProcess& process, const ProcessImage& image,
                             SharedMemory& shared, const std::vector<SharedUse>& uses, int first,
                             int device) {
  for (const ImageMapping& m : image.mappings) {
    if (m.kind != ImageMapping::Kind::kShared) continue;
    const auto use = std::find(uses.begin(), uses.end(), use_of(m));
    const int memory = first + static_cast<int>(use - uses.begin());
    if (auto mapped = map_shared(process, m, shared, memory, device); !mapped) return mapped;
  }
  return {};
}

}  // namespace krg
