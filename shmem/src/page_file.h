// PageFile: a page set's pages as a file's bytes: read(2), write(2) and the punching of holes by
// this process, through get, grab and remove of the KDDM set.
//
// Threads: the loop's thread. Owned by the page set.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "krg/shmem/kddm.h"
#include "krg/shmem/page_set.h"

namespace krg {

class PageFile {
 public:
  PageFile(Kddm& kddm, SetId set) : kddm_(kddm), set_(set) {}
  // As page_set.h says; the file is `pages` long.
  void read(size_t pages, uint64_t offset, size_t bytes,
            std::function<void(Result<std::string>)> done);
  void write(size_t pages, uint64_t offset, std::string_view bytes,
             std::function<void(Status)> done);
  void visit(EventLoop& loop, PageIndex first, size_t count,
             std::function<void(PageIndex, std::span<const std::byte>)> use,
             std::function<void(Status)> done);
  void update(size_t pages, uint64_t offset, std::function<uint32_t(uint32_t)> change,
              std::function<void(Result<uint32_t>)> done);
  void discard(PageIndex first, size_t count, std::function<void()> done);

 private:
  struct Transfer;
  struct Visit;
  void visit_next(const std::shared_ptr<Visit>& visit);
  void use_next(const std::shared_ptr<Transfer>& transfer);
  void start(std::shared_ptr<Transfer> transfer, size_t pages);

  Kddm& kddm_;
  const SetId set_;
};

}  // namespace krg
