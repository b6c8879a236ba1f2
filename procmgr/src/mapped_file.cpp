// SPDX-License-Identifier: GPL-2.0-or-later
#include "mapped_file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <utility>

#include "in_worker.h"
#include "krg/procmgr/mount_krgfs.h"
#include "krg/runtime/write_at.h"

namespace krg {
namespace {

// A whole range; short at the file's end.
Result<std::string> read_at(int fd, uint64_t offset, size_t bytes) {
  std::string text(bytes, '\0');
  size_t have = 0;
  while (have < bytes) {
    const ssize_t got =
        pread(fd, text.data() + have, bytes - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno_error("read of a mapped file");
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  text.resize(have);
  return text;
}

MappedFile::Digest digest_of(std::string_view page) {
  return std::hash<std::string_view>{}(page);
}

}  // namespace

Result<std::shared_ptr<MappedFile>> MappedFile::open(int session_mount_ns, WorkerPool& workers,
                                                     const Name& name) {
  UniqueFd file;
  auto opened = run_in_mount_namespace(session_mount_ns, [&]() -> Status {
    file = UniqueFd(::open(name.path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY));
    return file ? Status() : Status(errno_error("open of " + name.path));
  });
  if (!opened) return opened.error();
  struct stat found {};
  if (fstat(file.get(), &found) != 0 || found.st_ino != name.inode || !S_ISREG(found.st_mode))
    return errno_error(name.path + " is another file here", ESTALE);
  return std::shared_ptr<MappedFile>(new MappedFile(workers, name, std::move(file)));
}

void MappedFile::first_touch(ObjectId object, std::span<std::byte> bytes,
                             std::function<void(Status)> done) {
  struct Page {
    std::string text;
    Digest digest = 0;
  };
  in_worker(
      workers_,
      [self = shared_from_this(), offset = object.value * bytes.size(),
       size = bytes.size()]() -> Result<Page> {
        auto text = read_at(self->file_.get(), offset, size);
        if (!text) return text.error();
        text->resize(size);
        const Digest digest = digest_of(*text);
        return Page{std::move(*text), digest};
      },
      [self = shared_from_this(), object, bytes, done = std::move(done)](const Result<Page>& page) {
        if (!page) return done(page.error());
        std::memcpy(bytes.data(), page->text.data(), bytes.size());
        self->pages_[object.value] = page->digest;
        done({});
      });
}

Result<std::vector<MappedFile::Digest>> MappedFile::write(uint64_t first, std::string_view bytes,
                                                          std::vector<Digest> digests) const {
  const size_t page_bytes = bytes.size() / digests.size();
  struct stat now {};
  if (fstat(file_.get(), &now) != 0) return errno_error("fstat of " + name_.path);
  for (size_t i = 0; i < digests.size(); ++i) {
    const std::string_view page = bytes.substr(i * page_bytes, page_bytes);
    const Digest digest = digest_of(page);
    if (digest == std::exchange(digests[i], digest)) continue;
    const uint64_t offset = (first + i) * page_bytes;
    const auto size = static_cast<uint64_t>(now.st_size);
    if (offset >= size) continue;
    const auto inside = std::as_bytes(std::span(page.substr(0, size - offset)));
    if (auto written = write_at(file_.get(), offset, inside, "write of a mapped file"); !written)
      return written.error();
  }
  return digests;
}

}  // namespace krg
