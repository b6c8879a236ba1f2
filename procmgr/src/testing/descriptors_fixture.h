// DescriptorsTest: the fixture of the tests of descriptors: a cluster, a folder for files, helpers
// for programs. After each test nothing may be held by any node.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "testing/descriptor_cluster.h"

namespace krg::testing {

// Exit statuses of programs say which step failed.
inline constexpr int kOk = 0;

inline bool exited_well(int status) {
  return WIFEXITED(status) && WEXITSTATUS(status) == kOk;
}

// Everything from a descriptor until end of file.
inline std::string read_all(int fd) {
  std::string all;
  char piece[65536];
  for (ssize_t got; (got = read(fd, piece, sizeof piece)) > 0;)
    all.append(piece, static_cast<size_t>(got));
  return all;
}

inline bool write_all(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t put = write(fd, data.data(), data.size());
    if (put <= 0) return false;
    data.remove_prefix(static_cast<size_t>(put));
  }
  return true;
}

class DescriptorsTest : public DescriptorCluster {
 protected:
  void SetUp() override {
    DescriptorCluster::SetUp();
    if (IsSkipped()) return;
    char name[] = "/tmp/krg_descriptors_XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
  }
  void TearDown() override {
    if (!nodes_.empty()) {
      settle();
      expect_nothing_held();
    }
    DescriptorCluster::TearDown();
    if (!directory_.empty()) [[maybe_unused]]
      int result = system(("rm -rf " + directory_).c_str());
  }
  void expect_nothing_held() {
    for (auto& node : nodes_) {
      if (node->messenger.is_failed(node->context.self)) continue;
      EXPECT_EQ(node->descriptors.descriptions_kept(), 0u);
      EXPECT_EQ(node->descriptors.streams_open(), 0u);
    }
  }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  // A file with contents, opened with `flags`.
  UniqueFd file(const std::string& name, std::string_view contents, int flags) {
    UniqueFd made(open(path(name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
    EXPECT_TRUE(write_all(made.get(), contents));
    return UniqueFd(open(path(name).c_str(), flags | O_CLOEXEC));
  }
  std::string contents(const std::string& name) {
    UniqueFd opened(open(path(name).c_str(), O_RDONLY | O_CLOEXEC));
    return read_all(opened.get());
  }
  // What a non-blocking reader finds until end of file, while the nodes work.
  std::string drain(UniqueFd reader) {
    std::string all;
    fcntl(reader.get(), F_SETFL, O_NONBLOCK);
    EXPECT_TRUE(pump_until([&] {
      char piece[65536];
      for (;;) {
        const ssize_t got = read(reader.get(), piece, sizeof piece);
        if (got > 0) {
          all.append(piece, static_cast<size_t>(got));
          continue;
        }
        return got == 0;
      }
    }));
    return all;
  }

  std::string directory_;
};

}  // namespace krg::testing
