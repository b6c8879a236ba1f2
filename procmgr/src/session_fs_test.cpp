// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/session_fs.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <set>
#include <span>

#include "krgfs_fixture.h"

namespace krg {
namespace {

using std::chrono::milliseconds;

// A tree of files held in memory, with knobs for what a test wants to see.
class MemoryTree : public FsTree {
 public:
  struct File {
    std::string name = {};
    std::string data = {};
    mode_t mode = S_IFREG | 0644;
    std::string target = {};  // of a symbolic link
    bool stream = false;
    double valid_s = 0;
  };
  std::map<FileId, File> files;
  FsCaller last_caller;
  std::vector<size_t> read_sizes, write_sizes;
  std::multiset<FileId> forgotten;
  int released = 0, lookups = 0;
  bool hold_reads = false;  // keep them in held_read
  std::optional<FsReply<std::string>> held_read;
  uint64_t held_unique = 0, interrupted = 0;
  std::function<void()> wake;
  uint32_t ready = 0;

  void lookup(const FsCaller& caller, FileId parent, std::string_view name,
              FsReply<FsEntry> reply) override {
    ++lookups;
    for (auto& [id, file] : files)
      if (parent == kTreeRoot && file.name == name) return getattr(caller, id, std::move(reply));
    reply(errno_error("", ENOENT));
  }
  void getattr(const FsCaller& caller, FileId id, FsReply<FsEntry> reply) override {
    last_caller = caller;
    if (id == kTreeRoot) return FsTree::getattr(caller, id, std::move(reply));
    const File& file = files.at(id);
    FsEntry entry;
    entry.id = id;
    entry.valid_s = file.valid_s;
    entry.attributes.st_mode = file.mode;
    entry.attributes.st_size = static_cast<off_t>(file.data.size());
    entry.attributes.st_mtim = {1234567890, 987654321};
    reply(entry);
  }
  void readlink(const FsCaller&, FileId id, FsReply<std::string> reply) override {
    reply(files.at(id).target);
  }
  void readdir(const FsCaller&, FileId, FsReply<std::vector<FsDirEntry>> reply) override {
    std::vector<FsDirEntry> names;
    for (auto& [id, file] : files) names.push_back({file.name, file.mode & S_IFMT});
    reply(names);
  }
  void open(const FsCaller&, FileId id, int, FsReply<FsOpened> reply) override {
    reply(FsOpened{.handle = id * 10, .stream = files.at(id).stream});
  }
  void read(const FsCaller& caller, FileId id, uint64_t handle, uint64_t offset, size_t size, int,
            FsReply<std::string> reply) override {
    EXPECT_EQ(handle, id * 10);
    read_sizes.push_back(size);
    if (hold_reads) {
      held_unique = caller.unique;
      held_read.emplace(std::move(reply));
      return;
    }
    const std::string& data = files.at(id).data;
    reply(offset < data.size() ? data.substr(offset, size) : std::string());
  }
  void write(const FsCaller&, FileId id, uint64_t, uint64_t, std::string_view data, int,
             FsReply<size_t> reply) override {
    write_sizes.push_back(data.size());
    files.at(id).data += data;
    reply(data.size());
  }
  void truncate(const FsCaller& caller, FileId id, uint64_t size, bool,
                FsReply<FsEntry> reply) override {
    files.at(id).data.resize(size);
    getattr(caller, id, std::move(reply));
  }
  void poll(const FsCaller&, FileId, uint64_t, std::function<void()> later,
            FsReply<uint32_t> reply) override {
    if (later) wake = std::move(later);
    reply(ready);
  }
  void release(FileId, uint64_t) override { ++released; }
  void forget(FileId id) override { forgotten.insert(id); }
  void interrupt(uint64_t unique) override {
    interrupted = unique;
    if (unique == held_unique && held_read) (*held_read)(errno_error("", EINTR));
  }
};

class SessionFsTest : public KrgfsFixture {
 protected:
  void SetUp() override {
    KrgfsFixture::SetUp();
    if (!fs_) return;
    memory_.files[2] = {.name = "hello", .data = "hello world\n"};
    memory_.files[3] = {.name = "stream", .stream = true};
    memory_.files[4] = {.name = "link", .mode = S_IFLNK | 0777, .target = "hello"};
    fs_->add_tree("empty", empty_);
    fs_->add_tree("memory", memory_);
    serve();
  }
  // Does `action` once, as soon as `arrived` says so: the client may take long on a busy machine.
  EventLoop::Timer once(std::function<bool()> arrived, std::function<void()> action) {
    return loop_->every(milliseconds(2), [arrived, action, done = false]() mutable {
      if (done || !arrived()) return;
      done = true;
      action();
    });
  }
  static std::string path(const std::string& name) {
    return std::string(kMountPoint) + "/memory/" + name;
  }

