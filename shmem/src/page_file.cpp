// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <utility>

namespace krg {

constexpr size_t kPagesUnderWay = 64;    // of one transfer
constexpr uint64_t kPagesVisited = 256;  // in one turn of the loop

struct PageFile::Transfer {
  bool write;
  uint64_t offset;
  std::string bytes;
  std::function<void(Result<std::string>)> done;
  Status outcome = {};
  uint64_t next = 0;  // bytes that have been asked for
  size_t under_way = 0;
  bool is_of_one_page() const { return offset % kPageBytes + bytes.size() <= kPageBytes; }
};

void PageFile::read(size_t pages, uint64_t offset, size_t bytes,
                    std::function<void(Result<std::string>)> done) {
  start(std::make_shared<Transfer>(
            Transfer{false, offset, std::string(bytes, '\0'), std::move(done)}),
        pages);
}

void PageFile::write(size_t pages, uint64_t offset, std::string_view bytes,
                     std::function<void(Status)> done) {
  auto ended = [done = std::move(done)](Result<std::string> result) {
    done(result ? Status() : Status(result.error()));
  };
  start(std::make_shared<Transfer>(Transfer{true, offset, std::string(bytes), std::move(ended)}),
        pages);
}

void PageFile::start(std::shared_ptr<Transfer> transfer, size_t pages) {
  const uint64_t size = pages * kPageBytes;
  if (transfer->offset > size || transfer->bytes.size() > size - transfer->offset)
    return transfer->done(errno_error(
        fmt::format("set {}: {} bytes at {}", set_.value, transfer->bytes.size(), transfer->offset),
        EINVAL));
  if (transfer->bytes.empty()) return transfer->done(std::string());
  if (transfer->is_of_one_page()) return use_next(transfer);
  const Kddm::Together together(kddm_);
  ++transfer->under_way;  // keeps it from ending while it starts
  for (size_t i = 0; i < kPagesUnderWay; ++i) use_next(transfer);
  if (--transfer->under_way > 0) return;
  transfer->done(transfer->outcome ? Result<std::string>(std::move(transfer->bytes))
                                   : Result<std::string>(transfer->outcome.error()));
}

// Copies the next page's part as soon as this node may, then goes on with another one. An only one
// is put when the end has been told: putting it may run what waits to write it.
void PageFile::use_next(const std::shared_ptr<Transfer>& transfer) {
  if (transfer->next >= transfer->bytes.size()) return;
  const uint64_t at = transfer->next;
  const uint64_t position = transfer->offset + at;
  const size_t in_page = position % kPageBytes;
  const size_t length = std::min(kPageBytes - in_page, transfer->bytes.size() - at);
  transfer->next += length;
  ++transfer->under_way;
  const ObjectId object{position / kPageBytes};
  auto use = [this, transfer, object, at, in_page, length](Result<std::span<std::byte>> page) {
    if (!page) {
      transfer->outcome = page.error();
    } else {
      std::byte* there = page->data() + in_page;
      char* here = transfer->bytes.data() + at;
      std::memcpy(transfer->write ? static_cast<void*>(there) : here,
                  transfer->write ? static_cast<void*>(here) : there, length);
    }
    const bool is_only = transfer->is_of_one_page();
    if (page && !is_only) kddm_.put(set_, object);
    use_next(transfer);
    if (--transfer->under_way > 0) return;
    Kddm& kddm = kddm_;  // the page file may end with the transfer
    const SetId set = set_;
    transfer->done(transfer->outcome ? Result<std::string>(std::move(transfer->bytes))
                                     : Result<std::string>(transfer->outcome.error()));
    if (page && is_only) kddm.put(set, object);
  };
  if (transfer->write) {
    kddm_.grab(set_, object, Kddm::Touch::kFirstTouch, std::move(use));
  } else {
    kddm_.get(set_, object, Kddm::Touch::kFirstTouch, std::move(use));
  }
}

struct PageFile::Visit {
  EventLoop& loop;
  uint64_t next, end;  // pages
  std::function<void(PageIndex, std::span<const std::byte>)> use;
  std::function<void(Status)> done;
  Status outcome = {};
  size_t under_way = 0;
};

void PageFile::visit(EventLoop& loop, PageIndex first, size_t count,
                     std::function<void(PageIndex, std::span<const std::byte>)> use,
                     std::function<void(Status)> done) {
  visit_next(std::make_shared<Visit>(
      Visit{loop, first.value, first.value + count, std::move(use), std::move(done)}));
}

// Some pages together, then the next ones.
void PageFile::visit_next(const std::shared_ptr<Visit>& visit) {
  if (visit->next == visit->end || !visit->outcome) return visit->done(visit->outcome);
  const uint64_t first = visit->next;
  const uint64_t count = std::min(visit->end - first, kPagesVisited);
  visit->next += count;
  visit->under_way = count;
  kddm_.get_range(set_, ObjectId{first}, count, Kddm::Touch::kNoFirstTouch,
                  [this, visit](ObjectId object, Result<std::span<std::byte>> page) {
                    if (page) {
                      visit->use(PageIndex{object.value}, *page);
                      kddm_.put(set_, object);
                    } else if (page.error().errno_or(0) != ENOENT) {
                      visit->outcome = page.error();
                    }
                    if (--visit->under_way == 0)
                      visit->loop.post([this, visit] { visit_next(visit); });
                  });
}

void PageFile::update(size_t pages, uint64_t offset, std::function<uint32_t(uint32_t)> change,
                      std::function<void(Result<uint32_t>)> done) {
  if (offset >= pages * kPageBytes)
    return done(errno_error(fmt::format("set {}: a word at {}", set_.value, offset), EINVAL));
  const ObjectId object{offset / kPageBytes};
  kddm_.grab(set_, object, Kddm::Touch::kFirstTouch,
             [this, object, in_page = offset % kPageBytes, change = std::move(change),
              done = std::move(done)](Result<std::span<std::byte>> page) {
               if (!page) return done(page.error());
               // This node's programs may be writing it, too.
               std::atomic_ref<uint32_t> word(*reinterpret_cast<uint32_t*>(page->data() + in_page));
               uint32_t before = word.load();
               while (!word.compare_exchange_weak(before, change(before))) {
               }
               kddm_.put(set_, object);
               done(before);
             });
}

void PageFile::discard(PageIndex first, size_t count, std::function<void()> done) {
  if (count == 0) return done();
  auto left = std::make_shared<size_t>(count);
  auto removed = [left, done = std::move(done)] {
    if (--*left == 0) done();
  };
  const Kddm::Together together(kddm_);
  for (uint64_t i = 0; i < count; ++i) kddm_.remove(set_, ObjectId{first.value + i}, removed);
}

}  // namespace krg
