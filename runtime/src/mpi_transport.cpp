// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/mpi_transport.h"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "adaptive_spin.h"
#include "krg/runtime/log.h"
#include "krg/runtime/signs_of_life.h"
#include "message_one_sided.h"
#include "message_streams.h"
#include "mpi_error.h"
#include "mpi_window.h"

namespace krg {
namespace {

using std::chrono::microseconds;

constexpr int kTag = 1;
constexpr size_t kFrameBytes = 32 * 1024;
static_assert(kFrameBytes >= kMinFrameBytes);
constexpr size_t kReceives = 64;       // posted frames
constexpr size_t kMostTaken = 16;      // so many of them may wait to be posted again
constexpr size_t kFramesPerPeer = 16;  // in flight
constexpr int kFramesPerRound = 64;
constexpr int kLooksPerReading = 4;  // a look in shared memory takes 20 ns
// Frames up to here are usually copied by MPI_Isend itself.
constexpr size_t kCopiedAtOnce = 4096;
// Between two polls while nothing happens: from the first to the longest, doubling. The longest
// bounds both what an idle rank costs and how late a message is noticed.
constexpr microseconds kFirstSleep{20}, kLongestSleep{20'000};
// The longest while operations of this node are under way.
constexpr microseconds kLongestSleepWaiting{200};
// The longest while a peer transfers from or to this node's memory: over most networks such a
// transfer only goes on while its target polls.
constexpr microseconds kLongestSleepServing{20};
// Puts up to here go by messages: a put through the window ends with a flush, which blocks.
constexpr size_t kShortPutBytes = 64 * 1024;
// Marks keys of regions that the window reaches; the others are reached by messages only.
constexpr uint64_t kInWindow = uint64_t{1} << 63;

class MpiTransport final : public Transport, public SignsOfLife, private FrameCarrier {
 public:
  MpiTransport(EventLoop& loop, NodeId self, unsigned nodes, const Patience* patience)
      : loop_(loop),
        self_(self),
        nodes_(nodes),
        streams_(loop, *this, self, nodes),
        by_messages_(loop, streams_),
        in_flight_(nodes),
        transfers_to_(nodes),
        transferring_(nodes),
        spin_(kLooksPerReading, patience) {
    streams_.set_handler(kTransferNotice, [this](NodeId from, std::span<const std::byte> header,
                                                 std::span<const std::byte>) {
      transferring_[from.value] = !header.empty() && header[0] != std::byte{0};
    });
  }
  ~MpiTransport() override;
  Status start();

  std::string_view name() const override { return "mpi"; }
  NodeId self() const override { return self_; }
  unsigned node_count() const override { return nodes_; }
  EventLoop& loop() const override { return loop_; }
  void set_handler(HandlerId id, MessageHandler handler) override {
    check(id < kMaxHandlers, "a handler id is below kMaxHandlers");
    streams_.set_handler(id, std::move(handler));
  }
  Status send(NodeId to, HandlerId id, std::span<const std::byte> header,
              std::span<const std::byte> payload) override {
    return streams_.send(to, id, header, payload);
  }
  void on_writable(std::function<void(NodeId)> writable) override {
    streams_.on_writable(std::move(writable));
  }
  size_t send_queue_limit_bytes() const override { return kSendQueueLimitBytes; }
  uint64_t heard(NodeId from) const override { return streams_.heard(from); }
  Result<std::unique_ptr<MemoryRegion>> register_memory(std::span<std::byte> bytes) override;
  void get(NodeId from, const RemoteRegion& remote, uint64_t offset, std::span<std::byte> local,
           Completion done) override;
  void put(NodeId to, const RemoteRegion& remote, uint64_t offset, std::span<const std::byte> local,
           Completion done) override;
  // By messages: MPI promises nothing for a compare-and-swap and a sum on one word at a time
  // (accumulate_ops, MPI 3.1 section 11.2.1), and MPI_Compare_and_swap has no form that does not
  // block.
  void fetch_add(NodeId at, const RemoteRegion& remote, uint64_t offset, uint64_t add,
                 AtomicCompletion done) override {
    by_messages_.fetch_add(at, remote.key, offset, add, std::move(done));
  }
  void compare_swap(NodeId at, const RemoteRegion& remote, uint64_t offset, uint64_t expected,
                    uint64_t desired, AtomicCompletion done) override {
    by_messages_.compare_swap(at, remote.key, offset, expected, desired, std::move(done));
  }
  void on_peer_failure(std::function<void(NodeId)> failed) override {
    on_failed_ = std::move(failed);
  }
  void mark_failed(NodeId peer) override;

 private:
  class Region;
  using Frame = std::unique_ptr<std::byte[]>;
  // A frame that MPI is sending.
  struct Sending {
    unsigned to;
    Frame frame;
  };
  // A transfer through the window.
  struct Transfer {
    unsigned peer;
    bool is_put;
    Completion done;  // empty: failed already
  };

  std::span<std::byte> acquire(NodeId to, size_t wanted) override;
  void post(NodeId to, size_t length) override;
  void announce_transfers(unsigned peer, bool begin);
  void track(NodeId peer, bool is_put, Result<MPI_Request> request, Completion done);
  void complete_later(Completion done, Error error);

  microseconds idle();
  bool progress();
  int receive_frames();
  void post_taken();
  int finish_sends();
  int finish_transfers();
  void handle_frame(std::span<const std::byte> frame);

  EventLoop& loop_;
  const NodeId self_;
  const unsigned nodes_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  MpiWindow window_;
  MessageStreams streams_;
  MessageOneSided by_messages_;

  std::vector<Frame> receive_frames_;
  std::vector<MPI_Request> receives_;  // persistent; matched, and taken, in turn
  size_t next_receive_ = 0;
  size_t taken_ = 0;  // so many before that one are not posted

  std::vector<Frame> free_frames_;
  Frame acquired_;
  std::vector<size_t> in_flight_;           // frames, by peer
  std::vector<MPI_Request> send_requests_;  // sending_[i] belongs to send_requests_[i]
  std::vector<Sending> sending_;
  std::vector<MPI_Request> transfer_requests_;  // likewise with transfers_
  std::vector<Transfer> transfers_;
  std::vector<unsigned> transfers_to_;  // how many, by peer
  std::vector<bool> transferring_;      // peers that have announced transfers to this node
  std::vector<int> finished_;           // scratch of MPI_Testsome

  uint64_t next_key_ = 1;
  std::function<void(NodeId)> on_failed_;
  AdaptiveSpin spin_;
  microseconds sleep_ = kFirstSleep;
  EventLoop::IdleHook idle_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
};

class MpiTransport::Region final : public MemoryRegion {
 public:
  Region(MpiTransport& owner, RemoteRegion remote, std::span<std::byte> bytes)
      : owner_(owner), alive_(owner.alive_), remote_(remote), bytes_(bytes) {}
  ~Region() override {
    check(!alive_.expired(), "a region goes before its transport");
    owner_.by_messages_.withdraw(remote_.key);
    if (remote_.key & kInWindow) owner_.window_.detach(bytes_);
  }
  RemoteRegion remote() const override { return remote_; }
  std::span<std::byte> bytes() const override { return bytes_; }

 private:
  MpiTransport& owner_;
  std::weak_ptr<bool> alive_;
  RemoteRegion remote_;
  std::span<std::byte> bytes_;
};

Status MpiTransport::start() {
  int returned = MPI_Comm_dup(MPI_COMM_WORLD, &comm_);
  if (returned != MPI_SUCCESS) return mpi_error("MPI_Comm_dup", returned);
  MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  const char* rma = std::getenv("KRG_MPI_RMA");
  if (rma && std::string_view(rma) == "off")
    log_info("mpi", "one-sided transfers go by messages, as KRG_MPI_RMA says");
  else if (Status opened = window_.open(comm_); !opened)
    log_warn("mpi", "one-sided transfers go by messages: {}", opened.error().message());
  receives_.resize(kReceives, MPI_REQUEST_NULL);
  for (auto& request : receives_) {
    auto& frame = receive_frames_.emplace_back(new std::byte[kFrameBytes]);
    returned =
        MPI_Recv_init(frame.get(), kFrameBytes, MPI_BYTE, MPI_ANY_SOURCE, kTag, comm_, &request);
    if (returned == MPI_SUCCESS) returned = MPI_Start(&request);
    if (returned != MPI_SUCCESS) return mpi_error("MPI_Recv_init", returned);
  }
  idle_ = loop_.add_idle_hook([this] { return idle(); });
  return {};
}

MpiTransport::~MpiTransport() {
  idle_.reset();
  alive_.reset();
  post_taken();
  for (auto& request : receives_) {
    if (request == MPI_REQUEST_NULL) continue;
    MPI_Cancel(&request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    MPI_Request_free(&request);
  }
  // Sends to nodes that are alive complete; nobody else can be waited for.
  for (size_t i = 0; i < sending_.size(); ++i)
    if (!streams_.failed(NodeId{static_cast<uint16_t>(sending_[i].to)}))
      MPI_Wait(&send_requests_[i], MPI_STATUS_IGNORE);
}

// --- frames -------------------------------------------------------------------------------------

std::span<std::byte> MpiTransport::acquire(NodeId to, size_t) {
  if (in_flight_[to.value] >= kFramesPerPeer) return {};
  if (!acquired_) {
    if (free_frames_.empty()) free_frames_.emplace_back(new std::byte[kFrameBytes]);
    acquired_ = std::move(free_frames_.back());
    free_frames_.pop_back();
  }
  return {acquired_.get(), kFrameBytes};
}

void MpiTransport::post(NodeId to, size_t length) {
  MPI_Request request = MPI_REQUEST_NULL;
  int returned = MPI_Isend(acquired_.get(), static_cast<int>(length), MPI_BYTE, to.value, kTag,
                           comm_, &request);
  sleep_ = kFirstSleep;
  if (returned != MPI_SUCCESS) {
    free_frames_.push_back(std::move(acquired_));
    log_error("mpi", "n{}: {}", to.value, mpi_error("MPI_Isend", returned).message());
    return mark_failed(to);
  }
  // A small frame has been copied by now: then there is nothing to wait for, and the frame is the
  // next one's. (MPI_Test of a finished request does not make it look for anything else.)
  if (length <= kCopiedAtOnce) {
    int done = 0;
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done) return;
  }
  ++in_flight_[to.value];
  send_requests_.push_back(request);
  sending_.push_back({to.value, std::move(acquired_)});
}

// --- one-sided ----------------------------------------------------------------------------------

Result<std::unique_ptr<MemoryRegion>> MpiTransport::register_memory(std::span<std::byte> bytes) {
  if (bytes.empty()) return errno_error("an empty region", EINVAL);
  RemoteRegion remote{.base = 0, .key = next_key_++, .length = bytes.size()};
  if (auto address = window_.attach(bytes)) {
    remote.base = *address;
    remote.key |= kInWindow;
  }
  by_messages_.expose(remote.key, bytes);
  return std::unique_ptr<MemoryRegion>(std::make_unique<Region>(*this, remote, bytes));
}

void MpiTransport::get(NodeId from, const RemoteRegion& remote, uint64_t offset,
                       std::span<std::byte> local, Completion done) {
  if (offset > remote.length || local.size() > remote.length - offset)
    return complete_later(std::move(done), errno_error("outside of the region", ERANGE));
  if (streams_.failed(from))
    return complete_later(std::move(done), errno_error("get from a failed node", EHOSTDOWN));
  if (from == self_ || !(remote.key & kInWindow) || local.empty())
    return by_messages_.get(from, remote.key, offset, local, std::move(done));
  track(from, false, window_.get(from.value, remote.base + offset, local), std::move(done));
}

void MpiTransport::put(NodeId to, const RemoteRegion& remote, uint64_t offset,
                       std::span<const std::byte> local, Completion done) {
  if (offset > remote.length || local.size() > remote.length - offset)
    return complete_later(std::move(done), errno_error("outside of the region", ERANGE));
  if (streams_.failed(to))
    return complete_later(std::move(done), errno_error("put to a failed node", EHOSTDOWN));
  if (to == self_ || !(remote.key & kInWindow) || local.size() <= kShortPutBytes)
    return by_messages_.put(to, remote.key, offset, local, std::move(done));
  track(to, true, window_.put(to.value, remote.base + offset, local), std::move(done));
}

void MpiTransport::track(NodeId peer, bool is_put, Result<MPI_Request> request, Completion done) {
  sleep_ = kFirstSleep;
  if (!request) return complete_later(std::move(done), request.error());
  if (transfers_to_[peer.value]++ == 0) announce_transfers(peer.value, true);
  transfer_requests_.push_back(*request);
  transfers_.push_back({peer.value, is_put, std::move(done)});
}

// Tells the peer when the first transfer begins and the last has ended.
void MpiTransport::announce_transfers(unsigned peer, bool begin) {
  const std::byte flag{begin};
  // To a failed peer nothing needs to be said.
  static_cast<void>(streams_.send(NodeId{static_cast<uint16_t>(peer)}, kTransferNotice, {&flag, 1},
                                  {}, MessageStreams::Limit::kExceed));
}

void MpiTransport::complete_later(Completion done, Error error) {
  loop_.post([done = std::move(done), error = std::move(error)] { done(error); });
}

// --- progress -----------------------------------------------------------------------------------

microseconds MpiTransport::idle() {
  // It wakes by itself, which says nothing about a peer: spin_ is not told that it blocks.
  switch (spin_.spin([this] { return progress(); })) {
    case AdaptiveSpin::Found::kWork:
      sleep_ = kFirstSleep;
      return EventLoop::kHandled;
    case AdaptiveSpin::Found::kNothing:
      return microseconds(0);
    case AdaptiveSpin::Found::kNoHope:
      break;
  }
  const bool waiting = !sending_.empty() || !transfers_.empty() || by_messages_.waiting();
  const bool serving =
      std::find(transferring_.begin(), transferring_.end(), true) != transferring_.end();
  const microseconds longest = serving   ? kLongestSleepServing
                               : waiting ? kLongestSleepWaiting
                                         : kLongestSleep;
  const microseconds now = std::min(sleep_, longest);
  sleep_ = std::min(sleep_ * 2, kLongestSleep);
  return now;
}

bool MpiTransport::progress() {
  int handled = receive_frames();
  if (!sending_.empty()) handled += finish_sends();
  if (!transfers_.empty()) handled += finish_transfers();
  return handled > 0;
}

int MpiTransport::receive_frames() {
  for (int count = 0; count < kFramesPerRound; ++count) {
    int done = 0, length = 0;
    MPI_Status status;
    int returned = MPI_Test(&receives_[next_receive_], &done, &status);
    if (returned != MPI_SUCCESS)
      log_error("mpi", "{}", mpi_error("receive", returned).message());
    else if (!done)
      return post_taken(), count;
    MPI_Get_count(&status, MPI_BYTE, &length);
    if (returned == MPI_SUCCESS)
      handle_frame({receive_frames_[next_receive_].get(), static_cast<size_t>(length)});
    next_receive_ = (next_receive_ + 1) % kReceives;
    if (++taken_ == kMostTaken) post_taken();
    // After a message's end whoever waits for it goes first.
    if (static_cast<size_t>(length) < kFrameBytes) return count + 1;
  }
  return kFramesPerRound;
}

// Posts frames that were taken once there is nothing else to do: whoever waits for an answer has
// sent the next question by then.
void MpiTransport::post_taken() {
  for (; taken_ > 0; --taken_)
    MPI_Start(&receives_[(next_receive_ + kReceives - taken_) % kReceives]);
}

void MpiTransport::handle_frame(std::span<const std::byte> frame) {
  NodeId from;
  Status arrived = streams_.frame_arrived(frame, &from);
  if (arrived) return;
  log_error("mpi", "{}", arrived.error().message());
  if (from != kNoNode) mark_failed(from);
}

// Removes element i of both by putting the last one there.
template <class T>
T take_out(std::vector<MPI_Request>& requests, std::vector<T>& items, size_t i) {
  T taken = std::move(items[i]);
  items[i] = std::move(items.back());
  items.pop_back();
  requests[i] = requests.back();
  requests.pop_back();
  return taken;
}

// The indices of completed requests, highest first.
std::span<int> test_some(std::vector<MPI_Request>& requests, std::vector<int>& finished) {
  finished.resize(requests.size());
  int count = 0;
  MPI_Testsome(static_cast<int>(requests.size()), requests.data(), &count, finished.data(),
               MPI_STATUSES_IGNORE);
  if (count == MPI_UNDEFINED || count <= 0) return {};
  auto indices = std::span(finished).first(static_cast<size_t>(count));
  std::sort(indices.begin(), indices.end(), std::greater<>());
  return indices;
}

int MpiTransport::finish_sends() {
  auto indices = test_some(send_requests_, finished_);
  std::vector<unsigned> peers;
  for (int i : indices) {
    Sending sent = take_out(send_requests_, sending_, static_cast<size_t>(i));
    --in_flight_[sent.to];
    free_frames_.push_back(std::move(sent.frame));
    if (std::find(peers.begin(), peers.end(), sent.to) == peers.end()) peers.push_back(sent.to);
  }
  const int count = static_cast<int>(indices.size());
  for (unsigned peer : peers) streams_.pump(NodeId{static_cast<uint16_t>(peer)});
  return count;
}

int MpiTransport::finish_transfers() {
  auto indices = test_some(transfer_requests_, finished_);
  std::vector<Transfer> done;
  for (int i : indices)
    done.push_back(take_out(transfer_requests_, transfers_, static_cast<size_t>(i)));
  for (auto& transfer : done) {
    Status outcome;
    if (transfer.is_put) outcome = window_.flush(static_cast<int>(transfer.peer));
    if (--transfers_to_[transfer.peer] == 0) announce_transfers(transfer.peer, false);
    if (transfer.done) transfer.done(outcome);
  }
  return static_cast<int>(done.size());
}

void MpiTransport::mark_failed(NodeId peer) {
  if (peer == self_ || streams_.failed(peer)) return;
  log_warn("mpi", "n{} failed", peer.value);
  streams_.fail(peer);
  transferring_[peer.value] = false;
  loop_.post([this, peer, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    std::vector<Completion> failed;
    for (auto& transfer : transfers_)
      if (transfer.peer == peer.value && transfer.done)
        failed.push_back(std::exchange(transfer.done, {}));
    for (auto& done : failed) done(errno_error("the node failed", EHOSTDOWN));
    by_messages_.fail(peer);
    if (on_failed_) on_failed_(peer);
  });
}

}  // namespace

Result<std::unique_ptr<Transport>> make_mpi_transport(EventLoop& loop, const MpiBoot& boot,
                                                      const Patience* patience) {
  auto transport = std::make_unique<MpiTransport>(loop, boot.self(), boot.node_count(), patience);
  if (Status started = transport->start(); !started) return started.error();
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace krg