  MemoryTree empty_, memory_;
};

TEST_F(SessionFsTest, ServesAttributesDataAndLinks) {
  as_client([&] {
    struct stat attributes {};
    ASSERT_EQ(stat(path("hello").c_str(), &attributes), 0);
    EXPECT_EQ(attributes.st_size, 12);
    EXPECT_EQ(attributes.st_mode, S_IFREG | 0644u);
    EXPECT_EQ(attributes.st_mtim.tv_nsec, 987654321);
    EXPECT_EQ(attributes.st_dev, fs_->device());
    EXPECT_EQ(fs_->file_of("memory", attributes.st_ino), 2u);
    EXPECT_EQ(fs_->file_of("empty", attributes.st_ino), 0u);
    EXPECT_EQ(memory_.last_caller.tid, gettid());
    EXPECT_EQ(memory_.last_caller.uid, 0u);
    UniqueFd file(open(path("link").c_str(), O_RDONLY));  // through the symbolic link
    char text[64];
    EXPECT_EQ(read(file.get(), text, sizeof text), 12);
    EXPECT_EQ(read(file.get(), text, sizeof text), 0);
    EXPECT_EQ(pread(file.get(), text, 5, 6), 5);
    EXPECT_EQ(std::string(text, 5), "world");
    EXPECT_EQ(stat(path("absent").c_str(), &attributes), -1);
    EXPECT_EQ(errno, ENOENT);
    EXPECT_EQ(stat((std::string(kMountPoint) + "/nosuch").c_str(), &attributes), -1);
    EXPECT_EQ(stat((std::string(kMountPoint) + "/empty/hello").c_str(), &attributes), -1);
    EXPECT_EQ(open(path("new").c_str(), O_CREAT | O_WRONLY, 0600), -1);
    EXPECT_EQ(errno, EROFS);
  });
}

TEST_F(SessionFsTest, ListsLargeDirectoriesInOneState) {
  for (FileId id = 100; id < 5100; ++id) memory_.files[id].name = "f" + std::to_string(id);
  std::set<std::string> names;
  std::atomic<bool> erased = false;
  as_client([&] {
    std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path("").c_str()), closedir);
    ASSERT_TRUE(directory);
    while (dirent* entry = ::readdir(directory.get())) {
      if (names.empty()) loop_->post([&] { erased = memory_.files.erase(5099) == 1; });
      EXPECT_TRUE(names.insert(entry->d_name).second) << entry->d_name;
    }
    while (!erased) usleep(100);
    rewinddir(directory.get());
    size_t again = 0;
    while (::readdir(directory.get()) != nullptr) ++again;
    EXPECT_EQ(again, names.size() - 1);
  });
  EXPECT_EQ(names.size(), 5000u + 3 + 2);  // with "." and ".."
  EXPECT_TRUE(names.count("f5099"));
}

