// std::thread, exceptions, futures: as every C++ program has them.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstdio>
#include <future>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

int main() {
  std::mutex mutex;
  std::map<int, std::string> all;
  const auto add = [&](int key, std::string text) {
    std::lock_guard lock(mutex);
    all[key] = std::move(text);
  };
  std::vector<std::thread> threads;
  for (int self = 0; self < 4; ++self)
    threads.emplace_back([&, self] {
      for (int i = 0; i < 50; ++i) try {
          if (i % 10 == 9) throw std::runtime_error("thrown by " + std::to_string(self));
          add(self * 100 + i, std::to_string(i));
        } catch (const std::exception& error) {
          add(self * 100 + i, error.what());
        }
    });
  for (std::thread& thread : threads) thread.join();
  std::string text;
  for (const auto& [key, value] : all) text += value;
  auto future = std::async(std::launch::async, [] { return 42; });
  std::printf("%zu %zu %d\n", all.size(), text.size(), future.get());
}
