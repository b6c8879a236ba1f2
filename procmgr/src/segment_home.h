// SegmentHome: answers the nodes' System V shared memory calls from the one table of segments; a
// segment's contents are a shared file without a name (SharedHome).
//
// Owner: SharedMemory, on kSharedHome. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "shared_home.h"
#include "shared_segments.h"

namespace krg {

class SegmentHome {
 public:
  SegmentHome(NodeContext& node, SharedHome& files);
  SegmentHome(const SegmentHome&) = delete;
  SegmentHome& operator=(const SegmentHome&) = delete;

  SharedSegments& segments() { return segments_; }

 private:
  using Reply = Messenger::Reply;
  using ReplyPtr = std::shared_ptr<Reply>;
  void handle(NodeId from, const SegmentRequest& request, const SharedCaller& caller, Reply reply);
  void get(const SegmentRequest& request, const SharedCaller& caller, ReplyPtr reply);
  void attach(NodeId from, const SegmentRequest& request, const SharedCaller& caller, Reply& reply);
  void remove(const SegmentRequest& request, const SharedCaller& caller, Reply& reply);
  // With how often each is mapped on all nodes.
  void count(std::vector<SegmentState> segments,
             const std::function<void(std::vector<SegmentState>)>& counted);

  NodeContext& node_;
  SharedHome& files_;
  SharedSegments segments_;
};

}  // namespace krg