TEST_F(SessionFsTest, MovesAMebibyteInOneRequest) {
  // Aligned: a buffer that touches 257 pages takes two requests.
  std::unique_ptr<void, void (*)(void*)> aligned(std::aligned_alloc(4096, 1u << 20), std::free);
  std::span<char> data(static_cast<char*>(aligned.get()), 1u << 20);
  std::fill(data.begin(), data.end(), 'x');
  as_client([&] {
    UniqueFd file(open(path("hello").c_str(), O_RDWR | O_TRUNC));
    ASSERT_TRUE(file);
    EXPECT_EQ(ftruncate(file.get(), 0), 0);
    EXPECT_EQ(write(file.get(), data.data(), data.size()), static_cast<ssize_t>(data.size()));
    EXPECT_EQ(pread(file.get(), data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  });
  EXPECT_EQ(memory_.write_sizes, std::vector<size_t>{data.size()});
  EXPECT_EQ(memory_.read_sizes, std::vector<size_t>{data.size()});
  EXPECT_EQ(memory_.files[2].data, std::string(data.size(), 'x'));
}

TEST_F(SessionFsTest, AnswersLaterAndOutOfOrder) {
  memory_.hold_reads = true;
  auto later = once([&] { return memory_.held_read.has_value(); },
                    [&] { (*memory_.held_read)(std::string("late")); });
  as_client([&] {
    UniqueFd file(open(path("stream").c_str(), O_RDONLY));
    EXPECT_EQ(lseek(file.get(), 0, SEEK_CUR), -1);
    EXPECT_EQ(errno, ESPIPE);
    char text[16];
    EXPECT_EQ(read(file.get(), text, sizeof text), 4);
  });
}

TEST_F(SessionFsTest, ADroppedReplyIsAnInputOutputError) {
  memory_.hold_reads = true;
  auto later =
      once([&] { return memory_.held_read.has_value(); }, [&] { memory_.held_read.reset(); });
  as_client([&] {
    UniqueFd file(open(path("stream").c_str(), O_RDONLY));
    char text[16];
    EXPECT_EQ(read(file.get(), text, sizeof text), -1);
    EXPECT_EQ(errno, EIO);
  });
}

TEST_F(SessionFsTest, ASignalInterruptsAWaitingRead) {
  memory_.hold_reads = true;
  struct sigaction quiet {};
  quiet.sa_handler = [](int) {};
  ASSERT_EQ(sigaction(SIGUSR1, &quiet, nullptr), 0);
  std::atomic<pthread_t> reader{};
  auto later =
      once([&] { return memory_.held_read.has_value(); }, [&] { pthread_kill(reader, SIGUSR1); });
  as_client([&] {
    reader = pthread_self();
    UniqueFd file(open(path("stream").c_str(), O_RDONLY));
    char text[16];
    EXPECT_EQ(read(file.get(), text, sizeof text), -1);
    EXPECT_EQ(errno, EINTR);
  });
  EXPECT_NE(memory_.interrupted, 0u);
  EXPECT_EQ(memory_.interrupted, memory_.held_unique);
}

TEST_F(SessionFsTest, PollWakesWhenTheTreeSaysSo) {
  std::atomic<bool> waits = false;
  auto later = once([&] { return waits && memory_.wake; },
                    [&] {
                      memory_.ready = POLLIN;
                      memory_.wake();
                    });
  as_client([&] {
    UniqueFd file(open(path("stream").c_str(), O_RDONLY));
    UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN;
    ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, file.get(), &event), 0);
    pollfd one{file.get(), POLLIN | POLLOUT, 0};
    EXPECT_EQ(::poll(&one, 1, 0), 0);
    waits = true;
    EXPECT_EQ(epoll_wait(epoll.get(), &event, 1, 5000), 1);
    EXPECT_EQ(::poll(&one, 1, 5000), 1);
    EXPECT_EQ(one.revents, POLLIN);
  });
}

TEST_F(SessionFsTest, TellsTreesOfReleaseAndForget) {
  memory_.files[2].valid_s = 100;
  as_client([&] {
    for (int i = 0; i < 10; ++i) UniqueFd file(open(path("hello").c_str(), O_RDONLY));
  });
  EXPECT_EQ(memory_.lookups, 1);  // cached by the kernel as long as the entry says
  for (int i = 0; i < 50 && memory_.released < 10; ++i) loop_->run_once(milliseconds(20));
  EXPECT_EQ(memory_.released, 10);
  EXPECT_EQ(memory_.forgotten.count(3), 0u);
  as_client([&] {
    EXPECT_EQ(access(path("stream").c_str(), F_OK), 0);
    loop_->post([&] { memory_.files.erase(3); });
    while (access(path("stream").c_str(), F_OK) == 0) continue;  // the kernel drops the stale name
  });
  for (int i = 0; i < 50 && memory_.forgotten.empty(); ++i) loop_->run_once(milliseconds(20));
  EXPECT_EQ(memory_.forgotten.count(3), 1u);
}

TEST_F(SessionFsTest, IsMountedInAnotherNamespaceAndReachedByItsRoot) {
  TearDown();
  loop_.emplace(*EventLoop::create());
  fs_.emplace(*loop_);
  fs_->add_tree("memory", memory_);
  UniqueFd elsewhere;
  std::thread([&] {
    ASSERT_EQ(unshare(CLONE_NEWNS), 0);
    elsewhere = UniqueFd(open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC));
  }).join();
  ASSERT_TRUE(elsewhere);
  auto made = mount_krgfs(elsewhere.get(), kMountPoint);
  ASSERT_TRUE(made) << made.error().message();
  ASSERT_TRUE(fs_->serve(std::move(*made)));
  EXPECT_NE(access(path("hello").c_str(), F_OK), 0);  // not in ours
  as_client([&] {
    UniqueFd file(openat(fs_->root(), "memory/hello", O_RDONLY));
    char text[16];
    EXPECT_EQ(read(file.get(), text, sizeof text), 12);
  });
}

}  // namespace
}  // namespace krg
