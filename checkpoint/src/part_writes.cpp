// SPDX-License-Identifier: GPL-2.0-or-later
#include "part_writes.h"

#include <optional>

#include "base_ranges.h"
#include "checkpoint_messages.h"
#include "krg/checkpoint/live_part.h"
#include "payloads.h"
#include "progress_desk.h"

namespace krg {

using namespace checkpoint_messages;

namespace {

class SnapshotPages : public PageSnapshot {
 public:
  explicit SnapshotPages(const FamilySnapshot& snapshot) : snapshot_(snapshot) {}
  const ProcessFamily& family() const override { return snapshot_.family; }
  Result<std::vector<FamilySnapshot::Pages>> pages() const override { return snapshot_.pages(); }
  Status read(uint32_t member, std::span<const PageRange> ranges,
              std::span<std::byte> into) const override {
    return snapshot_.read(member, ranges, into);
  }
  const std::byte* find_all(uint32_t member, std::span<const PageRange> ranges) const override {
    return snapshot_.find_all(member, ranges);
  }

 private:
  const FamilySnapshot& snapshot_;
};

class SourcePages : public LiveSource {
 public:
  explicit SourcePages(LivePages& pages) : pages_(pages) {}
  std::vector<pid_t> members() const override {
    std::vector<pid_t> pids;
    for (const LivePages::Member& member : pages_.members()) pids.push_back(member.pid);
    return pids;
  }
  uint64_t bytes() const override { return pages_.bytes(); }
  std::vector<LivePages::Pages> next(uint64_t wanted) override { return pages_.next(wanted); }
  void read(uint32_t member, std::span<const PageRange> ranges,
            std::span<std::byte> into) override {
    pages_.read(member, ranges, into);
  }

 private:
  LivePages& pages_;
};

struct Write {
  PartOrder order;
  std::shared_ptr<FamilySnapshot> snapshot;
  Messenger::Reply reply;
  std::optional<Result<WrittenPart>> outcome = {};
  std::shared_ptr<void> report = {};
};

void answer(Write& write) {
  write.snapshot.reset();
  write.report.reset();
  const auto& outcome = *write.outcome;
  if (!outcome) return write.reply.fail(outcome.error());
  std::vector<PartWritten> written = {
      {outcome->page_bytes, outcome->memory_bytes, outcome->stored_bytes, 0}};
  for (const auto& [version, id] : outcome->needs) written.push_back({0, 0, id, version});
  write.reply.ok(rows(written));
}

void write_here(NodeContext& node, FamilyCaptures& captures, const std::shared_ptr<LastParts>& last,
                const WritePart& ask, std::string_view payload, Messenger::Reply reply) {
  const auto [folder, packed_family] = split_text(payload);
  PartOrder order{.folder = folder,
                  .version = ask.number,
                  .node = node.self.value,
                  .id = ask.id,
                  .base = {ask.base, ask.base_id},
                  .compress = ask.compress != 0,
                  .progress = std::make_shared<Progress>(),
                  .last = last};
  if (const auto pages = ask.live == 0 ? nullptr : captures.live_pages(ask.live))
    order.live = std::static_pointer_cast<LivePart>(pages->saved);
  auto family = ProcessFamily::parse(packed_family);
  if (!family) return reply.fail(family.error());
  auto snapshot = captures.share_of(ask.capture, std::move(*family));
  if (!snapshot) return reply.fail(snapshot.error());
  auto write =
      std::make_shared<Write>(Write{std::move(order), std::move(*snapshot), std::move(reply)});
  write->report = report_progress(node, ask.audience, write->order.progress);
  node.workers.submit(
      [write] {
        write->outcome.emplace(write_part(SnapshotPages(*write->snapshot), write->order));
      },
      [write] { answer(*write); });
}

void write_live_here(NodeContext& node, FamilyCaptures& captures, const WriteLive& ask,
                     std::string_view payload, Messenger::Reply reply) {
  const auto pages = captures.live_pages(ask.watch);
  if (!pages) return reply.fail(ESRCH, "no such capture");
  PartOrder order{.folder = split_text(payload).first,
                  .version = ask.number,
                  .node = node.self.value,
                  .id = ask.id,
                  .base = {},
                  .compress = ask.compress != 0,
                  .progress = std::make_shared<Progress>()};
  auto report = report_progress(node, ask.audience, order.progress);
  auto answer = std::make_shared<Messenger::Reply>(std::move(reply));
  auto part = std::make_shared<Result<std::shared_ptr<LivePart>>>(std::shared_ptr<LivePart>());
  node.workers.submit(
      [pages, part, order = std::move(order)] {
        SourcePages source(*pages);
        *part = LivePart::write(source, order);
      },
      [pages, part, report, answer] {
        if (!*part) return answer->fail(part->error());
        pages->saved = std::move(**part);
        answer->ok();
      });
}

Result<WrittenPart> parse(uint32_t node, std::string_view reply) {
  const auto written = split_rows<PartWritten>(reply);
  if (written.empty()) return errno_error("part of a checkpoint", EPROTO);
  const PartWritten& sizes = written.front();
  WrittenPart part{node, sizes.page_bytes, sizes.memory_bytes, sizes.stored_or_id, {}};
  for (size_t i = 1; i < written.size(); ++i)
    part.needs.emplace_back(static_cast<uint32_t>(written[i].version), written[i].stored_or_id);
  return part;
}

}  // namespace

void add_part_writes(NodeContext& node, FamilyCaptures& captures) {
  auto last = std::make_shared<LastParts>();
  node.messenger.on_request<WritePart>([&node, &captures, last](NodeId, const WritePart& ask,
                                                                std::string_view payload,
                                                                Messenger::Reply reply) {
    write_here(node, captures, last, ask, payload, std::move(reply));
  });
  node.messenger.on_request<WriteLive>([&node, &captures](NodeId, const WriteLive& ask,
                                                          std::string_view payload,
                                                          Messenger::Reply reply) {
    write_live_here(node, captures, ask, payload, std::move(reply));
  });
}

void request_live(NodeContext& node, const PartOrder& order, uint64_t watch,
                  const Audience& audience, std::function<void(Status)> done) {
  WriteLive ask;
  ask.compress = order.compress;
  ask.number = order.version;
  ask.watch = watch;
  ask.id = order.id;
  ask.audience = audience;
  node.messenger.request(NodeId{static_cast<uint16_t>(order.node)}, ask,
                         with_text(order.folder, {}),
                         [done = std::move(done)](const Result<std::string>& reply) {
                           done(reply ? Status() : Status(reply.error()));
                         });
}

void request_part(NodeContext& node, const PartOrder& order,
                  const FamilyCaptures::Captured& captured, uint64_t watch,
                  const Audience& audience, std::function<void(Result<WrittenPart>)> done) {
  WritePart ask;
  ask.compress = order.compress;
  ask.number = order.version;
  ask.base = order.base.version;
  ask.base_id = order.base.id;
  ask.live = watch;
  ask.capture = captured.number;
  ask.id = order.id;
  ask.audience = audience;
  node.messenger.request(NodeId{static_cast<uint16_t>(order.node)}, ask,
                         with_text(order.folder, captured.family.serialize()),
                         [node = order.node, done = std::move(done)](Result<std::string> reply) {
                           done(reply ? parse(node, *reply) : Result<WrittenPart>(reply.error()));
                         });
}

}  // namespace krg
