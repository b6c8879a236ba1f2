// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_start.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <algorithm>

#include "image/call_batch.h"
#include "image/content_ranges.h"
#include "image/image_capture.h"
#include "image/install_parts.h"
#include "image/moved_process.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "krg/runtime/log.h"
#include "process_fds.h"
#include "spread/spread_writers.h"

namespace krg {
namespace {

constexpr unsigned long kNewUserfaultfd = 0xaa00;  // USERFAULTFD_IOC_NEW, not in every header
constexpr uint64_t kUnregister = 1;                // RSEQ_FLAG_UNREGISTER
constexpr uint64_t kStackBytes = 8u << 20;
constexpr uint64_t kMostAtOnce = 1u << 20;
constexpr uint64_t kMapFlags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE | kUnnotifiedMapFlags;
// Out of the way of the program's own.
constexpr uint64_t kLeastNumber = 800;

}  // namespace

void SpreadStart::begin() {
  FrozenProcess::freeze(request_.node.loop, *request_.node.children, request_.pid,
                        [self = shared_from_this()](Result<std::shared_ptr<FrozenProcess>> frozen) {
                          frozen ? self->begin(std::move(*frozen)) : self->fail(frozen.error());
                        });
}

void SpreadStart::begin(std::shared_ptr<FrozenProcess> frozen) {
  process_ = std::move(frozen);
  auto captured = capture();
  captured ? copy_next() : fail(captured.error());
}

void SpreadStart::fail(Error why) {
  if (process_ && request_.is_spread_again) process_->kill();
  if (process_ && process_->is_alive())
    for (int number : {request_.memory_there, request_.device_there, memory_fd_})
      if (number >= 0) process_->call(SYS_close, {static_cast<uint64_t>(number)});
  process_.reset();
  if (auto done = std::exchange(done_, nullptr)) done(std::move(why));
}

// --- what it is ---------------------------------------------------------------------------------

Status SpreadStart::capture() {
  MappingTexts unknown;
  unknown.takes_shared = true;
  auto image = capture_image(*process_, request_.node.session_mount_ns, unknown);
  if (!image) return image.error();
  leave_shared_at_home(*image);
  auto contents = content_ranges(request_.pid);
  if (!contents) return contents.error();
  image_.image = std::move(*image);
  threads_ = image_.image.threads;
  if (request_.multiple_writers)
    if (auto found = find_one_writers(); !found) return found;
  for (const ImageMapping& mapping : image_.image.mappings)
    if (is_to_be_spread(mapping)) plan(mapping);
  std::erase_if(image_.image.mappings, is_to_be_spread);
  image_.ranges = memory_.all();
  // Signals, timers and other threads are at home.
  image_.image.threads.resize(1);
  image_.image.threads.front().pending.clear();
  image_.image.threads.front().processors.clear();
  image_.image.threads.front().sleep_left_ns = -1;
  image_.image.pending.clear();
  image_.image.timers.clear();
  interval_timers_ = std::exchange(image_.image.interval_timers, {});
  image_.image.stop_signal = 0;
  if (auto read = read_constants(*contents); !read) return read;
  plan_copies(*contents);
  scratch_ = memory_.take_pages(SpreadScratch::kBytes);
  const size_t pages = memory_.set_pages();
  return pages <= request_.pages->pages() ? Status() : request_.pages->resize(pages);
}

// The program's file is the image's first.
Status SpreadStart::find_one_writers() {
  one_writer_ = one_writer_ranges(image_.image);
  for (const ImageMapping& mapping : image_.image.mappings) {
    if (mapping.kind != ImageMapping::Kind::kFile || mapping.file != 0 ||
        !(mapping.protection & PROT_EXEC))
      continue;
    std::string code(mapping.bytes, '\0');
    if (auto read = process_->read(mapping.start, {code.data(), code.size()}); !read) return read;
    for (RemoteAddr word : atomic_words(code, mapping.start)) {
      SpreadRange page;
      page.start = RemoteAddr{word.value / kPageBytes * kPageBytes};
      page.bytes = kPageBytes;
      one_writer_.push_back(page);
    }
  }
  return {};
}

void SpreadStart::plan(const ImageMapping& mapping) {
  SpreadRange range;
  range.start = mapping.start;
  range.bytes = mapping.bytes;
  range.protection = mapping.protection;
  if (mapping.advice & ImageMapping::kGrowsDown) range = below_stack(mapping);
  range.first = memory_.take_pages(range.bytes);
  memory_.map(range);
  spread_.push_back(mapping);
}

// A stack that grows by itself has its whole size at once, where nothing is in its way.
SpreadRange SpreadStart::below_stack(const ImageMapping& stack) const {
  SpreadRange range;
  range.bytes = std::max(stack.bytes, kStackBytes);
  range.start = RemoteAddr{stack.end().value - range.bytes};
  range.protection = stack.protection;
  for (const ImageMapping& other : image_.image.mappings)
    if (other.start < stack.start && range.start < other.end()) {
      range.start = stack.start;
      range.bytes = stack.bytes;
    }
  return range;
}

// Pages that nobody may write, but that differ from their file.
Status SpreadStart::read_constants(const std::vector<PageRange>& contents) {
  for (const PageRange& range : contents)
    if (memory_.in(range.start, range.bytes).empty()) image_.pages.push_back(range);
  // Memory that stays at home has no place in the replicas.
  std::erase_if(image_.image.mappings, [](const ImageMapping& mapping) {
    return mapping.kind == ImageMapping::Kind::kAnonymous ||
           mapping.kind == ImageMapping::Kind::kShared;
  });
  std::erase_if(image_.pages, [this](const PageRange& range) {
    return std::none_of(image_.image.mappings.begin(), image_.image.mappings.end(),
                        [&](const ImageMapping& mapping) {
                          return mapping.start <= range.start && range.end() <= mapping.end();
                        });
  });
  image_.contents.resize(total_bytes(image_.pages));
  std::span<char> rest(image_.contents);
  for (const PageRange& range : image_.pages) {
    if (auto read = process_->read(range.start, rest.first(range.bytes)); !read) return read;
    rest = rest.subspan(range.bytes);
  }
  return {};
}

// Of anonymous memory what was touched, of files everything.
void SpreadStart::plan_copies(const std::vector<PageRange>& contents) {
  std::vector<SpreadRange> all;
  for (const ImageMapping& mapping : spread_)
    if (mapping.kind == ImageMapping::Kind::kFile)
      for (const SpreadRange& range : memory_.in(mapping.start, mapping.bytes))
        all.push_back(range);
  for (const PageRange& content : contents)
    for (const SpreadRange& range : memory_.in(content.start, content.bytes)) {
      const bool has_file =
          std::any_of(spread_.begin(), spread_.end(), [&](const ImageMapping& mapping) {
            return mapping.kind == ImageMapping::Kind::kFile && mapping.start <= range.start &&
                   range.start < mapping.end();
          });
      if (!has_file) all.push_back(range);
    }
  for (SpreadRange range : all)
    while (range.bytes > 0) {
      SpreadRange piece = range;
      piece.bytes = std::min(range.bytes, kMostAtOnce);
      copies_.push_back(piece);
      range.start = piece.end();
      range.first = PageIndex{range.first.value + piece.bytes / kPageBytes};
      range.bytes -= piece.bytes;
    }
}

// --- its memory ---------------------------------------------------------------------------------

// Pages of a set that is new are written at once: what has been copied is given back, and others
// are served, before the next piece.
void SpreadStart::copy_next() {
  if (!process_->is_alive()) return fail(errno_error("the process died", ESRCH));
  if (next_copy_ == copies_.size()) return start_replicas();
  const SpreadRange& piece = copies_[next_copy_++];
  std::string bytes(piece.bytes, '\0');
  if (auto read = process_->read(piece.start, {bytes.data(), bytes.size()}); !read)
    return fail(read.error());
  request_.pages->write(piece.first.value * kPageBytes, bytes,
                        [self = shared_from_this()](Status written) {
                          if (!written) return self->fail(written.error());
                          self->request_.node.loop.post([self] { self->copy_next(); });
                        });
}

void SpreadStart::start_replicas() {
  const std::string payload = image_.serialize();
  auto left = std::make_shared<size_t>(1);
  auto ready = std::make_shared<std::vector<NodeId>>();
  const auto answered = [self = shared_from_this(), left, ready] {
    if (--*left > 0) return;
    if (ready->empty() && !self->request_.is_spread_again)
      return self->fail(errno_error("no node can have a replica", ENOTSUP));
    std::sort(ready->begin(), ready->end());
    self->request_.nodes = *ready;
    self->finish();
  };
  StartReplica ask;
  ask.set = request_.pages->id().value;
  for (NodeId node : request_.nodes) {
    ++*left;
    request_.node.messenger.request(
        node, ask, payload, [node, ready, answered](Result<std::string> reply) {
          if (reply)
            ready->push_back(node);
          else
            log_warn("spread", "node {}: {}", node.value, reply.error().message());
          answered();
        });
  }
  answered();
}

void SpreadStart::finish() {
  if (!process_->is_alive()) return fail(errno_error("the process died", ESRCH));
  auto instruction = process_->instruction();
  if (!instruction) return fail(instruction.error());
  UniqueFd userfaultfd;
  if (auto taken = take_descriptors(userfaultfd); !taken) return fail(taken.error());
  if (auto taken = take_timers(); !taken) return fail(taken.error());
  if (auto mapped = map_ranges(std::move(userfaultfd)); !mapped) {
    process_->kill();  // half of its memory has gone over
    return fail(mapped.error());
  }
  auto tids = process_->hand_over();
  if (!tids) return fail(tids.error());
  process_.reset();
  std::exchange(done_, nullptr)(Spread{{.node = request_.node,
                                        .pages = std::move(request_.pages),
                                        .pid = request_.pid,
                                        .memory = std::move(memory_),
                                        .memory_fd = memory_fd_,
                                        .instruction = *instruction,
                                        .scratch = std::move(mapped_scratch_),
                                        .nodes = request_.nodes,
                                        .constants = constants(),
                                        .brk = image_.image.layout.brk,
                                        .multiple_writers = request_.multiple_writers,
                                        .one_writer = std::move(one_writer_),
                                        .waiting = request_.waiting,
                                        .interval_timers = interval_timers_,
                                        .on_gathered = request_.on_gathered},
                                       std::move(*tids)});
}

// Those of processor time: the kernel would count this node's only.
Status SpreadStart::take_timers() {
  CallBatch batch(*process_);
  const RemoteAddr disarmed = batch.put(itimerval{});
  for (int which : {ITIMER_VIRTUAL, ITIMER_PROF})
    if (timerisset(&interval_timers_[static_cast<size_t>(which)].it_value))
      batch.add(SYS_setitimer, {static_cast<uint64_t>(which), disarmed.value, 0});
  if (batch.size() == 0) return {};
  if (auto run = batch.run(); !run) return run;
  for (size_t i = 0; i < batch.size(); ++i)
    if (auto done = done_by_call("setitimer", batch.result(i)); !done) return done;
  return {};
}

std::vector<SpreadRange> SpreadStart::constants() const {
  std::vector<SpreadRange> files;
  for (const ImageMapping& mapping : image_.image.mappings) {
    if (mapping.kind != ImageMapping::Kind::kFile) continue;
    SpreadRange range;
    range.start = mapping.start;
    range.bytes = mapping.bytes;
    range.protection = mapping.protection;
    files.push_back(range);
  }
  return files;
}

Status SpreadStart::take_descriptors(UniqueFd& userfaultfd) {
  const auto flags = static_cast<uint64_t>(PageSet::userfaultfd_flags(false));
  const int64_t number =
      request_.device_there >= 0
          ? process_->call(SYS_ioctl,
                           {static_cast<uint64_t>(request_.device_there), kNewUserfaultfd, flags})
          : process_->call(SYS_userfaultfd, {flags});
  if (auto done = done_by_call("userfaultfd", number); !done) return done;
  auto taken = steal_fd(request_.pid, static_cast<int>(number));
  process_->call(SYS_close, {static_cast<uint64_t>(number)});
  if (!taken) return taken.error();
  userfaultfd = std::move(*taken);
  const auto memory_there = static_cast<uint64_t>(request_.memory_there);
  const int64_t kept = process_->call(SYS_fcntl, {memory_there, F_DUPFD_CLOEXEC, kLeastNumber});
  if (auto done = done_by_call("descriptor", kept); !done) return done;
  memory_fd_ = static_cast<int>(kept);
  for (int* there : {&request_.memory_there, &request_.device_there})
    if (const int old = std::exchange(*there, -1); old >= 0)
      process_->call(SYS_close, {static_cast<uint64_t>(old)});
  const int64_t at =
      process_->call(SYS_mmap, {0, SpreadScratch::kBytes, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_NORESERVE | kUnnotifiedMapFlags,
                                static_cast<uint64_t>(memory_fd_), scratch_.value * kPageBytes});
  if (auto done = done_by_call("scratch memory", at); !done) return done;
  auto mapped =
      SpreadScratch::map(*request_.pages, scratch_, RemoteAddr{static_cast<uint64_t>(at)});
  if (!mapped) return mapped.error();
  mapped_scratch_ = std::move(*mapped);
  return {};
}

// Restartable sequences do not go along to other nodes: the C library then asks the vdso.
Status SpreadStart::map_ranges(UniqueFd userfaultfd) {
  for (size_t i = 0; i < threads_.size() && i < process_->threads().size(); ++i) {
    const ImageThread& thread = threads_[i];
    if (thread.rseq != 0)
      process_->call_in(*process_->threads()[i], SYS_rseq,
                        {thread.rseq, thread.rseq_bytes, kUnregister, thread.rseq_signature});
  }
  const pid_t pid = request_.pid;
  PageSet& pages = *request_.pages;
  for (const SpreadRange& range : memory_.all()) {
    const int64_t at = process_->call(
        SYS_mmap, {range.start.value, range.bytes, range.protection, kMapFlags,
                   static_cast<uint64_t>(memory_fd_), range.first.value * kPageBytes});
    if (auto done = done_by_call("mmap", at); !done) return done;
    const size_t count = range.bytes / kPageBytes;
    Status attached =
        pages.is_attached(pid)
            ? pages.attach_beside(pid, range.start, range.first, count)
            : pages.attach(std::move(userfaultfd), pid, range.start, range.first, count);
    if (!attached) return attached;
  }
  return {};
}

}  // namespace krg
