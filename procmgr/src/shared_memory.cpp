// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/shared_memory.h"

#include "shared_files.h"
#include "shared_home.h"
#include "shared_messages.h"
#include "shared_tree.h"

namespace krg {

struct SharedMemory::Impl {
  Impl(NodeContext& node, Kddm& kddm, SessionFs& fs) : files(node, kddm), tree(node, files) {
    fs.add_tree(std::string(SharedTree::kName), tree);
    if (node.self == kSharedHome) home.emplace(node, files);
    node.messenger.on_request<SharedResize>(
        [this](NodeId, const SharedResize& message, std::string_view, Messenger::Reply reply) {
          auto done = files.resize(message.file, message.size);
          if (!done) return reply.fail(done.error().errno_or(EIO), done.error().context);
          reply.ok();
        });
    node.messenger.on<SharedGone>(
        [this](NodeId, const SharedGone& message, std::string_view) { files.drop(message.file); });
  }

  SharedFiles files;
  SharedTree tree;
  std::optional<SharedHome> home;
};

SharedMemory::SharedMemory(NodeContext& node, Kddm& kddm, SessionFs& fs, SyscallBroker&)
    : impl_(std::make_unique<Impl>(node, kddm, fs)) {}
SharedMemory::~SharedMemory() = default;

std::optional<SharedPlace> SharedMemory::locate(pid_t pid, RemoteAddr address) const {
  auto place = impl_->files.locate(pid, address);
  if (!place) return {};
  return SharedPlace{place->set, place->location.page, place->location.offset};
}

size_t SharedMemory::file_count() const {
  return impl_->files.size();
}

}  // namespace krg
