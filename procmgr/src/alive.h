// Alive: lets an object's callbacks come late. What guard() wraps does nothing once the object that
// holds the Alive has gone. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <utility>

namespace krg {

class Alive {
 public:
  Alive() = default;
  Alive(const Alive&) = delete;
  Alive& operator=(const Alive&) = delete;

  template <class Callback>
  auto guard(Callback callback) const {
    return [weak = std::weak_ptr<const char>(token_),
            callback = std::move(callback)](auto&&... arguments) mutable {
      if (!weak.expired()) callback(std::forward<decltype(arguments)>(arguments)...);
    };
  }

 private:
  std::shared_ptr<const char> token_ = std::make_shared<const char>();
};

// A callback that a std::function can hold although it can be called only once and only moved.
template <class Callback>
std::shared_ptr<Callback> shared(Callback callback) {
  return std::make_shared<Callback>(std::move(callback));
}

}  // namespace krg
