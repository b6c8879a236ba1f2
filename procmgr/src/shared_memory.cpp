// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/shared_memory.h"

#include "segment_calls.h"
#include "segment_home.h"
#include "shared_files.h"
#include "shared_home.h"
#include "shared_mappings.h"
#include "shared_messages.h"
#include "shared_tree.h"

namespace krg {

struct SharedMemory::Impl {
  Impl(NodeContext& node, Kddm& kddm, SessionFs& fs, SyscallBroker& broker, UserfaultSource source)
      : files(node, kddm),
        tree(node, files),
        mappings(node, fs, broker, files, std::move(source)),
        segments(node, broker, files, mappings) {
    fs.add_tree(std::string(SharedTree::kName), tree);
    broker.add_memory_guard([this](pid_t tid, RemoteAddr address, size_t bytes, bool write) {
      return files.would_fault(tid, address, bytes, write);
    });
    if (node.self == kSharedHome) segment_home.emplace(node, home.emplace(node, files));
    node.messenger.on_request<SharedResize>(
        [this](NodeId, const SharedResize& message, std::string_view, Messenger::Reply reply) {
          auto done = files.resize(message.file, message.size, message.covered);
          if (!done) return reply.fail(done.error().errno_or(EIO), done.error().context);
          reply.ok();
        });
    node.messenger.on<SharedGone>(
        [this](NodeId, const SharedGone& message, std::string_view) { files.drop(message.file); });
  }

  SharedFiles files;
  SharedTree tree;
  SharedMappings mappings;
  SegmentCalls segments;
  std::optional<SharedHome> home;
  std::optional<SegmentHome> segment_home;
};

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

void SharedMemory::segments_text(std::function<void(Result<std::string>)> done) {
  impl_->segments.text(std::move(done));
}

size_t SharedMemory::file_count() const {
  return impl_->files.size();
}

}  // namespace krg
