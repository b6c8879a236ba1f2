// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/shared_memory.h"

#include <fcntl.h>

#include <algorithm>

#include "alive.h"
#include "in_worker.h"
#include "ipc/priority_locks.h"
#include "krg/procmgr/fork_sight.h"
#include "krg/shmem/page_set.h"
#include "packed_bytes.h"
#include "segment_calls.h"
#include "segment_home.h"
#include "set_memory.h"
#include "shared_files.h"
#include "shared_home.h"
#include "shared_mappings.h"
#include "shared_messages.h"
#include "shared_saving.h"
#include "shared_tree.h"

namespace krg {

struct SharedMemory::Impl {
  Impl(NodeContext& node, Kddm& kddm, SessionFs& fs, SyscallBroker& broker, UserfaultSource source)
      : node(node),
        device(source.device()),
        kernel_follows_forks(PageSet::follows_forks()),
        session_files(fs),
        files(node, kddm),
        tree(node, files),
        mappings(node, fs, broker, files, std::move(source)),
        segments(node, broker, files, mappings) {
    fs.add_tree(std::string(SharedTree::kName), tree);
    broker.add_memory_guard(
        memory_of_sets([this] { return files.any_held(); },
                       [this](pid_t pid, RemoteAddr at) { return files.at(pid, at); }));
    if (node.self == kSharedHome) {
      segment_home.emplace(node, home.emplace(node, files));
      saving.emplace(node, *home, files, segment_home->segments());
    }
    node.messenger.on_request<SharedResize>(
        [this](NodeId, const SharedResize& message, std::string_view path, Messenger::Reply reply) {
          on_resize(message, path, std::move(reply));
        });
    node.messenger.on_request<SharedWriteBack>(
        [this](NodeId, const SharedWriteBack& message, std::string_view, Messenger::Reply reply) {
          files.write_back(message.file, [reply = shared(std::move(reply))](const Status& written) {
            written ? reply->ok() : reply->fail(written.error());
          });
        });
    node.messenger.on_request<futex_messages::ChangeLock>(
        [this](NodeId, const futex_messages::ChangeLock& message, std::string_view,
               Messenger::Reply reply) { change_lock(message, std::move(reply)); });
    node.messenger.on<SharedGone>(
        [this](NodeId, const SharedGone& message, std::string_view) { files.drop(message.file); });
  }

  void on_resize(const SharedResize& message, std::string_view path, Messenger::Reply reply) {
    const auto resize = [this, message](std::shared_ptr<MappedFile> mapped,
                                        Messenger::Reply& to_answer) {
      auto done = files.resize(message.file, message.size, message.covered, std::move(mapped));
      if (!done) return to_answer.fail(done.error());
      to_answer.ok();
    };
    if (path.empty() || files.find(message.file)) return resize(nullptr, reply);
    using Opened = Result<std::shared_ptr<MappedFile>>;
    in_worker(
        node.workers,
        [space = node.session_mount_ns, &workers = node.workers,
         name = MappedFile::Name{std::string(path), message.inode}] {
          return MappedFile::open(space, workers, name);
        },
        [resize, reply = shared(std::move(reply))](Opened mapped) {
          if (!mapped) return reply->fail(mapped.error());
          resize(std::move(*mapped), *reply);
        });
  }

  void change_lock(const futex_messages::ChangeLock& message, Messenger::Reply reply) {
    const SharedPlace place = message.place.value();
    files.update(
        place.set, place.page.value * kPageBytes + place.offset,
        [message](uint32_t word) { return priority_lock::changed(word, message); },
        [reply = shared(std::move(reply))](const Result<uint32_t>& before) {
          if (!before) return reply->fail(before.error());
          reply->ok({reinterpret_cast<const char*>(&*before), sizeof *before});
        });
  }

