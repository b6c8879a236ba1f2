// SPDX-License-Identifier: GPL-2.0-or-later
#include "caller_memory.h"

#include <algorithm>
#include <span>

#include "krg/shmem/page_set.h"
#include "process_memory.h"

namespace krg {
namespace {

// What is brought for one call: 64 MiB. More fails with EFAULT.
constexpr size_t kMostBroughtPages = 16384;

Error fault(const char* what) {
  return errno_error(what, EFAULT);
}

size_t up_to_page_end(RemoteAddr at, size_t bytes) {
  return std::min<size_t>(bytes, kPageBytes - at.value % kPageBytes);
}

// Several that are under way at once. When the last one has ended, or been dropped, it is told
// whether all went well.
class Pending {
 public:
  Pending(size_t count, std::function<void(Status)> done) : left_(count), done_(std::move(done)) {}
  Pending(const Pending&) = delete;
  ~Pending() { done_(left_ == 0 ? Status() : Status(fault("memory of other nodes"))); }
  void ended(bool well) { left_ -= well; }

 private:
  size_t left_;
  const std::function<void(Status)> done_;
};

}  // namespace

const CallerMemory::Guard* CallerMemory::guard_of(RemoteAddr at, size_t bytes, bool write) const {
  if (bytes == 0 || guards_->loop != std::this_thread::get_id()) return nullptr;
  for (const Guard& guard : guards_->all)
    if (guard(tid_, at, bytes, write)) return &guard;
  return nullptr;
}

Result<std::string> CallerMemory::read(RemoteAddr from, size_t bytes) {
  std::string data(bytes, '\0');
  if (!guard_of(from, bytes, false)) {
    if (Status got = read_process_memory(tid_, from, data); !got) return got.error();
    return data;
  }
  data.clear();
  Status whole;
  for (size_t done = 0; done < bytes;) {
    const size_t length = up_to_page_end(from + done, bytes - done);
    if (Status got = read_page(from + done, length, data); !got) whole = got;
    done += length;
  }
  if (!whole) return whole.error();
  return data;
}

// What has come meanwhile is newer than what was brought.
Status CallerMemory::read_page(RemoteAddr from, size_t bytes, std::string& to) {
  const uint64_t within = from.value % kPageBytes, page = from.value - within;
  const Guard* guard = guard_of(from, bytes, false);
  if (!guard) {
    to.resize(to.size() + bytes);
    return read_process_memory(tid_, from, std::span(to).last(bytes));
  }
  const auto known = brought_.find(page);
  if (known != brought_.end() && known->second.size() == kPageBytes) {
    to.append(known->second, within, bytes);
    return {};
  }
  const auto* source = guard->target<MemorySource>();
  if (source && brought_.size() + missing_.size() < kMostBroughtPages)
    missing_.emplace(page, source);
  return fault("memory of other nodes");
}

Status CallerMemory::write(RemoteAddr to, std::string_view bytes) {
  if (!guard_of(to, bytes.size(), true)) return write_process_memory(tid_, to, bytes);
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, up_to_page_end(to, bytes.size()));
    const Guard* guard = guard_of(to, piece.size(), true);
    const auto* source = guard ? guard->target<MemorySource>() : nullptr;
    if (guard && !source) return fault("memory of other nodes");
    if (source)
      owed_.push_back({source, to, std::string(piece)});
    else if (Status put = write_process_memory(tid_, to, piece); !put)
      return put;
    to = to + piece.size();
    bytes.remove_prefix(piece.size());
  }
  return {};
}

void CallerMemory::bring(std::function<void(Status)> done) {
  const auto wanted = std::exchange(missing_, {});
  auto pending = std::make_shared<Pending>(wanted.size(), std::move(done));
  for (const auto& [page, source] : wanted)
    source->read(tid_, RemoteAddr{page}, kPageBytes,
                 [this, page = page, pending](Result<std::string> bytes) {
                   pending->ended(bytes.has_value());
                   if (bytes) brought_[page] = std::move(*bytes);
                 });
}

void CallerMemory::settle(std::function<void(Status)> done) {
  const auto owed = std::exchange(owed_, {});
  auto pending = std::make_shared<Pending>(owed.size(), std::move(done));
  for (const Owed& one : owed)
    one.to->write(tid_, one.at, one.bytes,
                  [pending](const Status& written) { pending->ended(written.has_value()); });
}

}  // namespace krg
