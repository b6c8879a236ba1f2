// in_worker(): runs a function that may block in a worker and hands what it returned to `done` in
// the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "krg/runtime/worker_pool.h"

namespace krg {

template <class Work, class Done>
void in_worker(WorkerPool& workers, Work work, Done done) {
  auto result = std::make_shared<std::optional<decltype(work())>>();
  workers.submit([result, work = std::move(work)] { result->emplace(work()); },
                 [result, done = std::move(done)] { done(std::move(**result)); });
}

}  // namespace krg
