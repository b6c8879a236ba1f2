// SPDX-License-Identifier: GPL-2.0-or-later
#include "part_writes.h"

#include <optional>

#include "base_ranges.h"
#include "checkpoint_messages.h"
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
}

void request_part(NodeContext& node, const PartOrder& order,
                  const FamilyCaptures::Captured& captured, const Audience& audience,
                  std::function<void(Result<WrittenPart>)> done) {
  WritePart ask;
  ask.compress = order.compress;
  ask.number = order.version;
  ask.base = order.base.version;
  ask.base_id = order.base.id;
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
