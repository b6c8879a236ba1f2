// ShortQueue: a queue that is empty most of the time, and then has no memory of its own (a
// std::deque allocates when it is made; there are two in each object's entry, and a million
// objects). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace krg {

template <class T>
class ShortQueue {
 public:
  bool empty() const { return head_ == items_.size(); }
  size_t size() const { return items_.size() - head_; }
  const T& front() const { return items_[head_]; }
  void push_back(T item) { items_.push_back(std::move(item)); }
  // Amortised constant: what has been taken is given up when it is half of what is kept.
  void pop_front() {
    ++head_;
    if (head_ * 2 >= items_.size()) {
      items_.erase(items_.begin(), at_head());
      head_ = 0;
    }
    if (items_.empty()) clear();
  }
  void clear() {
    items_ = {};
    head_ = 0;
  }
  auto begin() { return at_head(); }
  auto end() { return items_.end(); }
  auto begin() const { return items_.begin() + static_cast<std::ptrdiff_t>(head_); }
  auto end() const { return items_.end(); }
  template <class Predicate>
  void erase_if(Predicate predicate) {
    items_.erase(items_.begin(), at_head());
    head_ = 0;
    std::erase_if(items_, predicate);
  }

 private:
  auto at_head() { return items_.begin() + static_cast<std::ptrdiff_t>(head_); }

  std::vector<T> items_;
  size_t head_ = 0;  // items before it have been taken
};

}  // namespace krg