  NodeContext& node;
  const int device;  // of the mappings' source
  const bool kernel_follows_forks;
  SessionFs& session_files;
  SharedFiles files;
  SharedTree tree;
  SharedMappings mappings;
  SegmentCalls segments;
  std::optional<SharedHome> home;
  std::optional<SegmentHome> segment_home;
  std::optional<SharedSaving> saving;
};

namespace {

template <class Numbers>
void put_all(PackedWriter& out, const Numbers& numbers) {
  out.put(static_cast<uint32_t>(numbers.size()));
  for (const auto& number : numbers) out.put(number);
}

class RestoredFiles : public RestoredMemory {
 public:
  // `files`: their numbers now.
  RestoredFiles(NodeContext& node, SharedFiles& shared, std::vector<SavedMemory> memories,
                const std::vector<uint64_t>& files)
      : node_(node), memories_(std::move(memories)) {
    for (size_t i = 0; i < files.size(); ++i) {
      numbers_[memories_[i].id] = files[i];
      memories_[i].id = files[i];
      if (memories_[i].is_file()) uses_.push_back(shared.counted_use(files[i]));
    }
  }
  ~RestoredFiles() override {
    uses_.clear();
    if (is_kept_) return;
    RestoreShared drop;
    drop.drops = 1;
    node_.messenger.request(kSharedHome, drop, pack_memories(memories_),
                            [](const Result<std::string>&) {});
  }
  const std::map<uint64_t, uint64_t>& numbers() const override { return numbers_; }
  void keep() override { is_kept_ = true; }

 private:
  NodeContext& node_;
  std::vector<SavedMemory> memories_;
  std::map<uint64_t, uint64_t> numbers_;
  std::vector<std::shared_ptr<void>> uses_;
  bool is_kept_ = false;
};

}  // namespace

bool has_to_see_forks() {
  return !PageSet::follows_forks() && UserfaultSource::find();
}

Result<std::unique_ptr<SharedMemory>> SharedMemory::create(NodeContext& node, Kddm& kddm,
                                                           SessionFs& fs, SyscallBroker& broker) {
  auto source = UserfaultSource::find();
  if (!source) return source.error();
  return std::unique_ptr<SharedMemory>(
      new SharedMemory(std::make_unique<Impl>(node, kddm, fs, broker, std::move(*source))));
}

SharedMemory::SharedMemory(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SharedMemory::~SharedMemory() = default;

std::optional<SharedPlace> SharedMemory::locate(pid_t pid, RemoteAddr address) const {
  auto place = impl_->files.locate(pid, address);
  if (!place) return {};
  return SharedPlace{place->set, place->location.page, place->location.offset};
}

int SharedMemory::memory_of(SetId set) const {
  return impl_->files.memory_of(set);
}

void SharedMemory::let_go(const SharedPlace& place) {
  impl_->files.let_go(place.set, place.page);
}

void SharedMemory::share_anonymous_if(std::function<bool(pid_t)> spreads) {
  impl_->mappings.share_anonymous_if(std::move(spreads));
}

void SharedMemory::borrow_of(ThreadLender lender) {
  impl_->mappings.borrow_of(std::move(lender));
}

uint64_t SharedMemory::file_of_memory(uint64_t inode) const {
  return impl_->files.file_of_memory(inode);
}

void SharedMemory::hold(uint64_t file, std::function<void(Result<std::shared_ptr<void>>)> done) {
  SharedRequest request;
  request.op = SharedOp::kHold;
  request.file = file;
  PackedWriter names;
  names.put_string({}).put_string({});
  impl_->node.messenger.request(
      kSharedHome, request, names.bytes(),
      [this, file, done = std::move(done)](const Result<std::string>& held) {
        if (!held) return done(held.error());
        done(impl_->files.counted_use(file));
      });
}

Result<UniqueFd> SharedMemory::memory(uint64_t file, bool writes) const {
  return impl_->files.memory(file, writes);
}

int SharedMemory::userfaultfd_device() const {
  return impl_->device;
}

Status SharedMemory::serve(uint64_t file, UniqueFd userfaultfd, pid_t pid, RemoteAddr at,
                           uint64_t offset, uint64_t bytes) {
  return impl_->files.serve(file, std::move(userfaultfd), pid, at, offset, bytes);
}

bool SharedMemory::has_to_be_followed(pid_t pid) const {
  return !impl_->kernel_follows_forks && impl_->files.is_mapped_by(pid);
}

uint64_t SharedMemory::file_of(const struct stat& open_file) const {
  const SessionFs& fs = impl_->session_files;
  if (!fs.is_serving() || open_file.st_dev != fs.device() || !S_ISREG(open_file.st_mode)) return 0;
  return fs.file_of(SharedTree::kName, open_file.st_ino);
}

Result<UniqueFd> SharedMemory::open_file(uint64_t file, int flags) const {
  constexpr int kKept = O_ACCMODE | O_APPEND | O_NONBLOCK | O_NOATIME;
  UniqueFd opened(openat(impl_->session_files.root(), SharedTree::path_of(file).c_str(),
                         (flags & kKept) | O_CLOEXEC));
  if (!opened) return errno_error("shared memory");
  return opened;
}

void SharedMemory::save(const Whose& whose,
                        std::function<void(Result<std::vector<SavedMemory>>)> done) {
  PackedWriter payload;
  put_all(payload, whose.members);
  put_all(payload, whose.others);
  put_all(payload, whose.held);
  impl_->node.messenger.request(kSharedHome, SaveShared(), payload.bytes(),
                                [done = std::move(done)](const Result<std::string>& answer) {
                                  if (!answer) return done(answer.error());
                                  done(unpack_memories(*answer));
                                });
}

void SharedMemory::restore(const std::vector<SavedMemory>& memories,
                           std::function<void(Result<Restored>)> done) {
  impl_->node.messenger.request(
      kSharedHome, RestoreShared(), pack_memories(memories),
      [impl = impl_.get(), memories, done = std::move(done)](const Result<std::string>& answer) {
        if (!answer) return done(answer.error());
        std::vector<uint64_t> files;
        for (PackedReader in(*answer); !in.at_end();) files.push_back(in.get<uint64_t>());
        if (files.size() != memories.size())
          return done(errno_error("answer of another version", EPROTO));
        done(Restored(std::make_unique<RestoredFiles>(impl->node, impl->files, memories, files)));
      });
}

Result<std::vector<PageIndex>> SharedMemory::owned(uint64_t id) const {
  auto file = impl_->files.find(id);
  return file ? file->pages->owned() : std::vector<PageIndex>();
}

std::optional<std::vector<bool>> SharedMemory::take_written(uint64_t id) {
  auto file = impl_->files.find(id);
  return file ? file->pages->take_written() : std::nullopt;
}

void SharedMemory::use_before_change(uint64_t id, std::vector<PageIndex> pages,
                                     std::function<void(PageIndex, std::span<const std::byte>)> use,
                                     std::function<void(Status)> done) {
  auto file = impl_->files.find(id);
  if (!file) return impl_->node.loop.post([done = std::move(done)] { done({}); });
  file->pages->use_before_change(
      std::move(pages), std::move(use),
      [file, done = std::move(done)](Status used) { done(std::move(used)); });
}

void SharedMemory::write(uint64_t id, uint64_t offset, std::string_view bytes,
                         std::function<void(Status)> done) {
  auto file = impl_->files.find(id);
  if (!file) return done(errno_error("shared memory that is gone", ENOENT));
  file->pages->write(offset, bytes,
                     [file, done = std::move(done)](Status written) { done(std::move(written)); });
}

void SharedMemory::segments_text(std::function<void(Result<std::string>)> done) {
  impl_->segments.text(std::move(done));
}

size_t SharedMemory::file_count() const {
  return impl_->files.size();
}

}  // namespace krg
